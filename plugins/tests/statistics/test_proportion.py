"""Intervals of one proportion against their definitions and against SciPy and statsmodels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from robustgate.statistics.proportion import Interval, clopper_pearson, wilson

BOTH = pytest.mark.parametrize("interval", [clopper_pearson, wilson])
CASES = [(0, 1), (1, 1), (0, 50), (1, 50), (25, 50), (50, 50), (412, 1000), (1999, 2000)]
deterministic = settings(derandomize=True, database=None, deadline=None)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "n"), CASES)
@pytest.mark.parametrize(
    ("interval", "in_statsmodels", "in_scipy"), [(clopper_pearson, "beta", "exact"), (wilson, "wilson", "wilson")]
)
def test_agrees_with_others(interval, in_statsmodels, in_scipy, successes, n, confidence):
    ours = interval(successes, n, confidence)
    assert (ours.low, ours.high) == pytest.approx(
        proportion_confint(successes, n, 1 - confidence, in_statsmodels), abs=1e-9
    )
    theirs = stats.binomtest(successes, n).proportion_ci(confidence, method=in_scipy)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_clopper_pearson_leaves_exact_tails():
    ours = clopper_pearson(7, 30, 0.9)
    assert stats.binom.sf(6, 30, ours.low) == pytest.approx(0.05)
    assert stats.binom.cdf(7, 30, ours.high) == pytest.approx(0.05)


def test_clopper_pearson_without_successes_has_a_closed_form():
    assert clopper_pearson(0, 20, 0.95) == Interval(low=0.0, high=pytest.approx(1 - 0.025 ** (1 / 20)))


def coverage(interval, n, confidence):
    """Return how often the interval covers, exactly, at 500 proportions."""
    proportions = np.linspace(0.001, 0.999, 500)
    intervals = [interval(successes, n, confidence) for successes in range(n + 1)]
    low, high = np.array([(one.low, one.high) for one in intervals]).T
    covers = (low[:, None] <= proportions) & (proportions <= high[:, None])
    return (covers * stats.binom.pmf(np.arange(n + 1)[:, None], n, proportions)).sum(axis=0)


@pytest.mark.parametrize("n", [*range(1, 61), 100])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_coverage(n, confidence):
    assert coverage(clopper_pearson, n, confidence).min() >= confidence - 1e-12
    assert coverage(wilson, n, confidence).mean() >= confidence - 0.01


@BOTH
@pytest.mark.parametrize(
    ("successes", "n", "confidence", "message"),
    [
        (0, 0, 0.9, "n must be at least 1"),
        (-1, 5, 0.9, "successes must lie in 0 to n = 5, got -1"),
        (6, 5, 0.9, "successes must lie in 0 to n = 5, got 6"),
        (1, 5, 0.0, "confidence must lie strictly between 0 and 1, got 0"),
        (1, 5, 1.0, "confidence must lie strictly between 0 and 1, got 1"),
        (1, 5, 95, "confidence must lie strictly between 0 and 1, got 95"),
        (1, 5, float("nan"), "confidence must lie strictly between 0 and 1, got nan"),
    ],
)
def test_the_impossible_is_refused(interval, successes, n, confidence, message):
    with pytest.raises(ValueError, match=message):
        interval(successes, n, confidence)


@st.composite
def counts(draw):
    n = draw(st.integers(1, 3000))
    return draw(st.integers(0, n)), n


@BOTH
@deterministic
@given(seen=counts(), confidence=st.floats(0.5, 0.999))
def test_properties(interval, seen, confidence):
    successes, n = seen
    ours = interval(successes, n, confidence)
    assert 0 <= ours.low <= successes / n <= ours.high <= 1
    mirrored = interval(n - successes, n, confidence)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - ours.high, 1 - ours.low), abs=1e-9)
    surer = interval(successes, n, 1 - (1 - confidence) / 2)
    assert surer.low <= ours.low
    assert surer.high >= ours.high
    more = interval(4 * successes, 4 * n, confidence)
    assert more.high - more.low < ours.high - ours.low
