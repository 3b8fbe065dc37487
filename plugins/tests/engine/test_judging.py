"""Several policies judge one run: what each selects, what they share, and what the run says of each."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from robustgate.config import CaseRule, Policy, Waiver
from robustgate.core.errors import ConfigurationError
from robustgate.core.records import Case, CaseResult, Finding, Results, Unjudged, Verdict
from robustgate.engine.judge import joined, waived
from robustgate.engine.plan import Plan
from robustgate.engine.results import Circumstances, assemble, key

CLOUD = """
[policies.cloud]
scope = "population"
[[policies.cloud.rules]]
name = "floor"
where = { attack = "pgd" }
min = 0.2
[[policies.cloud.rules]]
name = "fits"
rule = "size"
max = "9 MB"
where = { compression = "fp25" }
"""
FITS = '[[policies.edge.rules]]\nname = "fits"\nrule = "size"\nmax = "3 MB"\nwhere = { compression = "fp25" }\n'
STEADY = (
    '[[policies.{0}.rules]]\nname = "steady {0}"\nrule = "stability"\nmax = {1}\nwhere = {{ compression = "fp25" }}\n'
)
PRUNED = "resnet18-fp25-amazon"


def problems(planned, **given) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        planned(**given)
    return caught.value.problems


# The plan.


def test_each_policy_selects_by_its_own_rules_and_the_cases_are_those_of_one(planned) -> None:
    plan = planned(extra=FITS + CLOUD, policy="cloud,edge")
    assert plan.policy_names == ("cloud", "edge")
    cloud, edge = plan.policies
    assert plan.cases == planned(extra=FITS + CLOUD, policy="edge").cases
    assert {name: [rule.min for rule in rules] for name, rules in cloud.case_rules.items()} == {
        f"resnet18-{name}-amazon-pgd": [0.2] for name in ("none", "control", "fp60", "fp60_ptsq", "fp25")
    }
    assert len(edge.case_rules) == 30
    (variant,) = [variant for variant in plan.variants if variant.name == PRUNED]
    assert [rule.component.max for rule in plan.rules_on(variant)] == ["9 MB", "3 MB"]
    assert [cloud.judges(case) for case in plan.cases].count(True) == 5
    assert plan.policy("edge") is edge.policy


def test_each_policy_is_told_what_it_does_not_select(planned) -> None:
    idle = CLOUD.replace('"pgd"', '"pdg"').replace('"fp25"', '"fp26"')
    waiver = '[[policies.edge.waivers]]\nwhere = { attack = "fra" }\nuntil = 2026-12-31\nreason = "r"\n'
    found = problems(planned, extra=waiver + idle, policy="edge,cloud")
    assert [problem.partition(" selects")[0] for problem in found] == [
        "policies.edge: waiver",
        "policies.cloud: rule 'floor'",
        "policies.cloud: rule 'fits'",
    ]


def test_unknown_names_and_a_name_twice_are_told(planned) -> None:
    assert problems(planned, extra=CLOUD, policy="cloud,egde,cloud") == (
        "policy 'cloud' is named twice",
        "no policy 'egde' (did you mean 'edge'?); known: cloud, edge",
    )


def test_policies_of_one_stability_rule_share_a_case(planned) -> None:
    both = CLOUD + STEADY.format("edge", 0.1) + STEADY.format("cloud", 0.1)
    plan = planned(extra=both, policy="edge,cloud")
    (case,) = [case for case in plan.cases if case.shift.kind == "stability"]
    assert case.name == f"{PRUNED}-stability"
    assert [judging.stability_rules[case.name].name for judging in plan.policies] == ["steady edge", "steady cloud"]
    assert plan.stability_rules[case.name].component.max == 0.1
    alone = planned(extra=CLOUD + STEADY.format("cloud", 0.1), policy="edge,cloud")
    edge, cloud = alone.policies
    assert (len(edge.stability_rules), len(cloud.stability_rules)) == (0, 1)


def test_policies_of_two_stability_rules_on_a_variant_are_refused(planned) -> None:
    both = CLOUD + STEADY.format("edge", 0.1) + STEADY.format("cloud", 0.2)
    assert problems(planned, extra=both, policy="edge,cloud") == (
        "policies.edge: rule 'steady edge' and rule 'steady cloud' of policy cloud both search the stability of "
        f"'{PRUNED}': narrow the `where` of one, a variant has one such case",
    )
    assert planned(extra=both, policy="edge").stability_rules[f"{PRUNED}-stability"].component.max == 0.1


def test_a_drop_from_the_baseline_judges_every_variant_the_reference_too(planned) -> None:
    rule = '[[policies.edge.rules]]\nname = "no worse"\nmax_drop = 0.01\nmax_drop_from = "baseline"\n'
    plan = planned(extra=rule)
    judged = [name for name, rules in plan.policies[0].case_rules.items() if "no worse" in [one.name for one in rules]]
    assert judged == [case.name for case in plan.cases]


# The judgement.


def finding(policy: str, verdict: Verdict, subject: str = "s", rule: str = "floor", **given) -> Finding:
    figures = {"metric": "accuracy", "limit_kind": "min", "limit": 0.4, "value": 0.5, "low": 0.4, "high": 0.6}
    return Finding(policy=policy, rule=rule, subject=subject, verdict=verdict, message="", **{**figures, **given})


def row(case: Case, *findings: Finding) -> CaseResult:
    verdicts = [one.verdict for one in findings]
    verdict: Verdict = "fail" if "fail" in verdicts else "undecided" if "undecided" in verdicts else "pass"
    return replace(CaseResult.of(case, verdict=verdict), value=0.5, low=0.4, high=0.6, findings=findings)


def test_a_case_has_the_findings_of_all_its_policies_and_the_worst_verdict(planned) -> None:
    case = planned().cases[0]
    first, second = row(case, finding("a", "pass")), replace(row(case, finding("b", "fail")), low=0.1, high=0.9)
    both = joined([first, second])
    assert (both.verdict, both.low, both.high) == ("fail", 0.4, 0.6)
    assert [one.policy for one in both.findings] == ["a", "b"]
    assert joined([first]) == first


def test_a_finding_names_the_waiver_that_is_about_it() -> None:
    def waiver(until: date, **where: str) -> Waiver:
        return Waiver(where=where, until=until, reason="the same words")

    waivers = (
        waiver(date(2026, 1, 1), attack="pgd"),
        waiver(date(2026, 3, 1), attack="fgsm"),
        waiver(date(2026, 3, 1), attack="pgd"),
        waiver(date(2026, 3, 1), kind="adversarial"),
    )
    policy = Policy(name="edge", case_rules=(CaseRule(name="r", min=0.5),), run_rules=(), waivers=waivers)
    fields = {"attack": "pgd", "kind": "adversarial"}
    for today, verdict in ((date(2026, 2, 1), "waived"), (date(2026, 4, 1), "fail")):
        found = waived(finding("edge", "fail"), fields, policy, today)
        assert (found.verdict, found.waiver_index) == (verdict, 2), "of two that end on one day, the first"
    assert waived(finding("edge", "pass"), fields, policy, date(2026, 2, 1)).waiver_index is None


# The run.


def run(plan: Plan, rows: dict[tuple[str, str], CaseResult], findings: list[Finding]) -> Results:
    noon = datetime(2026, 6, 15, 12, tzinfo=UTC)
    circumstances = Circumstances(id="r", started=noon, seconds=1, device="cpu", processor="x86_64", versions={})
    return assemble(plan, rows, (), findings, rows.keys(), circumstances)


def measured(plan: Plan, edge: Verdict, cloud: Verdict) -> dict[tuple[str, str], CaseResult]:
    """Every case, judged by edge, those under pgd by cloud too."""
    return {
        key(case): row(
            case,
            finding("edge", edge, case.name),
            *([finding("cloud", cloud, case.name)] if case.shift.name == "pgd" else []),
        )
        for case in plan.cases
    }


def test_each_policy_has_a_verdict_of_its_own(planned) -> None:
    plan = planned(extra=FITS + CLOUD, policy="edge,cloud")
    both = [finding("edge", "pass", PRUNED, "fits"), finding("cloud", "undecided", PRUNED, "fits")]
    found = run(plan, measured(plan, "pass", "fail"), both)
    assert (found.run.policy, found.run.confidence, found.run.verdict) == ("edge, cloud", 0.99, "fail")
    edge, cloud = found.run.policies
    assert (edge.name, edge.scope, edge.verdict, edge.findings) == ("edge", "test_set", "pass", {"pass": 31})
    assert (cloud.name, cloud.scope, cloud.verdict) == ("cloud", "population", "fail")
    assert cloud.findings == {"fail": 5, "undecided": 1}
    assert [(one.subject, one.policy) for one in found.findings] == [(PRUNED, "cloud"), (PRUNED, "edge")]


def test_a_finding_of_one_policy_does_not_stand_in_for_the_others(planned) -> None:
    plan = planned(extra=FITS + CLOUD, policy="edge,cloud")
    found = run(plan, measured(plan, "pass", "pass"), [finding("edge", "pass", PRUNED, "fits")])
    assert (found.run.complete, found.run.verdict) == (False, "incomplete")
    assert [policy.verdict for policy in found.run.policies] == ["pass", "incomplete"]
    assert found.unjudged == (Unjudged(policy="cloud", rule="fits", subject=PRUNED, selected=False),)


def test_what_was_not_measured_counts_for_every_policy(planned) -> None:
    plan = planned(extra=CLOUD.partition('[[policies.cloud.rules]]\nname = "fits"')[0], policy="edge,cloud")
    rows = measured(plan, "pass", "pass")
    del rows["clean", PRUNED]
    assert [policy.verdict for policy in run(plan, rows, []).run.policies] == ["incomplete", "incomplete"]


def test_waivers_of_each_policy_count_its_own_findings(planned) -> None:
    waiver = '[[policies.{}.waivers]]\nwhere = {{ attack = "pgd" }}\nuntil = {}\nreason = "r"\n'
    plan = planned(
        extra=CLOUD
        + waiver.format("edge", "2026-06-20")
        + waiver.format("cloud", "2026-06-14")
        + waiver.format("cloud", "2026-06-15"),
        policy="edge,cloud",
    )
    rows = {
        key(case): row(
            case,
            finding("edge", "waived", case.name, waiver="until 2026-06-20: r", waiver_index=0),
            finding("cloud", "waived", case.name, waiver="until 2026-06-15: r", waiver_index=1),
        )
        for case in plan.cases
        if case.shift.name == "pgd"
    }
    found = run(plan, rows, [finding("edge", "pass", PRUNED, "fits")])
    assert [(one.policy, one.index, one.days_left, one.expired, one.findings) for one in found.waivers] == [
        ("edge", 0, 5, False, 5),
        ("cloud", 0, -1, True, 0),
        ("cloud", 1, 0, False, 5),
    ]
