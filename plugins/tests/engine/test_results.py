"""The run as a whole: what was planned against what was measured, and the verdict of it all."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from robustgate.core.errors import ResultsError
from robustgate.core.records import Case, CaseResult, Finding, Results, Timing, Unjudged, VariantRecord, Verdict
from robustgate.engine.plan import Plan
from robustgate.engine.results import Circumstances, assemble, key, rules_left, rules_of, shown_path, tallied

NOON = datetime(2026, 6, 15, 12, 30, 15, 999, tzinfo=UTC)
SIZE = '\n[[policies.edge.rules]]\nname = "fits"\nrule = "size"\nmax = "3 MB"\nwhere = { compression = "fp*" }\n'
FIGURES = ("median_ms", "low_ms", "high_ms", "reference_ms", "ratio", "ratio_low", "ratio_high")
PRUNED = ("resnet18-fp60-amazon", "resnet18-fp60_ptsq-amazon", "resnet18-fp25-amazon")


def measured(case: Case, verdict: Verdict = "pass", *findings: Finding) -> CaseResult:
    value = None if verdict == "error" else 0.5
    return replace(CaseResult.of(case, verdict=verdict), value=value, findings=findings)


def every(plan: Plan, **verdicts: Verdict) -> dict[tuple[str, str], CaseResult]:
    """All cases measured; `verdicts` by the last word of their names, else pass."""
    return {key(case): measured(case, verdicts.get(case.name.split("-")[-1], "pass")) for case in plan.cases}


def finding(subject: str, verdict: Verdict = "pass", rule: str = "fits", **fields: Any) -> Finding:
    figures = {"limit": 3e6, "value": 1.0, "low": 1.0, "high": 1.0}
    kind = {"metric": "size_bytes", "limit_kind": "max"}
    given = {"policy": "edge", **figures, **kind, **fields}
    return Finding(rule=rule, subject=subject, verdict=verdict, message="", **given)


def run(
    plan: Plan,
    cases: dict[tuple[str, str], CaseResult],
    findings: Collection[Finding] = (),
    selected: Collection[tuple[str, str]] | None = None,
    variants: Collection[VariantRecord] = (),
) -> Results:
    circumstances = Circumstances(
        id="r", started=NOON, seconds=1.26, device="cpu", processor="x86_64", versions={"torch": "2.10"}
    )
    chosen = cases.keys() if selected is None else selected
    return assemble(plan, cases, variants, findings, chosen, circumstances)


def test_a_run_that_measured_everything_and_broke_nothing_passes(planned) -> None:
    plan = planned()
    results = run(plan, every(plan))
    assert (results.run.verdict, results.run.complete) == ("pass", True)
    assert results.run.planned == results.run.selected == results.run.measured == 30
    assert [row.name for row in results.cases] == [case.name for case in plan.cases]


def test_the_run_tells_its_circumstances(planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(extra="\n[gate]\nseed = 7\n")
    monkeypatch.chdir(tmp_path)
    record = run(plan, every(plan)).run
    assert (record.seed, record.policy, record.confidence, record.device) == (7, "edge", 0.99, "cpu")
    assert (record.started, record.seconds) == ("2026-06-15T12:30:15+00:00", 1.3)
    assert (record.config, record.config_sha256) == ("robustgate.toml", plan.configuration.sha256)
    assert record.versions["torch"] == "2.10"
    assert record.versions["python"].startswith("3.")


@pytest.mark.parametrize("verdict", ["waived", "undecided", "fail"])
def test_the_worst_case_is_the_verdict_of_the_run(planned, verdict: Verdict) -> None:
    plan = planned()
    results = run(plan, every(plan, pgd=verdict))
    assert (results.run.verdict, results.run.complete, results.run.measured) == (verdict, True, 30)


def test_fail_outweighs_undecided_and_error_outweighs_fail(planned) -> None:
    plan = planned()
    assert run(plan, every(plan, pgd="undecided", far="fail", fog_s1="waived")).run.verdict == "fail"
    assert run(plan, every(plan, pgd="error", far="fail")).run.verdict == "error"


def test_a_case_that_broke_was_not_measured(planned) -> None:
    plan = planned()
    record = run(plan, every(plan, pgd="error")).run
    assert (record.verdict, record.complete, record.measured, record.selected) == ("error", False, 25, 30)


def test_a_case_that_was_not_selected_has_a_row_that_says_so(planned) -> None:
    plan = planned()
    cases = {place: row for place, row in every(plan).items() if place[0] == "adversarial"}
    results = run(plan, cases)
    assert (results.run.verdict, results.run.complete) == ("incomplete", False)
    assert (results.run.planned, results.run.selected, results.run.measured) == (30, 10, 10)
    left = results.cases[0]
    assert (left.verdict, left.message, left.selected, left.value) == ("incomplete", "not selected", False, None)


def test_a_case_that_was_selected_and_not_measured_is_told_apart(planned) -> None:
    plan = planned()
    cases = every(plan)
    selected = set(cases)
    del cases["clean", "resnet18-none-amazon"]
    results = run(plan, cases, selected=selected)
    assert (results.run.verdict, results.run.selected, results.run.measured) == ("incomplete", 30, 29)
    assert (results.cases[0].message, results.cases[0].selected) == ("selected, but not measured", True)
    failed = run(plan, {**cases, **{k: v for k, v in every(plan, pgd="fail").items() if k[1].endswith("pgd")}})
    assert failed.run.verdict == "fail", "what is known to be broken outweighs what is not known"


def test_nothing_measured_is_incomplete(planned) -> None:
    plan = planned()
    record = run(plan, {}).run
    assert (record.verdict, record.complete, record.measured) == ("incomplete", False, 0)


def test_a_case_that_was_not_planned_is_left_out(planned) -> None:
    plan = planned()
    stranger = {("clean", "vgg-none-amazon"): measured(plan.cases[0], "fail")}
    assert run(plan, {**every(plan), **stranger}).run.verdict == "pass"


def test_a_rule_on_variants_that_was_not_judged_leaves_the_run_incomplete(planned) -> None:
    plan = planned(extra=SIZE)
    record = run(plan, every(plan), [finding(name) for name in PRUNED[:2]]).run
    assert (record.verdict, record.complete, record.measured) == ("incomplete", False, 30)
    # One rule's finding does not stand in for another's.
    others = [finding(name, rule="other") for name in PRUNED]
    assert run(plan, every(plan), others).run.complete is False
    record = run(plan, every(plan), [finding(name) for name in PRUNED]).run
    assert (record.verdict, record.complete) == ("pass", True)


def test_a_broken_rule_on_a_variant_fails_the_run(planned) -> None:
    plan = planned(extra=SIZE)
    findings = [finding(name, "fail" if "fp25" in name else "pass") for name in PRUNED]
    results = run(plan, every(plan), findings)
    assert results.run.verdict == "fail"
    assert [one.subject for one in results.findings] == sorted(PRUNED)


def test_a_rule_judged_by_two_tests_is_reported_once(planned) -> None:
    plan = planned(extra=SIZE)
    twice = [finding(name) for name in PRUNED] * 2
    assert run(plan, every(plan), twice).findings == run(plan, every(plan), twice[:3]).findings


def record_of(name: str, **measured: Any) -> VariantRecord:
    return VariantRecord(
        name=name,
        model="resnet18",
        source="amazon",
        compression="fp60",
        format="torch",
        artifact_sha256="",
        parameters=1,
        nonzero_parameters=1,
        size_bytes=1,
        deflated_bytes=1,
        seconds_to_build=0,
        **measured,
    )


def test_variants_stand_in_the_order_of_the_plan(planned) -> None:
    plan = planned()
    records = [record_of(PRUNED[2]), record_of(PRUNED[0])]
    assert [one.name for one in run(plan, every(plan), variants=records).variants] == [PRUNED[0], PRUNED[2]]


def test_what_several_tests_measured_of_a_variant_stands_in_one_record(planned) -> None:
    plan = planned()
    one, many = (Timing(batch=batch, rounds=9, **dict.fromkeys(FIGURES, 1.0)) for batch in (1, 32))
    parts = [
        record_of(PRUNED[0]),
        record_of(PRUNED[0], latency_ms=1.0, timings=(one, many)),
        record_of(PRUNED[0], memory_bytes=7),
        record_of(PRUNED[0]),
    ]
    for order in permutations(parts):
        (merged,) = run(plan, every(plan), variants=order).variants
        assert (merged.latency_ms, merged.timings, merged.memory_bytes) == (1.0, (one, many), 7)


FAST = '\n[[policies.edge.rules]]\nname = "fast"\nrule = "latency"\nmax = "5 ms"\nwhere = { compression = "fp25" }\n'


def test_each_test_judges_its_own_rules_on_variants(planned) -> None:
    rules = planned(extra=SIZE + FAST).policies[0].run_rules[PRUNED[2]]
    assert [rule.name for rule in rules_of("cost", rules)] == ["fits"]
    assert [rule.name for rule in rules_of("latency", rules)] == ["fast"]


def test_a_finding_without_a_figure_leaves_the_run_incomplete(planned) -> None:
    plan = planned(extra=SIZE)
    missing = replace(finding(PRUNED[0], "incomplete"), value=None, low=None, high=None)
    results = run(plan, every(plan), [missing, *(finding(name) for name in PRUNED[1:])])
    assert (results.run.verdict, results.run.complete) == ("incomplete", False)
    assert results.unjudged == (left(PRUNED[0], "fits", selected=False),)


def left(subject: str, rule: str, *, selected: bool) -> Unjudged:
    return Unjudged(policy="edge", rule=rule, subject=subject, selected=selected)


def test_rules_without_a_figure_are_named_and_whether_their_test_was_selected(planned) -> None:
    plan = planned(extra=SIZE + FAST)
    cases = every(plan)

    def unjudged(*selected: tuple[str, str]) -> tuple[Unjudged, ...]:
        return rules_left(run(plan, cases, [finding(PRUNED[0])], {*cases, *selected}))

    def expected(*, fits: bool, fast: bool) -> tuple[Unjudged, ...]:
        return (
            left(PRUNED[1], "fits", selected=False),
            left(PRUNED[2], "fits", selected=fits),
            left(PRUNED[2], "fast", selected=fast),
        )

    assert unjudged(("cost", PRUNED[0]), ("latency", PRUNED[0])) == expected(fits=False, fast=False)
    assert unjudged(("latency", PRUNED[2])) == expected(fits=False, fast=True)
    assert unjudged(("cost", PRUNED[2])) == expected(fits=True, fast=False)


def test_a_run_that_is_tallied_again_is_the_same(planned) -> None:
    plan = planned(extra=SIZE + TICKETS)
    results = run(plan, every(plan, pgd="fail"), [finding(PRUNED[0])])
    assert tallied(results) == results
    with pytest.raises(ResultsError, match=r"unjudged: .* the run is of an older robustgate; run it again"):
        tallied(replace(results, unjudged=None))


def test_selected_counts_planned_cases_alone(planned) -> None:
    plan = planned(extra=SIZE)
    cases = every(plan)
    assert run(plan, cases, selected={*cases, ("cost", PRUNED[0])}).run.selected == 30


# Waivers.

TICKETS = """
[[policies.edge.waivers]]
where = { attack = "pgd" }
until = 2026-12-31
reason = "ticket 1"
[[policies.edge.waivers]]
where = { compression = "fp25", attack = "far" }
until = 2026-12-31
reason = "ticket 1"
[[policies.edge.waivers]]
where = { kind = "clean" }
until = 2026-06-14
reason = "ticket 1"
[[policies.edge.waivers]]
where = { attack = "pgd" }
until = 2026-01-01
reason = "ticket 1"
"""


def test_a_waiver_counts_the_findings_that_it_covers(planned) -> None:
    plan = planned(extra=TICKETS)
    cases = every(plan)
    for place in list(cases):
        name = place[1]
        if name.endswith("pgd") or name == "resnet18-fp25-amazon-far":
            by = 0 if name.endswith("pgd") else 1
            marked = finding(name, "waived", "floor", waiver="until 2026-12-31: ticket 1", waiver_index=by)
            cases[place] = replace(cases[place], verdict="waived", findings=(marked, finding(name, rule="more")))
        if place == ("clean", "resnet18-fp25-amazon"):
            late = finding(name, "fail", "floor", waiver="expired on 2026-06-14: ticket 1", waiver_index=2)
            cases[place] = replace(cases[place], verdict="fail", findings=(late,))
    results = run(plan, cases)
    assert [(one.findings, one.expired) for one in results.waivers] == [(5, False), (1, False), (1, True), (0, True)]
    assert results.waivers[0].where == {"attack": "pgd"}
    assert (results.waivers[2].until, results.waivers[2].reason) == ("2026-06-14", "ticket 1")


def test_a_waiver_counts_findings_on_variants(planned) -> None:
    cover = '\n[[policies.edge.waivers]]\nwhere = { compression = "fp*" }\nuntil = 2026-06-15\nreason = "r"\n'
    plan = planned(extra=SIZE + cover)
    findings = [finding(name, "waived", waiver="until 2026-06-15: r", waiver_index=0) for name in PRUNED]
    results = run(plan, every(plan), findings)
    assert results.run.verdict == "waived"
    assert [(one.findings, one.expired) for one in results.waivers] == [(3, False)], "it holds on its last day"


# Names.


def test_a_path_is_shown_as_one_would_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "a" / "b.toml") == str(Path("a") / "b.toml")
    assert shown_path(tmp_path.parent / "b.toml") == str(tmp_path.parent / "b.toml")
