"""The stratified interval against Wilson's, against closed forms, and its coverage by enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from robustgate.statistics.proportion import Interval, wilson
from robustgate.statistics.stratified import stratified_wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (5, 5), (7, 9), (412, 1000)])
def test_of_one_stratum_it_is_wilsons(successes: int, n: int) -> None:
    ours, theirs = stratified_wilson([(successes, n)], [1.0], 0.95), wilson(successes, n, 0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_of_like_strata_each_is_taken_at_z_over_their_root() -> None:
    # 4 strata of equal counts and weights: z' = z / 2.
    part = wilson(18, 25, 1 - 2 * stats.norm.sf(stats.norm.isf(0.005) / 2))
    found = stratified_wilson([(18, 25)] * 4, [0.25] * 4, 0.99)
    assert (found.low, found.high) == pytest.approx((part.low, part.high), abs=1e-12)


def test_of_two_strata_by_hand() -> None:
    # Deviations 0.7 sqrt(0.16 / 50) and 0.3 sqrt(0.25 / 20); z' = z sqrt(a² + b²) / (a + b).
    a, b, z = 0.7 * (0.16 / 50) ** 0.5, 0.3 * (0.25 / 20) ** 0.5, stats.norm.isf(0.025)
    tail = stats.norm.sf(z * (a * a + b * b) ** 0.5 / (a + b))
    first, second = wilson(40, 50, 1 - 2 * tail), wilson(10, 20, 1 - 2 * tail)
    found = stratified_wilson([(40, 50), (10, 20)], [0.7, 0.3], 0.95)
    assert found.low == pytest.approx(0.7 * first.low + 0.3 * second.low, abs=1e-12)
    assert found.high == pytest.approx(0.7 * first.high + 0.3 * second.high, abs=1e-12)


def test_many_samples_leave_the_normal_interval() -> None:
    counts, weights = [(80_000, 100_000), (250_000, 500_000)], [0.6, 0.4]
    reach = 1.959964 * (0.36 * 0.16 / 100_000 + 0.16 * 0.25 / 500_000) ** 0.5
    found = stratified_wilson(counts, weights, 0.95)
    assert (found.low, found.high) == pytest.approx((0.68 - reach, 0.68 + reach), abs=1e-5)


def test_strata_without_a_miss_do_not_collapse() -> None:
    thirds = [1 / 3] * 3
    found = stratified_wilson([(20, 20)] * 3, thirds, 0.95)
    assert found == Interval(low=pytest.approx(wilson(20, 20, 0.95).low), high=1.0)
    assert stratified_wilson([(0, 20)] * 3, thirds, 0.95).low == 0
    assert stratified_wilson([(20, 20), (19, 20)], [0.5, 0.5], 0.95).high < 1


# Exact, by enumeration; like Wilson's it covers its confidence on average over the proportions.
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_coverage(confidence: float) -> None:
    sizes, weights = (20, 12), (0.7, 0.3)
    seen = list(product(*(range(n + 1) for n in sizes)))
    found = [stratified_wilson(list(zip(one, sizes, strict=True)), weights, confidence) for one in seen]
    lows, highs = np.array([(one.low, one.high) for one in found]).T
    first, second = np.array(seen).T
    covered = []
    for p, q in product(np.linspace(0.05, 0.95, 15), repeat=2):
        chances = stats.binom.pmf(first, sizes[0], p) * stats.binom.pmf(second, sizes[1], q)
        truth = weights[0] * p + weights[1] * q
        covered.append(chances[(lows <= truth) & (truth <= highs)].sum())
    assert np.mean(covered) >= confidence - 0.002
    assert min(covered) >= confidence - 0.05


@pytest.mark.parametrize(
    ("counts", "weights", "message"),
    [
        ([], [], "expected one weight for each of at least one stratum, got 0 for 0"),
        ([(1, 2)], [0.5, 0.5], "expected one weight for each of at least one stratum, got 2 for 1"),
        ([(1, 2), (3, 2)], [0.5, 0.5], "successes must lie in 0 to n = 2, got 3"),
        ([(1, 2), (0, 0)], [0.5, 0.5], "n must be at least 1"),
        ([(1, 2), (1, 2)], [0.5, 0.6], r"weights must be at least 0 and together 1, got \[0.5, 0.6\]"),
        ([(1, 2), (1, 2)], [1.5, -0.5], "weights must be at least 0 and together 1"),
    ],
)
def test_what_cannot_be_is_refused(counts: list[tuple[int, int]], weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stratified_wilson(counts, weights, 0.9)
