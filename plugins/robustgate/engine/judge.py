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
from robustgate.engine.bounds import Inference
from robustgate.statistics.paired import PairedCounts
from robustgate.statistics.proportion import Interval


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Which of the first n samples drawn (n,) came out right, the labels (N,) of all, and the names of the classes.

    `predictions` (n,) only where another variant's can be compared with them: where both saw the same images.
    """

    correct: NDArray[np.bool_]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    predictions: NDArray[np.int64] | None = None

    @property
    def accuracy(self) -> float:
        """Share of the samples measured that came out right."""
        return float(self.correct.mean())

    @property
    def is_whole(self) -> bool:
        """Whether all samples are measured."""
        return len(self.correct) == len(self.labels)

    def first(self, count: int) -> Counted:
        """Return what it was when only `count` samples were measured."""
        predictions = None if self.predictions is None else self.predictions[:count]
        return replace(self, correct=self.correct[:count], predictions=predictions)


def judge_case(
    case: Case,
    counted: Counted,
    opponents: Mapping[str, Counted],
    rules: Sequence[CaseRule],
    policy: Policy,
    today: date,
    no_baseline: str = "",
    confidence: float | None = None,
) -> CaseResult:
    """Apply the rules of a policy to one measured case.

    `opponents` holds the same samples under "reference", and under "control" where there is one; drops are paired.
    Under "baseline" they may be fewer, the first ones. Where there is none, what compares with it is `incomplete`,
    no waiver turns that into a pass, and `no_baseline` says why.
    A finding's interval is that of `Inference` at `confidence`, or else at the policy's; the row's own are at the
    policy's. A rule passes when its whole interval is on the right side of the limit, fails when it is on the wrong
    side, and is `undecided` otherwise: where nothing is left to measure, the policy may say who had to prove it.
    """
    findings = findings_on(case, counted, opponents, rules, policy, no_baseline, confidence)
    if counted.is_whole:
        findings = tuple(concluded(finding, policy) for finding in findings)
    judged = tuple(
        finding if finding.value is None else waived(finding, case.fields, policy, today) for finding in findings
    )
    inference = Inference.of(policy)
    interval = inference.accuracy(counted.correct, counted.labels)
    # Measured under no rule: nothing to fail, and the reports say so.
    verdict = worst(finding.verdict for finding in judged) if judged else "pass"
    result = replace(
        CaseResult.of(case, verdict=verdict),
        value=counted.accuracy,
        low=interval.low,
        high=interval.high,
        n=len(counted.correct),
        n_total=len(counted.labels),
        correct=int(counted.correct.sum()),
        findings=judged,
    )
    reference = opponents.get("reference")
    return result if reference is None else _compared(result, counted, reference, inference)


def findings_on(
    case: Case,
    counted: Counted,
    opponents: Mapping[str, Counted],
    rules: Sequence[CaseRule],
    policy: Policy,
    no_baseline: str = "",
    confidence: float | None = None,
) -> tuple[Finding, ...]:
    """Return what each rule says of a case, measured in part or in full; see `judge_case`."""
    inference = Inference.of(policy, confidence)
    findings = []
    for rule in rules:
        if rule.min is not None:
            findings.append(_floor(case, rule, rule.min, counted, policy, inference))
        if rule.max_drop is not None and rule.max_drop_from in opponents:
            opponent = opponents[rule.max_drop_from]
            findings.append(_drop(case, rule, rule.max_drop, counted, opponent, policy, inference))
        elif rule.max_drop is not None and rule.max_drop_from == "baseline":
            message = f"max_drop {100 * rule.max_drop:.1f} points from the baseline; {no_baseline}"
            findings.append(_finding(case, rule, policy, "max_drop", rule.max_drop, message))
    return tuple(findings)


def concluded(finding: Finding, policy: Policy) -> Finding:
    """Return a finding on all there is to measure: what is not proven goes against whoever had to prove it."""
    if finding.verdict != "undecided" or policy.prove is None:
        return finding
    verdict: Verdict = "fail" if policy.prove == "good" else "pass"
    return replace(finding, verdict=verdict, message=f"{finding.message}: not proven {policy.prove}")


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
            policy=policy.name,
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
    if len(counted.correct) != len(reference.correct) or not np.array_equal(counted.labels, reference.labels):
        raise ValueError("a drop is paired: both variants must be measured on the same samples, in the same order")
    return PairedCounts.of(reference.correct, counted.correct)


def _drop_interval(counted: Counted, reference: Counted, inference: Inference) -> Interval:
    lost = reference.correct.astype(np.int8) - counted.correct.astype(np.int8)
    return inference.drop(lost, len(counted.labels))


def _compared(result: CaseResult, counted: Counted, reference: Counted, inference: Inference) -> CaseResult:
    pairs = paired(counted, reference)
    drop = _drop_interval(counted, reference, inference)
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


def _floor(case: Case, rule: CaseRule, limit: float, counted: Counted, policy: Policy, inference: Inference) -> Finding:
    interval, value = inference.accuracy(counted.correct, counted.labels), counted.accuracy
    message = f"min {100 * limit:.1f} %; the accuracy is {_shown(value, interval)}"
    return _finding(case, rule, policy, "min", limit, message, value, interval)


def _drop(
    case: Case, rule: CaseRule, limit: float, counted: Counted, other: Counted, policy: Policy, inference: Inference
) -> Finding:
    held = ""
    if rule.max_drop_from == "baseline" and len(other.correct) < len(counted.correct):  # that run stopped early
        counted = counted.first(len(other.correct))
        held = f" on the first {len(other.correct):,} samples, all that the baseline holds"
    value, interval = paired(counted, other).drop, _drop_interval(counted, other, inference)
    whence = "" if rule.max_drop_from == "reference" else f"from the {rule.max_drop_from} "
    message = f"max_drop {100 * limit:.1f} points; the drop {whence}is {_shown(value, interval)}{held}"
    return _finding(case, rule, policy, "max_drop", limit, message, value, interval)


def _finding(
    case: Case,
    rule: CaseRule,
    policy: Policy,
    kind: LimitKind,
    limit: float,
    message: str,
    value: float | None = None,
    interval: Interval | None = None,
) -> Finding:
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return Finding(
        policy=policy.name,
        rule=rule.name,
        subject=case.name,
        metric=rule.metric,
        limit_kind=kind,
        limit=limit,
        value=value,
        low=low,
        high=high,
        verdict=decided(kind, limit, low, high),
        against=rule.max_drop_from if kind == "max_drop" else None,
        message=message,
    )


def _shown(value: float, interval: Interval) -> str:
    """Return a figure in points with its interval, where it is not exact."""
    exact = interval.low == value == interval.high
    return f"{100 * value:.1f}" + ("" if exact else f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]")


def sampled(policy: Policy) -> Policy:
    """Return a policy as it judges what was measured on some samples of the test set, chosen once and for all."""
    return replace(policy, scope="population", early_stop=False)


def waived(finding: Finding, fields: Mapping[str, Any], policy: Policy, today: date) -> Finding:
    """Return a finding under the waivers of a policy: what would turn a test red, one that holds today waives."""
    if not policy.is_red(finding.verdict):
        return finding
    covering = [index for index, waiver in enumerate(policy.waivers) if matches(waiver.where, fields)]
    if not covering:
        return finding
    # The latest one: a waiver that was renewed may still stand there with its old day.
    index = max(covering, key=lambda index: policy.waivers[index].until)
    latest = policy.waivers[index]
    if latest.is_current(today):
        told = f"until {latest.until}: {latest.reason}"
        return replace(finding, verdict="waived", waiver=told, waiver_index=index)
    return replace(finding, waiver=f"expired on {latest.until}: {latest.reason}", waiver_index=index)


def joined(results: Sequence[CaseResult]) -> CaseResult:
    """Return the row of a case that several policies judged: the first one's, with the findings of all of them."""
    findings = tuple(finding for result in results for finding in result.findings)
    return replace(results[0], findings=findings, verdict=worst(result.verdict for result in results))


def _most_lost(counted: Counted, reference: Counted, most: int = 2) -> tuple[ClassAccuracy, ...]:
    """Return the classes that lost the largest share of their samples, worst first."""
    losses = []
    labels = counted.labels[: len(counted.correct)]
    for label, name in enumerate(counted.classes):
        rows = labels == label
        if rows.any():
            before, after = float(reference.correct[rows].mean()), float(counted.correct[rows].mean())
            losses.append(ClassAccuracy(name=name, n=int(rows.sum()), reference=before, value=after))
    losses.sort(key=lambda loss: loss.value - loss.reference)
    return tuple(loss for loss in losses[:most] if loss.value < loss.reference)
