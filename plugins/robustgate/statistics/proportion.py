"""Intervals for one proportion: an accuracy, measured on n samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A two-sided confidence interval, both ends included."""

    low: float
    high: float


def clopper_pearson(successes: int, n: int, confidence: float) -> Interval:
    """Return the exact interval for a proportion of which `successes` of `n` samples were seen.

    It never covers less often than `confidence`, and often more. Raises ValueError for counts or a confidence that
    cannot be. Source: Clopper & Pearson 1934, Biometrika 26:404.
    """
    check_counts(successes, n)
    tail = tail_of(confidence)
    low = float(special.betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = float(special.betainccinv(successes + 1, n - successes, tail)) if successes < n else 1.0
    return Interval(low=low, high=high)


def wilson(successes: int, n: int, confidence: float) -> Interval:
    """Return the score interval for a proportion of which `successes` of `n` samples were seen.

    Narrower than the exact one; it covers `confidence` on average over the proportion, a little less at some. Raises
    ValueError for counts or a confidence that cannot be. Source: Wilson 1927, J. Am. Stat. Assoc. 22:209.
    """
    check_counts(successes, n)
    z = normal_quantile(confidence)
    share, weight = successes / n, z * z / n
    centre = (share + weight / 2) / (1 + weight)
    reach = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    # At 0 and n one end is exact in theory and must not miss it by a rounding.
    low = max(0.0, centre - reach) if successes else 0.0
    high = min(1.0, centre + reach) if successes < n else 1.0
    return Interval(low=low, high=high)


def check_counts(successes: int, n: int) -> None:
    """Raise ValueError unless `n` is at least 1 and `successes` lies in 0 to n."""
    if n < 1:
        raise ValueError(f"n must be at least 1: nothing was measured, got {n}")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0 to n = {n}, got {successes}")


def tail_of(confidence: float) -> float:
    """Return the probability outside each end of a two-sided interval; ValueError unless 0 < confidence < 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence:g}")
    return (1 - confidence) / 2


def normal_quantile(confidence: float) -> float:
    """Return how many standard deviations a two-sided normal interval reaches to each side."""
    return -float(special.ndtri(tail_of(confidence)))
