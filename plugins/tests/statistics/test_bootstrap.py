"""Resamples against what is known of them, and their intervals against a figure that has a formula."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from robustgate.statistics.bootstrap import RESAMPLES, Resampling, bootstrap_interval, percentile_interval
from robustgate.statistics.proportion import Interval


def test_the_first_row_is_the_samples_themselves() -> None:
    columns = np.random.default_rng(0).integers(0, 2, (50, 4))
    means = Resampling(n=50, seed=1, resamples=30).means(columns)
    assert means.shape == (31, 4)
    assert np.array_equal(means[0], columns.mean(axis=0))
    assert Resampling(n=50, seed=1).means(columns).shape == (1 + RESAMPLES, 4)


def test_columns_are_resampled_alike_whenever_they_are_asked_about() -> None:
    columns = np.random.default_rng(0).integers(0, 2, (50, 4))
    whole = Resampling(n=50, seed=1, resamples=30).means(columns)
    apart = [Resampling(n=50, seed=1, resamples=30).means(columns[:, [place]])[:, 0] for place in range(4)]
    assert np.array_equal(whole, np.stack(apart, axis=1))
    assert not np.array_equal(whole, Resampling(n=50, seed=2, resamples=30).means(columns))
    twice = Resampling(n=50, seed=1, resamples=30).means(np.stack([columns[:, 0], 1 - columns[:, 0]], axis=1))
    assert twice.sum(axis=1) == pytest.approx(np.ones(31))


def test_every_sample_is_drawn_as_often_as_chance_has_it() -> None:
    # How often one sample is drawn in n draws is binomial (n, 1/n).
    drawn = 40 * Resampling(n=40, seed=0, resamples=20_000).means(np.eye(40))[1:]
    assert np.array_equal(drawn.sum(axis=1), np.full(20_000, 40))
    seen = np.bincount(np.round(drawn[:, 7]).astype(int), minlength=5)[:5] / 20_000
    assert seen == pytest.approx(stats.binom.pmf(range(5), 40, 1 / 40), abs=0.015)


def test_what_is_held_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = np.random.default_rng(0).integers(0, 2, 60), np.arange(60) % 3
    whole = Resampling(n=60, seed=1, resamples=50)
    before = whole.means(values[:, None]), whole.group_means(values, groups, 3)
    monkeypatch.setattr("robustgate.statistics.bootstrap.ROOM", 7 * 60)
    after = whole.means(values[:, None]), whole.group_means(values, groups, 3)
    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])


def test_the_mean_of_a_group_is_that_of_its_samples_in_the_resample() -> None:
    draws = np.random.default_rng(0)
    values, groups = draws.integers(0, 2, 40), draws.integers(0, 3, 40)
    groups[groups == 2] = 4  # groups 2 and 3 are empty
    groups[:1] = 1
    resampling = Resampling(n=40, seed=3, resamples=20)
    found = resampling.group_means(values, groups, 5)
    assert np.isnan(found[:, [2, 3]]).all()
    for group in (0, 1, 4):
        inside = groups == group
        parts = resampling.means(np.stack([inside, inside & (values == 1)], axis=1))
        assert found[:, group] == pytest.approx(parts[:, 1] / parts[:, 0])
        assert found[0, group] == pytest.approx(values[inside].mean())


def test_a_group_that_a_resample_misses_has_no_mean_there() -> None:
    found = Resampling(n=20, seed=0, resamples=500).group_means(np.ones(20), (np.arange(20) == 0).astype(int), 2)
    missing = np.isnan(found[1:, 1]).mean()
    assert missing == pytest.approx((1 - 1 / 20) ** 20, abs=0.06)
    assert (found[~np.isnan(found)] == 1).all()


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_the_interval_leaves_no_more_than_the_tails_outside(confidence: float) -> None:
    figures = np.random.default_rng(0).permutation(2000).astype(float)
    found = percentile_interval(figures, confidence)
    beyond = round(2000 * (1 - confidence) / 2)
    assert (found.low, found.high) == (beyond, 1999 - beyond)


def test_what_has_no_figure_lies_beyond_both_ends() -> None:
    figures = np.arange(1000.0)
    figures[:3] = np.nan
    few = percentile_interval(figures, 0.99)
    assert (few.low, few.high) == (5, 997)
    figures[:6] = np.nan
    many = percentile_interval(figures, 0.99)
    assert (many.low, many.high) == (-np.inf, np.inf)


def test_it_is_near_the_formula_where_there_is_one() -> None:
    correct = (np.arange(2000) < 1400)[:, None]
    figures = Resampling(n=2000, seed=5, resamples=20_000).means(correct)[:, 0]
    found = percentile_interval(figures[1:], 0.95)
    reach = 1.96 * np.sqrt(0.7 * 0.3 / 2000)
    assert (found.low, found.high) == pytest.approx((0.7 - reach, 0.7 + reach), abs=0.0005)  # a sample is as much


def test_it_covers_about_as_often_as_it_says() -> None:
    # The ratio of two error rates on the same samples, whose truth is known.
    draws, covered, runs = np.random.default_rng(11), 0, 300
    for run in range(runs):
        hard = draws.random(400)
        wrong = np.stack([hard < 0.3, hard + draws.normal(0, 0.05, 400) < 0.2], axis=1)
        means = Resampling(n=400, seed=run, resamples=400).means(wrong)
        found = percentile_interval((means[:, 0] / means[:, 1])[1:], 0.9)
        # P(U + 0.05 Z < 0.2) is the mean of 0.2 - 0.05 Z cut to [0, 1]: 0.2, for Z cuts little.
        covered += found.low <= 0.3 / 0.2 <= found.high
    assert 0.85 <= covered / runs <= 0.95


def test_resolved_tails_are_read_off_the_resamples() -> None:
    figures = np.random.default_rng(0).exponential(size=2001)
    assert bootstrap_interval(figures, 0.99) == percentile_interval(figures[1:], 0.99)  # 10 beyond each end


def test_tails_beyond_the_resamples_are_standard() -> None:
    figures = np.concatenate([[0.5], np.random.default_rng(0).normal(0.52, 0.01, 2000)])
    found = bootstrap_interval(figures, 0.999)  # 1 would lie beyond each end
    reach = stats.norm.isf(0.0005) * figures[1:].std()
    assert found.low == pytest.approx(0.5 - reach, abs=1e-12)
    assert found.high == figures[1:].max() > 0.5 + reach  # never narrower than what was seen
    stricter = bootstrap_interval(figures, 0.9999)
    assert stricter.low == pytest.approx(0.5 - stats.norm.isf(0.00005) * figures[1:].std(), abs=1e-12)
    assert stricter.high == found.high


def test_standard_tails_cover_a_mean_as_the_normal_does() -> None:
    correct = (np.arange(2000) < 1400)[:, None]
    figures = Resampling(n=2000, seed=5).means(correct)[:, 0]
    reach = stats.norm.isf(0.0001 / 2) * np.sqrt(0.7 * 0.3 / 2000)
    found = bootstrap_interval(figures, 0.9999)
    assert (found.low, found.high) == pytest.approx((0.7 - reach, 0.7 + reach), rel=0.005)


def test_where_all_resamples_agree_both_are_a_point() -> None:
    for confidence in (0.9, 0.9999):
        assert bootstrap_interval(np.full(2001, 0.25), confidence) == Interval(low=0.25, high=0.25)


@pytest.mark.parametrize("confidence", [0.9, 0.999])
def test_what_has_no_figure_makes_either_infinite(confidence: float) -> None:
    figures = np.random.default_rng(0).normal(size=2001)
    may_lie_beyond = round(2000 * (1 - confidence) / 2)
    figures[1 : 1 + may_lie_beyond] = np.nan
    assert np.isfinite(bootstrap_interval(figures, confidence).low)
    figures[1 + may_lie_beyond] = np.nan
    assert bootstrap_interval(figures, confidence) == Interval(low=-np.inf, high=np.inf)


def test_samples_without_a_figure_have_no_standard_interval() -> None:
    figures = np.zeros(2001)
    figures[0] = np.nan
    assert bootstrap_interval(figures, 0.999) == Interval(low=-np.inf, high=np.inf)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        Resampling(n=0, seed=0)
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        Resampling(n=1, seed=0, resamples=0)
    with pytest.raises(ValueError, match="expected the figures of at least one resample, got none"):
        percentile_interval(np.array([]), 0.9)
    with pytest.raises(ValueError, match="confidence must lie strictly between 0 and 1"):
        percentile_interval(np.arange(9.0), 1.0)
    with pytest.raises(ValueError, match="expected the figures of at least one resample, got none"):
        bootstrap_interval(np.zeros(1), 0.9)
