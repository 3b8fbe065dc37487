"""The interval of a median: against exact binomials, and by counting every way in which values can fall."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from robustgate.statistics.median import fewest_values, median_interval


@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.95])
@pytest.mark.parametrize("n", [6, 9, 12])
def test_every_way_to_fall_about_the_median_is_covered_often_enough_and_no_interval_within_is(
    n: int, confidence: float
) -> None:
    distances = np.arange(1.0, n + 1)
    covered = narrower = 0
    for signs in product((-1, 1), repeat=n):  # all equally likely: each value is below the median 0, or above
        values = (distances * signs).tolist()
        found = median_interval(values, confidence)
        covered += found.low <= 0 <= found.high
        inside = sorted(value for value in values if found.low < value < found.high)
        narrower += bool(inside) and inside[0] <= 0 <= inside[-1]
    assert covered / 2**n >= confidence
    assert narrower / 2**n < confidence


@pytest.mark.parametrize("confidence", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("n", [15, 16, 101, 300])
def test_the_ends_are_the_order_statistics_that_the_binomial_names(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).permutation(n).astype(float)  # the k-th smallest is k - 1
    found = median_interval(values.tolist(), confidence)
    k = int(found.low) + 1
    assert found.high == n - k
    assert stats.binom.interval(confidence, n, 0.5)[0] in (k - 1, k)
    assert 1 - 2 * stats.binom.cdf(k - 1, n, 0.5) >= confidence
    assert 1 - 2 * stats.binom.cdf(k, n, 0.5) < confidence


def test_a_confidence_that_is_met_exactly_is_met() -> None:
    # Of seven values, the smallest and the largest miss the median once in 2^6 times.
    assert fewest_values(1 - 2**-6) == 7
    found = median_interval([5.0, 1, 7, 2, 6, 3, 4], 1 - 2**-6)
    assert (found.low, found.high) == (1, 7)


@pytest.mark.parametrize("confidence", [0.6, 0.95, 0.99, 0.9999])
def test_the_fewest_values_are_just_enough(confidence: float) -> None:
    n = fewest_values(confidence)
    assert 1 - 2 * 0.5**n >= confidence > 1 - 2 * 0.5 ** (n - 1)
    found = median_interval(list(range(n)), confidence)
    assert (found.low, found.high) == (0, n - 1)
    with pytest.raises(ValueError, match=f"expected at least {n} values for {confidence:g} confidence, got {n - 1}"):
        median_interval(list(range(n - 1)), confidence)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected at least 8 values for 0\.99 confidence, got 0"):
        median_interval([], 0.99)
    with pytest.raises(ValueError, match="confidence must lie strictly between 0 and 1, got 1"):
        median_interval([1.0] * 99, 1.0)
