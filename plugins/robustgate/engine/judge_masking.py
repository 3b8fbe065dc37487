"""The judgement of a masking case: a pure function, as `judge_case` is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from robustgate.config import CaseRule, Policy
from robustgate.core.records import MASKED_SHARE, Case, CaseResult, Finding, worst
from robustgate.engine.judge import Counted, judge_case, sampled, waived
from robustgate.statistics.paired import PairedCounts, drop_interval
from robustgate.statistics.proportion import Interval, clopper_pearson

DISTRUST = "Do not trust this model's robust accuracy"


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a check says in words: what was found, and what it means and what to do where that is too much.

    One that `compares` two walks has a net figure, in pairs; the others' is a plain share of the samples.
    """

    found: str
    means: str
    compares: bool = True


CHECKS: Mapping[str, Check] = {
    "unbounded budget": Check(
        found="{lost} of {n} samples stand at a budget that holds every image",
        means="a sound gradient leads to a mistake there; this one leads nowhere. Give what has no slope (a rounding, "
        "a step) a straight-through gradient, divide logits that are large by a constant, and measure again",
        compares=False,
    ),
    "more steps": Check(
        found="{lost} of {n} samples stand under more steps, and fell under fewer",
        means="a walk that goes on does not lose what a sound gradient showed it. Attack with more restarts, and look "
        "for what in the network is random or has jumps",
    ),
    "gradient-free": Check(
        found="an attack without gradients fells {lost} of {n} samples that PGD leaves standing",
        means="the gradient misleads. Look for what in the network has no slope of its own, or a false one, and judge "
        "the model by a gradient-free attack until it is gone",
    ),
    "monotone": Check(
        found="{lost} of {n} samples stand at a budget, and fell at a smaller one",
        means="the larger budget holds the smaller, so a sound gradient finds at least as much. Attack with more steps "
        "and restarts, and look for what in the network is random or has jumps",
    ),
    "loss scale": Check(
        found="{lost} of {n} samples fall to a loss that ignores the scale of the logits (DLR), and stand under the "
        "cross-entropy",
        means="logits so large leave the cross-entropy no gradient, as after a distillation at a high temperature. "
        'Divide them by a constant, or attack with loss = "dlr"',
    ),
    "zero gradient": Check(
        found="the gradient of the cross-entropy is exactly zero at {lost} of {n} samples",
        means="no step leads away from them: the softmax is saturated, or something in the network has no slope. "
        'Divide the logits by a constant, or attack with loss = "dlr" and without gradients',
        compares=False,
    ),
}


def judge_masking(
    case: Case,
    counted: Counted,
    details: Mapping[str, Any],
    tolerance: float,
    rules: Sequence[CaseRule],
    policy: Policy,
    today: date,
    confidence: float | None = None,
) -> CaseResult:
    """Apply the six checks, and the rules that name this kind of case, to one measured masking case.

    `counted` says which of the attacked samples stand under all attacks within eps together; `details` is what
    `measure_masking` tells. A check's value is the share of the samples that speaks of masking, less the share that
    speaks against it where two attacks are compared. It fails where the value itself is above `tolerance`: on the few
    samples of such a case the interval, which is told beside it, would leave most checks undecided. An artifact
    without any gradient has nothing that could be masked: no check is judged where the details say so.

    The rules' intervals are at `confidence`, or else at the policy's. Raises ValueError where a check was not counted,
    or on other samples.
    """
    judged = judge_case(case, counted, {}, rules, sampled(policy), today, confidence=confidence)
    result = replace(judged, metric="standing share")
    if "no_gradient" in details:
        return result
    counts = {name: PairedCounts(**found) for name, found in details["checks"].items()}
    if counts.keys() != CHECKS.keys():
        raise ValueError(f"expected the checks {sorted(CHECKS)}, got {sorted(counts)}")
    if any(found.n != len(counted.correct) for found in counts.values()):
        raise ValueError(f"every check must be counted on the {len(counted.correct)} samples of the case")
    findings = tuple(
        waived(_finding(case, name, counts[name], tolerance, policy), case.fields, policy, today) for name in CHECKS
    )
    verdict = worst([result.verdict, *(finding.verdict for finding in findings)])
    return replace(result, findings=(*result.findings, *findings), verdict=verdict)


def _finding(case: Case, name: str, counts: PairedCounts, tolerance: float, policy: Policy) -> Finding:
    interval = _interval(CHECKS[name], counts, policy.confidence)
    fails = counts.drop > tolerance
    return Finding(
        policy=policy.name,
        rule=f"masking: {name}",
        subject=case.name,
        metric=MASKED_SHARE,
        limit_kind="max",
        limit=tolerance,
        value=counts.drop,
        low=interval.low,
        high=interval.high,
        verdict="fail" if fails else "pass",
        message=_told(CHECKS[name], counts, tolerance, interval, fails=fails),
    )


def _interval(check: Check, counts: PairedCounts, confidence: float) -> Interval:
    return drop_interval(counts, confidence) if check.compares else clopper_pearson(counts.lost, counts.n, confidence)


def _told(check: Check, counts: PairedCounts, tolerance: float, interval: Interval, *, fails: bool) -> str:
    found = check.found.format(lost=counts.lost, n=counts.n)
    if counts.gained:
        found += f" ({counts.gained} the other way round)"
    figure = f"{100 * counts.drop:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    text = f"max {100 * tolerance:.1f} %; it is {figure}: {found}"
    return f"{text}. {DISTRUST}: {check.means}" if fails else text
