"""The confidence sequence: its error by enumeration of all orders, its ends, and what it shares with the simulation."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustgate.statistics import sequential
from robustgate.statistics.proportion import Interval, clopper_pearson
from robustgate.statistics.sequential import BETS, betting_interval, certain_bounds, decided_at, looks

deterministic = settings(derandomize=True, database=None, deadline=None, max_examples=40)
Run = tuple[int, ...]
SIZE = 8
ORDERS = list(product((0, 1), repeat=SIZE))


def sequence(confidence: float, total: int | None) -> Callable[[Run], Interval]:
    return cache(lambda seen: betting_interval(np.array(seen), confidence, least=0, most=1, total=total))


def prefixes(run: Run) -> list[Run]:
    return [run[:n] for n in range(1, len(run) + 1)]


def misses(interval: Callable[[Run], Interval], run: Run, truth: float) -> bool:
    """Return whether the interval misses the truth after any number of values."""
    found = [interval(seen) for seen in prefixes(run)]
    return any(not one.low - 1e-9 <= truth <= one.high + 1e-9 for one in found)


def miss_rates_of_test_sets(interval: Callable[[Run], Interval]) -> list[float]:
    """Return how often the interval ever misses, exactly, for each number of hits among the samples in random order."""
    return [
        sum(misses(interval, run, hits / SIZE) for run in ORDERS if sum(run) == hits) / comb(SIZE, hits)
        for hits in range(SIZE + 1)
    ]


def miss_rates_of_distributions(interval: Callable[[Run], Interval]) -> list[float]:
    """Return how often the interval ever misses, exactly, for some true proportions."""
    truths = np.linspace(0.05, 0.95, 7)
    return [
        sum(p ** sum(run) * (1 - p) ** (SIZE - sum(run)) for run in ORDERS if misses(interval, run, p)) for p in truths
    ]


@pytest.mark.parametrize("confidence", [0.2, 0.5])
def test_it_ever_misses_no_more_often_than_it_says(confidence: float) -> None:
    assert 0 < max(miss_rates_of_test_sets(sequence(confidence, total=SIZE))) <= 1 - confidence
    assert 0 < max(miss_rates_of_distributions(sequence(confidence, total=None))) <= 1 - confidence


@pytest.mark.parametrize("confidence", [0.2, 0.5])
def test_an_interval_of_fixed_size_misses_too_often_where_one_looks_again_and_again(confidence: float) -> None:
    peeked = cache(lambda seen: clopper_pearson(sum(seen), len(seen), confidence))
    assert max(miss_rates_of_distributions(peeked)) > 1 - confidence


def test_bets_that_stake_more_than_they_own_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(share for _, share in BETS) == pytest.approx(1)
    monkeypatch.setattr(sequential, "BETS", tuple((bet, 2 * share) for bet, share in BETS))
    assert max(miss_rates_of_test_sets(sequence(0.2, total=SIZE))) > 0.8


def test_of_pairs_it_ever_misses_no_more_often_than_it_says() -> None:
    interval = cache(lambda seen: betting_interval(np.array(seen), 0.5, least=-1, most=1, total=6))
    rates: dict[tuple[int, int], list[bool]] = {}
    for run in product((-1, 0, 1), repeat=6):
        rates.setdefault((run.count(1), run.count(-1)), []).append(misses(interval, run, sum(run) / 6))
    assert 0.05 < max(np.mean(missed) for missed in rates.values()) <= 0.5


@pytest.mark.parametrize("hits", range(13))
@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_wrong_verdicts_by_enumeration(hits: int, confidence: float) -> None:
    orders = np.array([run for run in product((0, 1), repeat=12) if sum(run) == hits])
    for limit in np.arange(1, 13) / 12:
        at, above = decided_at(orders, limit, confidence, least=0, most=1, total=12)
        assert (at <= 12).all()
        # A wrong verdict takes a miss of one end, which has half of the error.
        assert (above != (hits / 12 >= limit)).mean() <= (1 - confidence) / 2


def drawn(seed: int, hits: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.arange(n) < hits).astype(float)


def test_it_is_a_point_once_everything_was_drawn() -> None:
    assert betting_interval(drawn(0, 29, 100), 0.99, least=0, most=1, total=100) == Interval(low=0.29, high=0.29)
    pairs = np.repeat([1, -1, 0], [7, 4, 89])
    assert betting_interval(pairs, 0.99, least=-1, most=1, total=100) == Interval(low=0.03, high=0.03)


def test_it_lies_within_what_is_certain() -> None:
    # 40 of 41 values are known: without them the sequence is far from sure.
    values = drawn(1, 30, 40)
    found = betting_interval(values, 0.999999, least=0, most=1, total=41)
    assert (found.low, found.high) == (30 / 41, 31 / 41)
    lows, highs = certain_bounds(values[None], least=0, most=1, total=41)
    assert (lows[0, -1], highs[0, -1]) == (30 / 41, 31 / 41)
    assert (lows[0, 0], highs[0, 0]) == (values[0] / 41, (40 + values[0]) / 41)


def test_one_bet_has_a_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    # n values of 1 against the mean m multiply the wealth by (1 + b (1 - m))^n: the low end is where that is 2 / error.
    monkeypatch.setattr(sequential, "BETS", ((0.5, 1.0),))
    found = betting_interval(np.ones(30), 0.9, least=0, most=1)
    assert found.low == pytest.approx(1 - (20 ** (1 / 30) - 1) / 0.5, abs=1e-9)
    assert found.high == 1
    # Without replacement, of 2 values 1 in 4: the bet grows with what is left, and the mean of the rest falls.
    found = betting_interval(np.ones(2), 0.4, least=0, most=1, total=4)
    wealth = (1 + 0.5 * (1 - found.low)) * (1 + 0.5 * 4 / 3 * (1 - (4 * found.low - 1) / 3))
    assert found.low == 0.5  # certain, and more than the bets could tell
    assert wealth < 1 / 0.3


def test_a_bet_never_loses_everything() -> None:
    # Against a mean near the most, a surprise of -1 costs 95 % of what is staked, and the next values bring it back.
    found = betting_interval(np.array([0.0] + [1.0] * 400), 0.9, least=0, most=1)
    assert 0.9 < found.low < 400 / 401 < found.high <= 1


@deterministic
@given(
    values=st.lists(st.sampled_from([0, 1]), min_size=2, max_size=60), place=st.integers(0, 59), finite=st.booleans()
)
def test_a_miss_turned_into_a_hit_lowers_no_end(values: list[int], place: int, finite: bool) -> None:
    total = 80 if finite else None
    worse, better = np.array(values), np.array(values)
    worse[place % len(values)], better[place % len(values)] = 0, 1
    below, above = (betting_interval(one, 0.9, least=0, most=1, total=total) for one in (worse, better))
    assert above.low >= below.low - 1e-9
    assert above.high >= below.high - 1e-9


@deterministic
@given(values=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60), confidence=st.floats(0.5, 0.999))
def test_properties(values: list[int], confidence: float) -> None:
    run = np.array(values)
    ours = betting_interval(run, confidence, least=-1, most=1, total=70)
    mirrored = betting_interval(-run, confidence, least=-1, most=1, total=70)
    assert (mirrored.low, mirrored.high) == pytest.approx((-ours.high, -ours.low), abs=1e-9)
    # The same mean on another scale.
    scaled = betting_interval((run + 1) / 2, confidence, least=0, most=1, total=70)
    assert -1 <= ours.low <= ours.high <= 1
    assert 0 <= scaled.low <= scaled.high <= 1
    surer = betting_interval(run, 1 - (1 - confidence) / 2, least=-1, most=1, total=70)
    assert surer.low <= ours.low + 1e-9
    assert surer.high >= ours.high - 1e-9


@pytest.mark.parametrize("total", [300, None])
@pytest.mark.parametrize("limit", [0.55, 0.7, 0.85])
def test_the_simulation_decides_when_the_interval_does(total: int | None, limit: float) -> None:
    runs = np.stack([drawn(seed, 210, 300) for seed in range(6)])
    at, above = decided_at(runs, limit, 0.9, least=0, most=1, total=total)
    for run, when, is_above in zip(runs, at, above, strict=True):
        before = betting_interval(run[: when - 1], 0.9, least=0, most=1, total=total)
        assert before.low < limit <= before.high
        if when <= 300:
            now = betting_interval(run[:when], 0.9, least=0, most=1, total=total)
            assert now.low >= limit if is_above else now.high < limit
    assert limit != 0.55 or (above & (at <= 300)).all()
    assert limit != 0.85 or (~above & (at <= 300)).all()


@pytest.mark.parametrize(("seed", "has_missed"), [(0, False), (3, True)])
def test_an_end_steps_back_only_from_what_is_impossible(seed: int, has_missed: bool) -> None:
    # Where the low end has passed the truth, it is driven back when what remains can no longer make up for it.
    run = drawn(seed, 255, 300)
    found = [betting_interval(run[:n], 0.95, least=0, most=1, total=300) for n in range(1, 301)]
    lows, highs = np.array([(one.low, one.high) for one in found]).T
    least, most = (ends[0] for ends in certain_bounds(run[None], least=0, most=1, total=300))
    assert (lows[1:] >= np.minimum(lows[:-1], most[1:]) - 1e-9).all()
    assert (highs[1:] <= np.maximum(highs[:-1], least[1:]) + 1e-9).all()
    assert (np.diff(lows).min() < -1e-9) == has_missed


def test_looks() -> None:
    assert looks(10_000)[:15] == (*range(50, 501, 50), 550, 600, 650, 700, 750)
    assert looks(10_000)[-4:] == (7900, 8700, 9550, 10_000)
    assert looks(281) == (50, 100, 150, 200, 250, 281)
    assert (looks(1), looks(50), looks(51)) == ((1,), (50,), (50, 51))
    later = np.array(looks(100_000))[10:-1]
    assert (later % 50 == 0).all()
    assert 1.05 < (later[1:] / later[:-1]).min() <= (later[1:] / later[:-1]).max() < 1.15


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        ([], {}, "expected at least 1 value: nothing was measured, got none"),
        ([[1, 0]], {}, r"values must be one run \(n,\), got \(1, 2\)"),
        ([0, 2], {}, "values must lie in 0 to 1, got 0 to 2"),
        ([0, np.nan], {}, "values must lie in 0 to 1, got nan to nan"),
        ([0, 1, 1], {"total": 2}, "expected at most total = 2 values, got 3"),
        ([0, 1], {"least": 1}, "least must lie below most, got 1 and 1"),
        ([0, 1], {"confidence": 1.0}, "confidence must lie strictly between 0 and 1, got 1"),
    ],
)
def test_what_cannot_be_is_refused(values: list[float], changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        betting_interval(np.array(values), **{"confidence": 0.9, "least": 0, "most": 1, **changes})  # type: ignore[arg-type]


def test_no_looks_at_nothing() -> None:
    with pytest.raises(ValueError, match="total must be at least 1: nothing is measured, got 0"):
        looks(0)
