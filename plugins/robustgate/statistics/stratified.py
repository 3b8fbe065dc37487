"""An interval for a mean over strata, such as classes, whose shares are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robustgate.statistics.proportion import Interval, wilson


def stratified_wilson(counts: Sequence[tuple[int, int]], weights: Sequence[float], confidence: float) -> Interval:
    """Return an interval for the weighted mean of the strata's proportions, from their Wilson intervals.

    `counts` holds each stratum's (successes, n) and `weights` its share of the population, together 1. From the mean
    it reaches as far as the root of the summed squares of the strata's own reaches: of one stratum it is Wilson's. One
    more success never lowers an end: it raises the mean by no less than it can lengthen a reach. It covers `confidence`
    on average, as Wilson's does. Raises ValueError for counts, weights or a confidence that cannot be. Source: the
    method of variance estimates recovery, Zou & Donner 2008, Stat. Med. 27:1693.
    """
    if not counts or len(counts) != len(weights):
        raise ValueError(f"expected one weight for each of at least one stratum, got {len(weights)} for {len(counts)}")
    if min(weights) < 0 or not math.isclose(sum(weights), 1, abs_tol=1e-9):
        raise ValueError(f"weights must be at least 0 and together 1, got {list(weights)}")
    parts = [wilson(successes, n, confidence) for successes, n in counts]
    shares = [successes / n for successes, n in counts]
    mean = math.fsum(weight * share for weight, share in zip(weights, shares, strict=True))
    below, above = (
        math.hypot(*(weight * (share - end) for weight, share, end in zip(weights, shares, ends, strict=True)))
        for ends in ([part.low for part in parts], [part.high for part in parts])
    )
    return Interval(low=max(0.0, mean - below), high=min(1.0, mean + above))
