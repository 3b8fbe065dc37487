"""The judgement: one pure function for a case, one for a variant. No file, clock, torch or pytest in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from robustgate.config import CaseRule, Policy, RunRule
from robustgate.core.components import VariantRule
from robustgate.core.records import (
    Case,
    CaseResult,
    ClassAccuracy,
    Finding,
    LimitKind,
    VariantRecord,
    Verdict,
    matches,
    worst,
)
from robustgate.statistics.paired import PairedCounts, drop_interval
from robustgate.statistics.proportion import Interval, clopper_pearson


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Which of N samples (N,) came out right, with their labels (N,) and the names of the classes.

    `predictions` (N,) only where another variant's can be compared with them: where both saw the same images.
    """

    correct: NDArray[np.bool_]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    predictions: NDArray[np.int64] | None = None

    @property
    def accuracy(self) -> float:
        """Share of samples that came out right."""
        return float(self.correct.mean())


def judge_case(
    case: Case,
    counted: Counted,
    opponents: Mapping[str, Counted],
    rules: Sequence[CaseRule],
    policy: Policy,
    today: date,
) -> CaseResult:
    """Apply the rules of a policy to one measured case.

    `opponents` holds the same samples under "reference", and under "control" where there is one; drops are paired.
    Every interval is two-sided at the policy's confidence: Clopper and Pearson's for an accuracy, Tango's for a
    drop. A rule passes when its whole interval is on the right side of the limit, fails when it is on the wrong
    side, and is `undecided` otherwise.
    """
    n, correct = len(counted.correct), int(counted.correct.sum())
    interval = clopper_pearson(correct, n, policy.confidence)
    findings = []
    for rule in rules:
        if rule.min is not None:
            findings.append(_floor(case, rule, rule.min, counted.accuracy, interval))
        if rule.max_drop is not None and rule.max_drop_from in opponents:
            findings.append(_drop(case, rule, rule.max_drop, counted, opponents[rule.max_drop_from], policy))
    judged = tuple(waived(finding, case.fields, policy, today) for finding in findings)
    # Measured under no rule: nothing to fail, and the reports say so.
    verdict = worst(finding.verdict for finding in judged) if judged else "pass"
    result = replace(
        CaseResult.of(case, verdict=verdict),
        value=counted.accuracy,
        low=interval.low,
        high=interval.high,
        n=n,
        n_total=n,
        correct=correct,
        findings=judged,
    )
    reference = opponents.get("reference")
    return result if reference is None else _compared(result, counted, reference, policy.confidence)


def judge_variant(
    record: VariantRecord,
    reference: VariantRecord,
    rules: Iterable[RunRule],
    policy: Policy,
    today: date,
    unmeasured: Mapping[str | None, str] | None = None,
) -> tuple[Finding, ...]:
    """Apply to one variant the rules that components of rules/ stand for.

    `reference` is the uncompressed model of the same source domain. A figure's interval decides as a case's does; an
    exact figure's is a point. Without a figure the finding is `incomplete`, and no waiver turns that into a pass;
    `unmeasured` says why, by what the rule measures.
    """
    findings = []
    for rule in rules:
        component = cast("VariantRule", rule.component)
        value, interval = component.value(record, reference), component.interval(record, reference)
        low, high = interval or (None, None)
        finding = Finding(
            rule=rule.name,
            subject=record.name,
            metric=component.metric,
            limit_kind=component.limit_kind,
            limit=component.limit,
            value=value,
            low=low,
            high=high,
            verdict=decided(component.limit_kind, component.limit, low, high),
            message=_told(component, value, interval, (unmeasured or {}).get(component.measures, "")),
        )
        fields = {
            "name": record.name,
            "model": record.model,
            "source": record.source,
            "compression": record.compression,
        }
        findings.append(finding if interval is None else waived(finding, fields, policy, today))
    return tuple(findings)


def decided(kind: LimitKind, limit: float, low: float | None, high: float | None) -> Verdict:
    """Return what an interval says of a limit: ``incomplete`` where there is none.

    It is ``undecided`` where the interval is neither wholly on the right side of the limit nor wholly on the wrong one.
    """
    if low is None or high is None:
        return "incomplete"
    if kind == "min":
        return "pass" if low >= limit else "fail" if high < limit else "undecided"
    return "pass" if high <= limit else "fail" if low > limit else "undecided"


