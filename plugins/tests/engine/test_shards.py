"""Shards of a run, put together: the single run again, or a refusal that says which shard tells what otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from robustgate.core.errors import ResultsError
from robustgate.core.records import CaseResult, Finding, Results, VariantRecord
from robustgate.engine.plan import Plan
from robustgate.engine.results import Circumstances, assemble, key
from robustgate.engine.shards import left_open, measured_again, merge

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
MORE = """
[[policies.edge.rules]]
name = "fits"
rule = "size"
max = "3 MB"
where = { compression = "fp25" }
[[policies.edge.rules]]
name = "fast"
rule = "latency"
max = "5 ms"
where = { compression = "fp25" }
[[policies.edge.waivers]]
where = { attack = "pgd" }
until = 2026-06-16
reason = "ticket 1"
"""
FP25 = "resnet18-fp25-amazon"
CLEAN = ("clean", FP25)
PGD = ("adversarial", f"{FP25}-pgd")
COST, LATENCY = ("cost", FP25), ("latency", FP25)


def finding(rule: str, subject: str = FP25, **changes: Any) -> Finding:
    value = changes.get("value", 1.0)
    figures = {"metric": "size_bytes", "limit_kind": "max", "limit": 2.0, "value": value, "low": value, "high": value}
    told = {"policy": "edge", "rule": rule, "subject": subject, "verdict": "pass", "message": ""}
    return Finding(**(told | figures | changes))


def record(**changes: Any) -> VariantRecord:
    known = {"name": FP25, "model": "resnet18", "source": "amazon", "compression": "fp25", "format": "torch"}
    counts = dict.fromkeys(("parameters", "nonzero_parameters", "size_bytes", "deflated_bytes"), 1)
    return VariantRecord(**(known | counts | {"artifact_sha256": "a1", "seconds_to_build": 1.0} | changes))


@pytest.fixture
def plan(planned) -> Plan:
    return planned(extra=MORE)


def measured(plan: Plan, **changes: Any) -> dict[tuple[str, str], CaseResult]:
    """Every case, each right on its own share of samples; those under pgd waived."""
    rows = {}
    for index, case in enumerate(plan.cases):
        judged = (finding("floor", case.name, metric="accuracy", value=index / 100),)
        row = replace(CaseResult.of(case, verdict="pass"), value=index / 100, n=9, n_total=9, findings=judged)
        if case.shift.name == "pgd":
            waived = replace(judged[0], verdict="waived", waiver="until 2026-06-16: ticket 1", waiver_index=0)
            row = replace(row, verdict="waived", findings=(waived,))
        rows[key(case)] = replace(row, **changes)
    return rows


def run(
    plan: Plan,
    chosen: Callable[[tuple[str, str]], bool] | Iterable[tuple[str, str]],
    *,
    lost: Iterable[tuple[str, str]] = (),
    minutes: float = 0,
    findings: Iterable[Finding] = (),
    variants: Iterable[VariantRecord] = (),
    processor: str = "x86_64",
    **changes: Any,
) -> Results:
    """A run that started so many minutes after noon, of some cases and tests on variants, some of them lost."""
    everything = measured(plan, **changes)
    places = {*filter(chosen, [*everything, COST, LATENCY])} if callable(chosen) else set(chosen)
    started = NOON + timedelta(minutes=minutes)
    circumstances = Circumstances(
        id=f"r{minutes:g}", started=started, seconds=1.5, device="cpu", processor=processor, versions={"torch": "2.10"}
    )
    rows = {place: row for place, row in everything.items() if place in places - {*lost}}
    return assemble(plan, rows, tuple(variants), tuple(findings), places, circumstances)


def everything(_: tuple[str, str]) -> bool:
    return True


FITS, FAST = finding("fits"), finding("fast", metric="latency_ms", value=1.25)


def test_shards_are_the_single_run_in_whatever_order(plan: Plan) -> None:
    single = run(plan, everything, findings=[FITS, FAST], variants=[record(latency_ms=1.25)])
    parts = {
        "a": run(plan, lambda place: place[0] in ("clean", "cost"), findings=[FITS], variants=[record()]),
        "b": run(plan, lambda place: place[0] == "adversarial", minutes=1),
        "c": run(plan, lambda place: place[0] not in ("clean", "cost", "adversarial"), minutes=2, findings=[FAST]),
    }
    parts["c"] = replace(parts["c"], variants=(record(latency_ms=1.25),))
    assert single.run.complete
    assert not any(part.run.complete for part in parts.values())
    for order in permutations(parts):
        merged = merge({name: parts[name] for name in order})
        assert merged == replace(single, run=replace(single.run, seconds=4.5))


def test_one_shard_alone_and_a_merged_run_are_shards_too(plan: Plan) -> None:
    part, other = run(plan, [CLEAN]), run(plan, [PGD], minutes=1)
    assert merge({"a": part}) == part
    both = merge({"a": part, "b": other})
    assert merge({"both": both, "b": other}).cases == both.cases


def test_what_no_shard_measured_stays_open(plan: Plan) -> None:
    merged = merge({"a": run(plan, [CLEAN, COST]), "b": run(plan, [PGD], minutes=1)})
    assert (merged.run.planned, merged.run.selected, merged.run.measured) == (30, 2, 2)
    assert (merged.run.complete, merged.run.verdict) == (False, "incomplete")
    left = next(row for row in merged.cases if row.name == "resnet18-none-amazon")
    assert (left.value, left.selected, left.verdict, left.message) == (None, False, "incomplete", "not selected")
    assert [(one.rule, one.selected) for one in merged.unjudged or ()] == [("fits", True), ("fast", False)]
    assert [waiver.findings for waiver in merged.waivers] == [1]


def test_rules_on_variants_that_no_shard_judged_leave_the_run_incomplete(plan: Plan) -> None:
    def is_case(place: tuple[str, str]) -> bool:
        return place not in (COST, LATENCY)

    merged = merge({"a": run(plan, is_case), "b": run(plan, [COST], minutes=1, findings=[FITS])})
    assert (merged.run.measured, merged.run.complete, merged.run.verdict) == (30, False, "incomplete")
    assert [policy.verdict for policy in merged.run.policies] == ["incomplete"]
    whole = merge({"a": merged, "b": run(plan, [LATENCY], minutes=2, findings=[FAST])})
    assert (whole.run.complete, whole.run.verdict, whole.unjudged) == (True, "waived", ())


@pytest.mark.parametrize("minutes", [-1, 1], ids=["lost before", "lost after"])
def test_a_figure_takes_the_place_of_none(plan: Plan, minutes: float) -> None:
    untimed = replace(FAST, value=None, low=None, high=None, verdict="incomplete")
    none = run(plan, [CLEAN, LATENCY], lost=[CLEAN], minutes=minutes, findings=[untimed])
    figure = run(plan, [CLEAN, LATENCY], findings=[FAST])
    assert none.run.selected == 1
    merged = merge({"none": none, "figure": figure})
    assert (merged.cases, merged.findings, merged.unjudged) == (figure.cases, figure.findings, figure.unjudged)
    # And one that was selected that of one that was not.
    assert merge({"none": none, "other": run(plan, [PGD])}).run.selected == 2


# Times, and what else may differ.


def test_a_case_that_two_shards_measured_is_there_once(plan: Plan) -> None:
    first, second = run(plan, [CLEAN], seconds=1.0), run(plan, [CLEAN, PGD], minutes=1, seconds=2.0, cached=True)
    merged = merge({"b": second, "a": first})
    row = next(row for row in merged.cases if key(row) == CLEAN)
    assert (row.seconds, row.cached) == (1.0, False)
    assert (merged.run.id, merged.run.started, merged.run.seconds) == ("r0", NOON.isoformat(), 3.0)


def test_all_processors_are_told(plan: Plan) -> None:
    parts = {name: run(plan, [CLEAN], processor=name) for name in ("x86_64 avx512_vnni", "x86_64, 8-bit", "aarch64")}
    parts["again"] = parts["aarch64"]
    assert merge(parts).run.processor == "aarch64; x86_64 avx512_vnni; x86_64, 8-bit"


def test_waivers_are_those_of_the_last_day(plan: Plan) -> None:
    parts = {"a": run(plan, [CLEAN], minutes=48 * 60), "b": run(plan, [PGD])}
    assert [(waiver.days_left, waiver.expired) for waiver in parts["b"].waivers] == [(1, False)]
    assert [(waiver.days_left, waiver.expired) for waiver in merge(parts).waivers] == [(-1, True)]


# Refusals.


def changed(results: Results, **fields: Any) -> Results:
    return replace(results, run=replace(results.run, **fields))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"config_sha256": "b2"}, 'config_sha256: expected "'),
        ({"seed": 7}, "seed: expected 0, as in a, got 7"),
        ({"policy": "cloud"}, 'policy: expected "edge", as in a, got "cloud"'),
        ({"device": "cuda"}, 'device: expected "cpu", as in a, got "cuda"'),
        ({"versions": {"torch": "2.11"}}, 'versions.torch: expected "2.10", as in a, got "2.11"'),
        ({"versions": {}}, 'versions.torch: expected "2.10", as in a, got null'),
    ],
    ids=str,
)
def test_another_run_is_refused(plan: Plan, fields: dict[str, Any], told: str) -> None:
    other = changed(run(plan, [PGD], minutes=1), **fields)
    with pytest.raises(ResultsError) as caught:
        merge({"a": run(plan, [CLEAN]), "b": other})
    heading, *problems = str(caught.value).splitlines()
    assert heading == "these are not shards of one run:"
    assert any(problem.startswith(f"  b: {told}") for problem in problems)


def test_another_plan_and_an_older_robustgate_are_refused(plan: Plan) -> None:
    part, other = run(plan, [CLEAN]), run(plan, [PGD], minutes=1)
    with pytest.raises(ResultsError, match="b: cases: expected the same planned cases as in a"):
        merge({"a": part, "b": replace(other, cases=other.cases[1:])})
    with pytest.raises(ResultsError, match=r"b: unjudged: .* the run is of an older robustgate; run it again"):
        merge({"a": part, "b": replace(other, unjudged=None)})
    with pytest.raises(ResultsError, match="no shards to merge"):
        merge({})


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ({}, {"value": 0.5}, f"clean/{FP25}: a and b differ in value: 0."),
        ({"right": "x"}, {"right": "y"}, f'clean/{FP25}: a and b differ in right: "x" and "y"'),
        ({}, {"value": None, "verdict": "error"}, f'clean/{FP25}: a and b differ in verdict: "pass" and "error"'),
    ],
)
def test_a_case_measured_differently_is_refused_and_named(
    plan: Plan, ours: dict[str, Any], theirs: dict[str, Any], told: str
) -> None:
    parts = {"a": run(plan, [CLEAN], **ours), "b": run(plan, [CLEAN, PGD], minutes=1, **theirs)}
    with pytest.raises(ResultsError) as caught:
        merge(parts)
    heading, *problems = str(caught.value).splitlines()
    assert heading == "shards disagree:"
    assert len(problems) == 1
    assert problems[0].startswith(f"  {told}")


def test_rules_and_variants_that_differ_are_refused_and_named(plan: Plan) -> None:
    part = run(plan, [COST], findings=[FITS], variants=[record()])
    for findings, variants, told in (
        ([finding("fits", value=1.5)], [record()], f"rule 'fits' of policy edge on {FP25}: a and b differ in value"),
        ([FITS], [record(artifact_sha256="b2")], f"variant {FP25}: a and b differ in artifact_sha256"),
    ):
        with pytest.raises(ResultsError, match=told):
            merge({"a": part, "b": run(plan, [COST], minutes=1, findings=findings, variants=variants)})
    same = run(plan, [COST], minutes=1, findings=[FITS], variants=[record(seconds_to_build=9.0, memory_bytes=7)])
    assert merge({"a": part, "b": same}).variants == (record(seconds_to_build=9.0, memory_bytes=7),)


@pytest.mark.parametrize("minutes", [-1, 1], ids=["slower before", "slower after"])
def test_of_a_latency_that_two_shards_measured_the_slower_counts(plan: Plan, minutes: float) -> None:
    slow = replace(FAST, value=2.5, verdict="fail")
    parts = {
        "fast": run(plan, [LATENCY], findings=[FAST], variants=[record(latency_ms=1.25, memory_bytes=9)]),
        "slow": run(
            plan, [LATENCY], minutes=minutes, findings=[slow], variants=[record(latency_ms=2.5, memory_bytes=7)]
        ),
    }
    merged = merge(parts)
    assert merged.findings == (slow,)
    assert [(one.latency_ms, one.memory_bytes) for one in merged.variants] == [(2.5, 9)]
    assert merged.run.verdict == "fail"
    assert measured_again(parts) == [
        f"rule 'fast' of policy edge on {FP25} was measured by fast, slow: the largest figure counts, that of slow"
    ]
    assert measured_again({"a": parts["fast"], "b": parts["fast"]}) == []


def test_of_many_differences_ten_are_told(plan: Plan) -> None:
    with pytest.raises(ResultsError) as caught:
        merge({"a": run(plan, everything), "b": run(plan, everything, minutes=1, correct=3)})
    assert len(str(caught.value).splitlines()) == 12
    assert str(caught.value).splitlines()[-1] == "  and 20 more"


# What a single run may decide and shards cannot.


@pytest.mark.parametrize(
    ("policy", "low", "told"),
    [
        ({"scope": "population"}, 0.8, 1),
        ({"early_stop": "confident"}, 0.8, 1),
        ({"scope": "population"}, 2.0, 0),  # its whole interval is on one side of the limit
        ({"scope": "population", "familywise": "none"}, 0.8, 0),
        ({"scope": "test_set"}, 0.8, 0),
    ],
    ids=str,
)
def test_what_a_family_leaves_open_is_told(plan: Plan, policy: dict[str, Any], low: float, told: int) -> None:
    results = run(plan, [CLEAN])
    straddling = finding("floor", FP25, metric="accuracy", limit_kind="min", limit=0.9, value=2.0, low=low, high=3.0)
    cases = tuple(replace(row, findings=(straddling,)) if row.value is not None else row for row in results.cases)
    policies = (replace(results.run.policies[0], **policy),)
    lines = left_open(changed(replace(results, cases=cases), policies=policies))
    expected = (
        'policy edge has familywise = "holm": a single run may decide some of the 1 findings that no shard could, '
        f"rule 'floor' of policy edge on {FP25} among them"
    )
    assert lines == [expected] * told
