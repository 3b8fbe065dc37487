"""What a number of samples can show, against published figures and the intervals themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from robustgate.statistics.paired import PairedCounts, drop_interval, mcnemar_p
from robustgate.statistics.power import samples_for_gap, samples_needed, smallest_drop, smallest_gap
from robustgate.statistics.proportion import wilson


def test_published_pairs() -> None:
    # Connor 1987, as in powerandsamplesize.com: shares of 0.45 and 0.05, two-sided 0.05 at 0.8, one-sided at 0.9.
    assert samples_needed(0.4, 0.5, 0.95, 0.8) == 23
    assert samples_needed(0.4, 0.5, 0.90, 0.9) == 23


def test_published_proportion() -> None:
    # Fleiss, Levin & Paik: (z_a sqrt(P0 Q0) + z_b sqrt(P1 Q1))² / (P1 - P0)², here with a z of 2 and of 1.
    confidence, power = 1 - 2 * stats.norm.sf(2), stats.norm.cdf(1)
    assert samples_for_gap(0.3, 0.8, confidence, power) == math.ceil((2 * 0.4 + 0.5) ** 2 / 0.09)
    assert samples_for_gap(0.3, 0.2, confidence, power) == math.ceil((2 * 0.4 + 0.5) ** 2 / 0.09)


def power_of_pairs(n: int, drop: float, disagreement: float) -> float:
    """Return, by enumeration, how often McNemar's exact test sees the drop at one-sided 0.05."""
    found = 0.0
    for discordant in range(int(stats.binom.isf(1e-9, n, disagreement)) + 1):
        lost = np.arange(discordant // 2 + 1, discordant + 1)
        seen = [mcnemar_p(PairedCounts(n=n, lost=int(k), gained=discordant - int(k)), "exact") <= 0.1 for k in lost]
        chances = stats.binom.pmf(lost, discordant, (disagreement + drop) / 2 / disagreement)
        found += stats.binom.pmf(discordant, n, disagreement) * float(chances[np.array(seen, dtype=bool)].sum())
    return found


def test_two_points_at_three_percent_disagreement() -> None:
    # 1,000 samples see a drop of 2 points with power 0.98 at one-sided 0.05: by the test, and by the formula.
    assert power_of_pairs(1000, 0.02, 0.03) == pytest.approx(0.98, abs=0.005)
    assert smallest_drop(1000, 0.03, 0.90, 0.98) == pytest.approx(0.02, abs=0.0005)


def test_281_images_cannot_resolve_three_points() -> None:
    assert smallest_gap(281, 0.9, 0.95) > 0.03
    assert smallest_drop(281, 0.06, 0.95) > 0.03
    assert samples_for_gap(0.03, 0.9, 0.95) > 281
    assert samples_needed(0.03, 0.06, 0.95) > 281


@pytest.mark.parametrize(("n", "limit"), [(500, 0.9), (2000, 0.3)])
def test_a_gap_is_seen_as_often_as_it_says(n: int, limit: float) -> None:
    gap = smallest_gap(n, limit, 0.95, 0.8)
    truth = limit - gap if limit > 0.5 else limit + gap
    seen = np.arange(n + 1)
    ends = [wilson(int(k), n, 0.95) for k in seen]
    outside = np.array([not one.low <= limit <= one.high for one in ends])
    assert stats.binom.pmf(seen, n, truth)[outside].sum() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("n", "disagreement"), [(500, 0.08), (2000, 0.03)])
def test_a_drop_is_seen_as_often_as_it_says(n: int, disagreement: float) -> None:
    drop = smallest_drop(n, disagreement, 0.95, 0.8)
    lost, gained = (disagreement + drop) / 2, (disagreement - drop) / 2
    draws = np.random.default_rng(0).multinomial(n, [lost, gained, 1 - disagreement], size=2000)
    tables, often = np.unique(draws[:, :2], axis=0, return_counts=True)
    seen = [drop_interval(PairedCounts(n=n, lost=int(a), gained=int(b)), 0.95).low > 0 for a, b in tables]
    assert often[np.array(seen)].sum() / 2000 == pytest.approx(0.8, abs=0.03)


def test_one_is_the_other_turned_round() -> None:
    for n in (50, 281, 10_000):
        # A hair more than the smallest, or a rounding asks for one sample more.
        assert samples_needed(smallest_drop(n, 0.05, 0.99) + 1e-9, 0.05, 0.99) == n
        assert samples_for_gap(smallest_gap(n, 0.85, 0.99) + 1e-9, 0.85, 0.99) == n


def test_a_drop_is_at_least_that_much_disagreement() -> None:
    # All who disagree are lost: n = (z_a + z_b sqrt(1 - d))² / d, whatever was expected.
    assert samples_needed(0.1, 0.02, 0.95) == samples_needed(0.1, 0.1, 0.95)
    z, b = stats.norm.isf(0.025), stats.norm.ppf(0.8)
    assert samples_needed(0.1, 0.02, 0.95) == math.ceil((z + b * 0.9**0.5) ** 2 / 0.1)


def test_too_few_samples_resolve_nothing() -> None:
    assert smallest_drop(3, 0.1, 0.95) == math.inf
    assert smallest_gap(1, 0.5, 0.99) == math.inf


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="n must be at least 1: nothing was measured, got 0"):
        smallest_drop(0, 0.1, 0.95)
    with pytest.raises(ValueError, match=r"disagreement must lie in 0 to 1, got 1\.5"):
        smallest_drop(10, 1.5, 0.95)
    with pytest.raises(ValueError, match=r"drop must lie in 0 to 1, got -0\.1"):
        samples_needed(-0.1, 0.1, 0.95)
    with pytest.raises(ValueError, match="limit must lie in 0 to 1, got 85"):
        smallest_gap(10, 85, 0.95)
    with pytest.raises(ValueError, match=r"gap must be at least 0 and leave a proportion, got 0\.95 from 0\.9"):
        samples_for_gap(0.95, 0.9, 0.95)
    with pytest.raises(ValueError, match=r"power must be at least 0\.5 and below 1, got 1"):
        smallest_gap(10, 0.5, 0.95, 1.0)
    with pytest.raises(ValueError, match="confidence must lie strictly between 0 and 1"):
        samples_for_gap(0.1, 0.5, 95)
