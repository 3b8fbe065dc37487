"""A confidence sequence for a mean of bounded values, seen one after another: valid whenever one looks and stops.

One mechanism for a proportion (values 0 and 1) and for a paired drop (values 1 for lost, -1 for gained, else 0), for
samples of a distribution and for samples drawn without replacement from a finite test set. Sources: Waudby-Smith &
Ramdas 2024, J. R. Stat. Soc. B 86:1 (arXiv 2010.09686), and without replacement 2020, NeurIPS 33 (arXiv 2006.04347).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustgate.statistics.proportion import Interval, tail_of

# Bets and the share of the stake on each. A bet is best where it is the gap over the variance (Kelly 1956): 0.36 finds
# 5 points of an accuracy near 0.85, 0.18 finds 2, 0.05 less than 1; 1 and 3 find drops on which few samples disagree.
BETS = ((0.05, 0.05), (0.18, 0.36), (0.36, 0.50), (1.0, 0.08), (3.0, 0.01))
# What share of its wealth a bet may lose on one sample: less than all, or no later sample could bring any back.
MOST_LOST = 0.95
FIRST_LOOKS, LOOK_EVERY, GROWTH = 500, 50, 1.1
BISECTIONS = 40
# How many values are held at once: few enough to stay in a processor's cache.
ROOM = 2**17


def betting_interval(
    values: NDArray[Any], confidence: float, *, least: float, most: float, total: int | None = None
) -> Interval:
    """Return the interval that the first n `values` (n,), each in [`least`, `most`], give of the mean of all.

    All are a distribution, or with `total` a finite population from which the values were drawn one by one in random
    order: the interval then lies within what the values not drawn leave possible, and is a point when none is left.
    The chance that the interval after any number of values ever misses is at most 1 - `confidence`, half at each end.
    Raises ValueError for values, a range, a total or a confidence that cannot be.
    """
    check_values(values, least=least, most=most, total=total)
    if values.ndim != 1:
        raise ValueError(f"values must be one run (n,), got {values.shape}")
    stake, run = tail_of(confidence), values[None].astype(np.float64)
    lows, highs = certain_bounds(run, least=least, most=most, total=total)
    low = _low_end(run, stake, float(lows[0, -1]), float(highs[0, -1]), least=least, total=total)
    high = 0.0 - _low_end(-run, stake, -float(highs[0, -1]), -float(lows[0, -1]), least=-most, total=total)
    # The ends can pass each other only where one has missed, and nothing says which: what lies between stays open.
    return Interval(low=min(low, high), high=max(low, high))


def decided_at(
    values: NDArray[Any], limit: float, confidence: float, *, least: float, most: float, total: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return for each run in `values` (runs, n) when its `betting_interval` is first on one side of `limit`, and which.

    That is the number of values after which the low end has reached the limit or the high end lies below it, n + 1 if
    neither happens, and whether it was the low end. Raises ValueError as `betting_interval` does.
    """
    check_values(values, least=least, most=most, total=total)
    runs, n = values.shape
    enough = 1 / tail_of(confidence)
    at, above = np.full(runs, n + 1), np.zeros(runs, dtype=np.bool_)
    for length in (n // 16, n // 4, n):  # most runs are decided early, and need not be followed to the end
        left, size = np.flatnonzero(at > n), ROOM // max(length, 1) + 1
        for some in (left[start : start + size] for start in range(0, len(left), size)):
            seen = values[some, :length].astype(np.float64)
            lows, highs = certain_bounds(seen, least=least, most=most, total=total)
            over = (_wealth(seen, limit, least=least, total=total) >= enough) | (lows >= limit)
            under = (_wealth(-seen, -limit, least=-most, total=total) >= enough) | (highs < limit)
            # A last column that is always true: where nothing before it is, nothing is decided.
            first = np.argmax(np.pad(over | under, ((0, 0), (0, 1)), constant_values=True), axis=1)
            found = first < length
            at[some[found]] = first[found] + 1
            above[some[found]] = over[found, first[found]]
    return at, above


def certain_bounds(
    values: NDArray[Any], *, least: float, most: float, total: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two arrays (runs, n): from where to where the mean of all lies for certain after each of the `values`."""
    if total is None:
        return np.full(values.shape, float(least)), np.full(values.shape, float(most))
    sums, left = np.cumsum(values, axis=1, dtype=np.float64), total - np.arange(1, values.shape[1] + 1)
    return (sums + least * left) / total, (sums + most * left) / total


def looks(total: int) -> tuple[int, ...]:
    """Return after how many of `total` samples one looks: every 50 up to 500, then each 10 % later, and after all."""
    if total < 1:
        raise ValueError(f"total must be at least 1: nothing is measured, got {total}")
    found, look = [], LOOK_EVERY
    while look < total:
        found.append(look)
        further = look + LOOK_EVERY if look < FIRST_LOOKS else look * GROWTH
        look = round(further / LOOK_EVERY) * LOOK_EVERY
    return (*found, total)


def check_values(values: NDArray[Any], *, least: float, most: float, total: int | None) -> None:
    """Raise ValueError unless there are `values`, no more than `total`, all in a range from `least` to `most`."""
    if not least < most:
        raise ValueError(f"least must lie below most, got {least:g} and {most:g}")
    if not values.size:
        raise ValueError("expected at least 1 value: nothing was measured, got none")
    if not (values.min() >= least and values.max() <= most):
        raise ValueError(f"values must lie in {least:g} to {most:g}, got {values.min():g} to {values.max():g}")
    if total is not None and values.shape[-1] > total:
        raise ValueError(f"expected at most total = {total} values, got {values.shape[-1]}")


def _wealth(values: NDArray[np.float64], mean: float, *, least: float, total: int | None) -> NDArray[np.float64]:
    """Return what a stake of 1 against "the mean of all is at most `mean`" has grown to after each value (runs, n).

    Where that is true, each value is expected to be at most m_t = (N mean - the sum before) / (N - t + 1), a factor
    1 + b_t (x_t - m_t) with b_t ≥ 0 fixed before x_t at most 1, and the wealth ever reaches 1/a with a chance of at
    most a (Ville 1939).

    It falls as `mean` rises, so that an end found at one mean holds for all beyond it: m_t rises with `mean`, and the
    factor falls with m_t, both where b_t is the bet, free of m_t, and where b_t = c / (m_t - least), when it is
    1 - c + c (x_t - least) / (m_t - least); it is continuous where the two meet. All factors are above 0.
    """
    n = values.shape[1]
    left: int | NDArray[np.int64] = 1
    expected = np.full_like(values, mean)
    growth: float | NDArray[np.float64] = 1.0
    if total is not None:
        left = total - np.arange(n)
        expected = (total * mean - (np.cumsum(values, axis=1) - values)) / left
        growth = total / left  # the values not drawn vary less about m_t the fewer they are
    highest_bet = MOST_LOST / np.maximum(expected - least, np.finfo(float).tiny)
    surprise = values - expected
    wealth = np.zeros_like(values)
    for bet, share in BETS:
        factors = np.minimum(bet * growth, highest_bet)
        factors *= surprise
        factors += 1
        with np.errstate(over="ignore"):  # wealth beyond all numbers is infinite, and has won
            np.cumprod(factors, axis=1, out=factors)
        factors *= share
        wealth += factors
    return wealth


def _low_end(
    run: NDArray[np.float64], stake: float, low: float, high: float, *, least: float, total: int | None
) -> float:
    """Return the largest mean in [low, high] that some bet of `stake` on `run` (1, n) has ever rejected, or `low`."""

    def is_rejected(mean: float) -> bool:
        return bool(_wealth(run, mean, least=least, total=total).max() >= 1 / stake)

    if not is_rejected(low):
        return low
    if is_rejected(high):
        return high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_rejected(middle) else (low, middle)
    return low