def _told(component: VariantRule, value: float | None, interval: tuple[float, float] | None, why: str) -> str:
    limit = f"{component.limit_kind} {component.show(component.limit)}"
    if value is None or interval is None:
        return f"{limit}; {component.metric} was not measured{f': {why}' if why else ''}"
    low, high = interval
    exact = low == value == high
    return f"{limit}; it is {component.show(value)}" + ("" if exact else f" [{low:.4g}, {high:.4g}]")


def paired(counted: Counted, reference: Counted) -> PairedCounts:
    """Count the samples that only one of two variants gets right. Raises ValueError where the samples differ."""
    if not np.array_equal(counted.labels, reference.labels):
        raise ValueError("a drop is paired: both variants must be measured on the same samples, in the same order")
    return PairedCounts.of(reference.correct, counted.correct)


def _compared(result: CaseResult, counted: Counted, reference: Counted, confidence: float) -> CaseResult:
    pairs = paired(counted, reference)
    drop = drop_interval(pairs, confidence)
    if counted.predictions is not None and reference.predictions is not None:
        agreement = float((counted.predictions == reference.predictions).mean())
        result = replace(result, agreement=agreement, lost=pairs.lost / pairs.n, gained=pairs.gained / pairs.n)
    return replace(
        result,
        reference_value=reference.accuracy,
        drop=pairs.drop,
        drop_low=drop.low,
        drop_high=drop.high,
        most_lost=_most_lost(counted, reference),
    )


def _floor(case: Case, rule: CaseRule, limit: float, value: float, interval: Interval) -> Finding:
    return Finding(
        rule=rule.name,
        subject=case.name,
        metric=rule.metric,
        limit_kind="min",
        limit=limit,
        value=value,
        low=interval.low,
        high=interval.high,
        verdict=decided("min", limit, interval.low, interval.high),
        message=f"min {100 * limit:.1f} %; the accuracy is {100 * value:.1f} "
        f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]",
    )


def _drop(case: Case, rule: CaseRule, limit: float, counted: Counted, other: Counted, policy: Policy) -> Finding:
    pairs = paired(counted, other)
    interval = drop_interval(pairs, policy.confidence)
    return Finding(
        rule=rule.name,
        subject=case.name,
        metric=rule.metric,
        limit_kind="max_drop",
        limit=limit,
        value=pairs.drop,
        low=interval.low,
        high=interval.high,
        verdict=decided("max_drop", limit, interval.low, interval.high),
        against=rule.max_drop_from,
        message=f"max_drop {100 * limit:.1f} points; the drop "
        + ("" if rule.max_drop_from == "reference" else f"from the {rule.max_drop_from} ")
        + f"is {100 * pairs.drop:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]",
    )


def waived(finding: Finding, fields: Mapping[str, Any], policy: Policy, today: date) -> Finding:
    """Return a finding under the waivers of a policy: what would turn a test red, one that holds today waives."""
    if not policy.is_red(finding.verdict):
        return finding
    covering = [waiver for waiver in policy.waivers if matches(waiver.where, fields)]
    if not covering:
        return finding
    # The latest one: a waiver that was renewed may still stand there with its old day.
    latest = max(covering, key=lambda waiver: waiver.until)
    if latest.is_current(today):
        return replace(finding, verdict="waived", waiver=f"until {latest.until}: {latest.reason}")
    return replace(finding, waiver=f"expired on {latest.until}: {latest.reason}")


def _most_lost(counted: Counted, reference: Counted, most: int = 2) -> tuple[ClassAccuracy, ...]:
    """Return the classes that lost the largest share of their samples, worst first."""
    losses = []
    for label, name in enumerate(counted.classes):
        rows = counted.labels == label
        if rows.any():
            before, after = float(reference.correct[rows].mean()), float(counted.correct[rows].mean())
            losses.append(ClassAccuracy(name=name, n=int(rows.sum()), reference=before, value=after))
    losses.sort(key=lambda loss: loss.value - loss.reference)
    return tuple(loss for loss in losses[:most] if loss.value < loss.reference)
