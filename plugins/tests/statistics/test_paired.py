"""The paired drop: Tango's interval against its equation, published figures and exact coverage; McNemar's test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import xlogy
from statsmodels.stats.contingency_tables import mcnemar

from robustgate.statistics.paired import PairedCounts, drop_interval, mcnemar_p, score_variance

deterministic = settings(derandomize=True, database=None, deadline=None)


def paired(n, lost, gained):
    return PairedCounts(n=n, lost=lost, gained=gained)


def test_counts_of_outcomes():
    reference = np.array([True, True, True, False, False])
    compressed = np.array([True, False, False, True, False])
    counts = PairedCounts.of(reference, compressed)
    assert counts == paired(5, 2, 1)
    assert counts.drop == pytest.approx(0.2)
    assert counts.swapped == PairedCounts.of(compressed, reference)


@pytest.mark.parametrize(
    ("n", "lost", "gained", "message"),
    [
        (0, 0, 0, "n must be at least 1: nothing was measured, got 0"),
        (5, -1, 0, "got lost = -1, gained = 0"),
        (5, 0, -1, "got lost = 0, gained = -1"),
        (5, 3, 3, "together at most n = 5, got lost = 3, gained = 3"),
    ],
)
def test_impossible_counts_are_refused(n, lost, gained, message):
    with pytest.raises(ValueError, match=message):
        paired(n, lost, gained)


def test_outcomes_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"two arrays of one length, got \(3,\), \(4,\)"):
        PairedCounts.of(np.ones(3, bool), np.ones(4, bool))


def test_published_interval():
    # Complete response before and after consolidation therapy (Cavo et al. 2012), as in Fagerland, Lydersen & Laake,
    # Statistical Analysis of Contingency Tables (2017), chapter 8, and their R package contingencytables.
    ours = drop_interval(paired(161, 6, 16), 0.95)
    assert (ours.low, ours.high) == pytest.approx((-0.1240, -0.0054), abs=5e-5)


CASES = [
    paired(1, 1, 0),
    paired(10, 0, 3),
    paired(10, 3, 4),
    paired(30, 30, 0),
    paired(200, 21, 4),
    paired(2000, 190, 8),
]


def score(counts, drop):
    """Return the score statistic, with the restricted estimate found by maximising the likelihood numerically."""
    same = counts.n - counts.lost - counts.gained

    def loss(gained):
        return -(xlogy(counts.lost, gained + drop) + xlogy(counts.gained, gained) + xlogy(same, 1 - 2 * gained - drop))

    bounds = (max(0.0, -drop), (1 - drop) / 2)
    gained = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
    variance = counts.n * (2 * gained + drop * (1 - drop))
    return (counts.lost - counts.gained - counts.n * drop) / variance**0.5


@pytest.mark.parametrize("confidence", [0.9, 0.99])
@pytest.mark.parametrize("counts", CASES, ids=str)
def test_limits_solve_the_score_equation(counts, confidence):
    z = stats.norm.isf((1 - confidence) / 2)
    ours = drop_interval(counts, confidence)
    if counts.gained < counts.n:
        assert score(counts, ours.low) == pytest.approx(z, rel=1e-4)
    if counts.lost < counts.n:
        assert score(counts, ours.high) == pytest.approx(-z, rel=1e-4)


def test_variance_is_the_observed_one_at_the_observed_drop():
    counts = paired(200, 21, 4)
    assert score_variance(counts, counts.drop) == pytest.approx(25 - 17**2 / 200)


@pytest.mark.parametrize("n", [1, 7, 1000, 10**6])
def test_the_edges_have_closed_forms(n):
    square = stats.norm.isf(0.005) ** 2
    # No discordant pair: -n drop / sqrt(n drop (1 - drop)) = -z.
    same = drop_interval(paired(n, 0, 0), 0.99)
    assert same.high == pytest.approx(square / (n + square), rel=1e-9)
    assert same.low == -same.high
    # All of them lost: n (1 - drop) / sqrt(n (1 - drop)(1 + drop)) = z.
    lost = drop_interval(paired(n, n, 0), 0.99)
    assert lost.high == 1
    assert lost.low == pytest.approx((n - square) / (n + square), abs=1e-9)
    gained = drop_interval(paired(n, 0, n), 0.99)
    assert (gained.low, gained.high) == (-lost.high, -lost.low)


# Exact, by enumeration. Score intervals cover their confidence on average and a little less at some points: where all
# discordant pairs are of one kind, one tail holds up to 2.9 times its share. Measured, at 50: 0.9346 and 0.9880, at
# 60: 0.9854.
@pytest.mark.parametrize(
    ("n", "confidence", "worst", "mean", "tail"),
    [
        (10, 0.95, 0.929, 0.970, 0.071),
        (50, 0.95, 0.934, 0.952, 0.051),
        (50, 0.99, 0.987, 0.991, 0.0125),
        (60, 0.99, 0.985, 0.991, 0.0146),
    ],
)
def test_coverage(n, confidence, worst, mean, tail):
    covered, most_on_a_side = exact_coverage(n, confidence, corrected=False)
    assert covered.min() >= worst
    assert covered.mean() >= mean
    assert most_on_a_side <= tail


@pytest.mark.parametrize(("n", "confidence"), [(40, 0.95), (40, 0.99), (60, 0.99)])
def test_corrected_it_never_covers_less_than_it_says(n, confidence):
    covered, _ = exact_coverage(n, confidence, corrected=True)
    assert covered.min() >= confidence


def exact_coverage(n, confidence, *, corrected):
    """Return how often the interval holds the drop, for many rates of lost and gained, and its most misses on a side."""
    tables = np.array([(lost, gained) for lost in range(n + 1) for gained in range(n + 1 - lost)])
    intervals = [drop_interval(paired(n, int(x), int(y)), confidence, corrected=corrected) for x, y in tables]
    low, high = np.array([(one.low, one.high) for one in intervals]).T
    outcomes = np.column_stack([tables, n - tables.sum(axis=1)])
    below, above = [], []
    for discordant in np.linspace(0.02, 0.9, 12):
        for share in np.linspace(0, 1, 11):
            lost, gained = discordant * share, discordant * (1 - share)
            chances = stats.multinomial.pmf(outcomes, n, [lost, gained, 1 - discordant])
            below.append(chances[high < lost - gained - 1e-12].sum())
            above.append(chances[low > lost - gained + 1e-12].sum())
    return 1 - np.array(below) - np.array(above), max(*below, *above)


@pytest.mark.parametrize(("lost", "gained"), [(30, 12), (9, 0), (40, 38)])
def test_corrected_it_is_mcnemars_corrected_test_at_a_drop_of_zero(lost, gained):
    table = [[50, lost], [gained, 50]]
    p = mcnemar(table, exact=False, correction=True).pvalue
    interval = drop_interval(paired(100 + lost + gained, lost, gained), 1 - p, corrected=True)
    assert interval.low == pytest.approx(0, abs=1e-9)


@st.composite
def tables(draw, largest=3000):
    n = draw(st.integers(1, largest))
    lost = draw(st.integers(0, n))
    return paired(n, lost, draw(st.integers(0, n - lost)))


@deterministic
@given(counts=tables(), confidence=st.floats(0.5, 0.999))
def test_interval_properties(counts, confidence):
    ours = drop_interval(counts, confidence)
    assert -1 <= ours.low <= counts.drop + 1e-12
    assert counts.drop - 1e-12 <= ours.high <= 1
    mirrored = drop_interval(counts.swapped, confidence)
    assert (mirrored.low, mirrored.high) == (-ours.high, -ours.low)
    surer = drop_interval(counts, 1 - (1 - confidence) / 2)
    assert surer.low <= ours.low
    assert surer.high >= ours.high
    more = drop_interval(paired(4 * counts.n, 4 * counts.lost, 4 * counts.gained), confidence)
    assert more.high - more.low < ours.high - ours.low


@deterministic
@given(counts=tables(), confidence=st.floats(0.5, 0.999))
def test_another_lost_pair_moves_the_interval_up(counts, confidence):
    if counts.lost + counts.gained == counts.n:
        return
    ours = drop_interval(counts, confidence)
    worse = drop_interval(paired(counts.n, counts.lost + 1, counts.gained), confidence)
    assert worse.low > ours.low
    assert worse.high >= ours.high


@pytest.mark.parametrize("confidence", [0, 1, 1.5, -0.1])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence must lie strictly between 0 and 1"):
        drop_interval(paired(10, 1, 1), confidence)


@pytest.mark.parametrize("counts", [paired(161, 6, 16), paired(100, 0, 9), paired(100, 30, 12)], ids=str)
def test_exact_mcnemar_agrees_with_statsmodels(counts):
    same = counts.n - counts.lost - counts.gained
    table = [[same, counts.lost], [counts.gained, 0]]
    assert mcnemar_p(counts, "exact") == pytest.approx(mcnemar(table, exact=True).pvalue)


@deterministic
@given(lost=st.integers(0, 400), gained=st.integers(0, 400))
def test_mcnemar_by_definition(lost, gained):
    counts, discordant = paired(1000, lost, gained), lost + gained
    exact = stats.binomtest(lost, discordant, 0.5).pvalue if discordant else 1.0
    assert mcnemar_p(counts, "exact") == pytest.approx(exact, rel=1e-9)
    # Half of the observed split's own probability: both tails hold it once, and equal halves of one split share it.
    own = stats.binom.pmf(lost, discordant, 0.5)
    assert mcnemar_p(counts) == pytest.approx(1 if lost == gained else exact - own, rel=1e-9)


def test_published_mid_p():
    # Cavo et al. 2012 again, same source.
    assert mcnemar_p(paired(161, 6, 16)) == pytest.approx(0.034690, abs=5e-7)


def test_nothing_discordant_is_no_evidence():
    assert mcnemar_p(paired(10, 0, 0)) == mcnemar_p(paired(10, 0, 0), "exact") == 1
    assert mcnemar_p(paired(10, 3, 3)) == pytest.approx(1)


@deterministic
@given(counts=tables())
def test_mcnemar_properties(counts):
    exact, mid = mcnemar_p(counts, "exact"), mcnemar_p(counts)
    assert 0 <= mid <= exact <= 1
    assert mid == mcnemar_p(counts.swapped)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be mid_p or exact, got 'chi2'"):
        mcnemar_p(paired(10, 1, 2), "chi2")
