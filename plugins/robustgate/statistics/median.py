"""An interval for a median that asks nothing of the distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from robustgate.statistics.proportion import Interval, tail_of


def median_interval(values: Sequence[float], confidence: float) -> Interval:
    """Return two of the `values` between which the median of their distribution lies.

    How many of n independent values fall below the median is binomial (n, 1/2), whatever they are: the interval
    reaches from the k-th smallest value to the k-th largest, with the largest k that covers `confidence`. Raises
    ValueError for a confidence that cannot be, and for fewer than `fewest_values`. Source: Conover 1999, Practical
    Nonparametric Statistics, 3rd edition, 3.2.
    """
    tail, n = tail_of(confidence), len(values)
    # So many of the smallest values, and as many of the largest, may lie outside.
    k = int(np.searchsorted(special.bdtr(np.arange(n), n, 0.5), tail, side="right"))
    if not k:
        raise ValueError(f"expected at least {fewest_values(confidence)} values for {confidence:g} confidence, got {n}")
    ordered = sorted(values)
    return Interval(low=ordered[k - 1], high=ordered[n - k])


def fewest_values(confidence: float) -> int:
    """Return how many values it takes for the smallest and the largest to enclose the median."""
    return math.ceil(-math.log2(tail_of(confidence)))
