"""The interval of the least of several proportions, against exact binomials."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
from scipy import stats

from robustgate.statistics.minimum import least_interval
from robustgate.statistics.proportion import clopper_pearson


def test_of_one_proportion_it_is_the_exact_one() -> None:
    assert least_interval([(7, 9)], 0.9) == clopper_pearson(7, 9, 0.9)


@pytest.mark.parametrize("truth", [(0.5, 0.5, 0.5), (0.4, 0.6, 0.9), (0.1, 0.15, 0.2), (0.9, 0.95, 1.0)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_it_never_covers_less_often_than_it_says(truth: tuple[float, ...], confidence: float) -> None:
    n, least = (6, 8, 5), min(truth)
    missed_low = missed_high = 0.0
    for seen in product(*(range(size + 1) for size in n)):
        chance = prod(float(stats.binom.pmf(k, size, p)) for k, size, p in zip(seen, n, truth, strict=True))
        found = least_interval(list(zip(seen, n, strict=True)), confidence)
        missed_low += chance * (found.low > least)
        missed_high += chance * (found.high < least)
    assert missed_low <= (1 - confidence) / 2 + 1e-12
    assert missed_high <= (1 - confidence) / 2 + 1e-12


def test_it_does_not_collapse_where_all_are_right() -> None:
    found = least_interval([(20, 20), (10, 10)], 0.99)
    assert found.low == pytest.approx(0.005 ** (1 / 10))
    assert found.high == 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the counts of at least one proportion, got none"):
        least_interval([], 0.9)
