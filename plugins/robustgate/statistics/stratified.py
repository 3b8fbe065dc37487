"""An interval for a mean over strata, such as classes, whose shares are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robustgate.statistics.proportion import Interval, check_counts, normal_quantile, score_interval


def stratified_wilson(counts: Sequence[tuple[int, int]], weights: Sequence[float], confidence: float) -> Interval:
    """Return the score interval for the weighted mean of the strata's proportions; of one stratum, Wilson's.

    `counts` holds each stratum's (successes, n) and `weights` its share of the population, together 1. Each stratum's
    Wilson interval is taken at a quantile z' <= z at which the weighted sum of the half-widths is that of the mean's
    own. Where no stratum varies there is no such ratio, and z' = z, which covers more. Raises ValueError for counts,
    weights or a confidence that cannot be. Source: Yan & Su 2010, Stat. Biopharm. Res. 2:329.
    """
    if not counts or len(counts) != len(weights):
        raise ValueError(f"expected one weight for each of at least one stratum, got {len(weights)} for {len(counts)}")
    for successes, n in counts:
        check_counts(successes, n)
    if min(weights) < 0 or not math.isclose(sum(weights), 1, abs_tol=1e-9):
        raise ValueError(f"weights must be at least 0 and together 1, got {list(weights)}")
    shares = [successes / n for successes, n in counts]
    deviations = [
        weight * math.sqrt(share * (1 - share) / n)
        for (_, n), share, weight in zip(counts, shares, weights, strict=True)
    ]
    ratio = math.hypot(*deviations) / sum(deviations) if any(deviations) else 1.0
    parts = [score_interval(successes, n, ratio * normal_quantile(confidence)) for successes, n in counts]
    # Ends of exactly 0 and 1 stay so, whatever the weights' rounding.
    return Interval(
        low=math.fsum(weight * part.low for weight, part in zip(weights, parts, strict=True)),
        high=1 - math.fsum(weight * (1 - part.high) for weight, part in zip(weights, parts, strict=True)),
    )
