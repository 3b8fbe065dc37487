"""The judgement of a stability case: a pure function, as `judge_case` is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any, cast

from robustgate.config import Policy, RunRule
from robustgate.core.components import StabilityRule
from robustgate.core.records import Case, CaseResult, Finding
from robustgate.engine.judge import Counted, judge_case, sampled, waived
from robustgate.statistics.proportion import Interval, clopper_pearson


def judge_stability(
    case: Case,
    counted: Counted,
    details: Mapping[str, Any],
    rule: RunRule | None,
    policy: Policy,
    today: date,
) -> CaseResult:
    """Apply a policy's stability rule, where it has one, to the search that was made for it.

    `counted` says which predictions stayed under what `details` call the mildest transformation. The figure is that of
    the samples asked about, and the rule fails where it itself is above the limit: the search looked at many
    transformations, and the interval, which is told beside it, speaks of this one alone.
    """
    result = replace(judge_case(case, counted, {}, (), sampled(policy), today), metric="unchanged share")
    if rule is None:
        return result
    limit = cast("StabilityRule", rule.component).max
    n, changed = len(counted.correct), int((~counted.correct).sum())
    interval = clopper_pearson(changed, n, policy.confidence)
    finding = Finding(
        policy=policy.name,
        rule=rule.name,
        subject=case.name,
        metric="changed share",
        limit_kind="max",
        limit=limit,
        value=changed / n,
        low=interval.low,
        high=interval.high,
        verdict="fail" if changed / n > limit else "pass",
        message=_told(details, changed, n, interval, limit),
    )
    finding = waived(finding, case.fields, policy, today)
    return replace(result, findings=(finding,), verdict=finding.verdict)


def _told(details: Mapping[str, Any], changed: int, n: int, interval: Interval, limit: float) -> str:
    share = f"{100 * changed / n:.1f} % of the predictions change"
    figure = f"{changed} of {n}; [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    if not details["breaks"]:
        most = f"; the most is {share} ({figure}), under {details['mildest']}" if changed else ""
        return f"max {100 * limit:.1f} %; none of {details['tried']} mild transformations changes more{most}"
    text = f"{details['mildest']} is enough: {share} ({figure}), and at most {100 * limit:.1f} % may"
    others = [
        f"{one['told']} ({100 * one['share']:.1f} %)"
        for one in details["alone"].values()
        if one["told"] != details["mildest"]
    ]
    return text + (f"; so are {', '.join(others)}" if others else "")
