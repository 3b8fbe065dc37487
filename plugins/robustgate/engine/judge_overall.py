"""The judgement of a variant's outcomes over its shifts: pure, as those of a case and of a variant's costs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from math import isfinite
from typing import cast

import numpy as np
from numpy.typing import NDArray

from robustgate.config import Policy, RunRule
from robustgate.core.components import Bound, OutcomeRule, Shares
from robustgate.core.records import Finding, Shift, Variant, Verdict, worst
from robustgate.engine.judge import concluded, decided, waived
from robustgate.statistics.bootstrap import bootstrap_interval
from robustgate.statistics.minimum import least_interval
from robustgate.statistics.proportion import Interval


def judge_overall(
    variant: Variant,
    rule: RunRule,
    shares: Shares,
    shifts: Sequence[Shift],
    policy: Policy,
    today: date,
    confidence: float | None = None,
) -> Finding:
    """Apply a rule to a variant's outcomes under the shifts that it needs, all of them measured in full.

    The finding's figure is the rule's first; where the rule has further bounds its verdict is the worst of all, and its
    message tells them. On the test set the figures are facts. Of the population their intervals are two-sided at
    `confidence`, or else the policy's: exact where a figure is the least of some proportions, else the bootstrap's,
    whose coverage is approximate. A bound holds when the whole interval is on its right side, and is broken when it is
    on the wrong side. Without a figure or an interval the finding is ``incomplete``, and no waiver turns that into a
    pass.
    """
    confidence = policy.confidence if confidence is None else confidence
    component = cast("OutcomeRule", rule.component)
    told, verdicts = [], []
    values: list[tuple[float | None, Interval | None]] = []
    counts = component.counts(shares, shifts)
    for bound, figures in zip(component.bounds, component.figures(shares, shifts), strict=True):
        value = float(figures[0]) if isfinite(figures[0]) else None
        if value is None:
            interval = None
        elif policy.scope == "test_set":
            interval = Interval(low=value, high=value)
        else:
            interval = least_interval(counts, confidence) if counts else _interval(figures, confidence)
        values.append((value, interval))
        told.append(_told(bound, value, interval, component.undefined))
        low, high = (interval.low, interval.high) if interval else (None, None)
        verdicts.append(decided(bound.kind, bound.limit, low, high))
    remark = component.remark(shares, shifts) if "incomplete" not in verdicts else ""
    message = [f"{'; '.join(told)}, on {_images(shares, shifts)}", remark, "all must hold" if len(told) > 1 else ""]
    value, interval = values[0]
    text = "; ".join(part for part in message if part)
    finding = concluded(_finding(variant, rule, policy, worst(verdicts), text, value, interval), policy)
    return finding if finding.verdict == "incomplete" else waived(finding, _fields(variant), policy, today)


def unjudged(variant: Variant, rule: RunRule, policy: Policy, why: str) -> Finding:
    """Return the finding of a rule for which a case could not be measured."""
    bound = cast("OutcomeRule", rule.component).bounds[0]
    return _finding(variant, rule, policy, "incomplete", f"{_limit(bound)}; {bound.metric} was not measured: {why}")


def _finding(
    variant: Variant,
    rule: RunRule,
    policy: Policy,
    verdict: Verdict,
    message: str,
    value: float | None = None,
    interval: Interval | None = None,
) -> Finding:
    bound = cast("OutcomeRule", rule.component).bounds[0]
    return Finding(
        policy=policy.name,
        rule=rule.name,
        subject=variant.name,
        metric=bound.metric,
        limit_kind=bound.kind,
        limit=bound.limit,
        value=value,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        verdict=verdict,
        against="reference" if bound.kind == "max_drop" else None,
        message=message,
    )


def _fields(variant: Variant) -> dict[str, str]:
    return {"name": variant.name, **variant.fields}


def _interval(figures: NDArray[np.float64], confidence: float) -> Interval | None:
    """Return the bootstrap's interval; None where so many resamples have no figure that it has no end."""
    interval = bootstrap_interval(figures, confidence)
    return interval if isfinite(interval.low) and isfinite(interval.high) else None


def _told(bound: Bound, value: float | None, interval: Interval | None, undefined: str) -> str:
    if value is None:
        return f"{_limit(bound)}; {bound.metric} has no value: {undefined}"
    figure = f"the {'drop of ' if bound.kind == 'max_drop' else ''}{bound.metric} is {_shown(value, bound)}"
    if interval is None:
        return f"{_limit(bound)}; {figure}, and has no interval: in resamples of so few images, {undefined}"
    if interval.low == value == interval.high:
        return f"{_limit(bound)}; {figure}"
    return f"{_limit(bound)}; {figure} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _limit(bound: Bound) -> str:
    return f"{bound.key or bound.kind} {_shown(bound.limit, bound)}"


def _shown(value: float, bound: Bound) -> str:
    return f"{100 * value:.1f} {bound.unit}".rstrip()


def _images(shares: Shares, shifts: Sequence[Shift]) -> str:
    counts = sorted({int(shares.sizes(shift).sum()) for shift in shifts})
    return " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1]))) + " images"
