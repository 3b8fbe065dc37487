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


def test_of_like_strata_the_reach_is_that_of_one_over_their_root() -> None:
    part = wilson(18, 25, 0.99)
    found = stratified_wilson([(18, 25)] * 4, [0.25] * 4, 0.99)
    assert found.low == pytest.approx(18 / 25 - (18 / 25 - part.low) / 2, abs=1e-12)
    assert found.high == pytest.approx(18 / 25 + (part.high - 18 / 25) / 2, abs=1e-12)


def test_of_two_strata_by_hand() -> None:
    first, second = wilson(40, 50, 0.95), wilson(10, 20, 0.95)
    found = stratified_wilson([(40, 50), (10, 20)], [0.7, 0.3], 0.95)
    below = (0.7**2 * (0.8 - first.low) ** 2 + 0.3**2 * (0.5 - second.low) ** 2) ** 0.5
    above = (0.7**2 * (first.high - 0.8) ** 2 + 0.3**2 * (second.high - 0.5) ** 2) ** 0.5
    assert found.low == pytest.approx(0.71 - below, abs=1e-12)
    assert found.high == pytest.approx(0.71 + above, abs=1e-12)


def test_one_more_success_never_lowers_an_end() -> None:
    sizes, weights = (7, 12, 1), (0.5, 0.2, 0.3)
    for seen in product(*(range(n) for n in sizes)):
        ours = stratified_wilson(list(zip(seen, sizes, strict=True)), weights, 0.9)
        for stratum in range(3):
            more = [successes + (place == stratum) for place, successes in enumerate(seen)]
            better = stratified_wilson(list(zip(more, sizes, strict=True)), weights, 0.9)
            assert better.low >= ours.low - 1e-12
            assert better.high >= ours.high - 1e-12


def test_many_samples_leave_the_normal_interval() -> None:
    counts, weights = [(80_000, 100_000), (250_000, 500_000)], [0.6, 0.4]
    reach = 1.959964 * (0.36 * 0.16 / 100_000 + 0.16 * 0.25 / 500_000) ** 0.5
    found = stratified_wilson(counts, weights, 0.95)
    assert (found.low, found.high) == pytest.approx((0.68 - reach, 0.68 + reach), abs=1e-5)


def test_strata_without_a_miss_do_not_collapse() -> None:
    thirds = [1 / 3] * 3
    found = stratified_wilson([(20, 20)] * 3, thirds, 0.95)
    assert found == Interval(low=pytest.approx(1 - (1 - wilson(20, 20, 0.95).low) / 3**0.5), high=1.0)
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
