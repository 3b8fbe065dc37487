"""What a test set can show: the smallest difference from a limit that so many samples resolve, and the reverse.

A difference is seen where the limit lies outside the two-sided interval at `confidence`, and is resolved where that
happens with the probability `power`. Normal approximations; sources: Connor 1987, Biometrics 43:207, for pairs, and
Fleiss, Levin & Paik 2003, Statistical Methods for Rates and Proportions, 3rd edition, chapter 2, for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import special

from robustgate.statistics.proportion import normal_quantile

POWER = 0.8


def smallest_drop(n: int, disagreement: float, confidence: float, power: float = POWER) -> float:
    """Return the smallest distance of a true drop from its limit that `n` pairs resolve; infinite where there is none.

    `disagreement` is the share of samples on which one of the two is right and the other wrong, and at least the drop.
    Raises ValueError for what cannot be.
    """
    return _smallest(n, 1.0, lambda drop: _pairs(drop, disagreement, confidence, power))


def samples_needed(drop: float, disagreement: float, confidence: float, power: float = POWER) -> int:
    """Return how many pairs resolve a true drop at a distance of `drop` from its limit; the rest as `smallest_drop`."""
    return math.ceil(_pairs(drop, disagreement, confidence, power))


def smallest_gap(n: int, limit: float, confidence: float, power: float = POWER) -> float:
    """Return the smallest distance of a true proportion from its `limit` that `n` samples resolve; infinite for none.

    It is the distance towards 1/2, where proportions vary most. Raises ValueError for what cannot be.
    """
    return _smallest(n, max(limit, 1 - limit), lambda gap: _samples(gap, limit, confidence, power))


def samples_for_gap(gap: float, limit: float, confidence: float, power: float = POWER) -> int:
    """Return how many samples resolve a true proportion at a distance of `gap` from its `limit`, as `smallest_gap`."""
    return math.ceil(_samples(gap, limit, confidence, power))


def _pairs(drop: float, disagreement: float, confidence: float, power: float) -> float:
    """Return the pairs that resolve `drop`, as a real number: it falls as the drop grows."""
    _check_share("drop", drop)
    _check_share("disagreement", disagreement)
    # Samples on which the two agree move no drop: as many as the drop must disagree.
    discordant = max(disagreement, drop)
    reach = _reach(discordant, discordant - drop * drop, confidence, power)
    return (reach / drop) ** 2 if drop else math.inf


def _samples(gap: float, limit: float, confidence: float, power: float) -> float:
    """Return the samples that resolve `gap`, as a real number: it falls as the gap grows."""
    _check_share("limit", limit)
    truth = limit - gap if limit > 0.5 else limit + gap
    if gap < 0 or not 0 <= truth <= 1:
        raise ValueError(f"gap must be at least 0 and leave a proportion, got {gap:g} from {limit:g}")
    reach = _reach(limit * (1 - limit), truth * (1 - truth), confidence, power)
    return (reach / gap) ** 2 if gap else math.inf


def _reach(under_limit: float, under_truth: float, confidence: float, power: float) -> float:
    """Return how far the truth must lie from the limit for one sample, given the variance of one under either."""
    if not 0.5 <= power < 1:
        raise ValueError(f"power must be at least 0.5 and below 1, got {power:g}")
    return normal_quantile(confidence) * math.sqrt(under_limit) + float(special.ndtri(power)) * math.sqrt(under_truth)


def _smallest(n: int, largest: float, samples: Callable[[float], float]) -> float:
    """Return the difference, up to `largest`, that takes `n` samples."""
    from scipy import optimize  # a fifth of a second to import

    if n < 1:
        raise ValueError(f"n must be at least 1: nothing was measured, got {n}")
    if samples(largest) > n:
        return math.inf
    return float(optimize.brentq(lambda difference: math.log(samples(difference) / n), 1e-9, largest, xtol=1e-12))


def _check_share(name: str, value: float) -> None:
    """Raise ValueError unless `value` lies in 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in 0 to 1, got {value:g}")
