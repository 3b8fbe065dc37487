"""Treatments ranked over blocks, such as compressions over models: whether they differ, and which from which."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from robustgate.core.assessments import Ranking


def ranking(figures: ArrayLike, *, maximised: bool, error: float = 0.05) -> Ranking:
    """Rank the treatments of `figures` (blocks, treatments), by Friedman's test and Nemenyi's after it.

    The statistic is corrected for ties; its distribution is chi-squared in the limit of many blocks, and with few the
    p-value is approximate. `error` is the chance that any two of equal treatments seem to differ. Raises ValueError
    with fewer than two blocks or three treatments, with a figure missing, and where all are equal in every block.
    Source: Demsar 2006, JMLR 7:1, 3.2.
    """
    from scipy import stats  # a second to import, and few runs rank

    given = np.asarray(figures, dtype=np.float64)
    if given.ndim != 2 or given.shape[0] < 2 or given.shape[1] < 3:
        raise ValueError(f"expected figures of at least 2 blocks and 3 treatments, got an array {given.shape}")
    if not np.isfinite(given).all():
        raise ValueError("figures must be finite numbers: a missing one has no rank")
    if (np.ptp(given, axis=1) == 0).all():
        raise ValueError("the treatments are equal in every block: there is nothing to rank")
    blocks, treatments = given.shape
    ranks = stats.rankdata(-given if maximised else given, axis=1).mean(axis=0)
    test = stats.friedmanchisquare(*given.T)
    apart = _critical_difference(blocks, treatments, error)
    return Ranking(
        mean_ranks=tuple(map(float, ranks)),
        statistic=float(test.statistic),
        p_value=float(test.pvalue),
        critical_difference=apart,
        groups=_groups(ranks.tolist(), apart),
    )


def _critical_difference(blocks: int, treatments: int, error: float) -> float:
    """Return how far two mean ranks must lie apart, by the range of normal variables."""
    from scipy import stats

    quantile = float(stats.studentized_range.ppf(1 - error, treatments, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(treatments * (treatments + 1) / (6 * blocks))


def _groups(ranks: list[float], apart: float) -> tuple[tuple[int, ...], ...]:
    """Return each run of treatments, in order of their ranks, that spans less than `apart` and is part of no other."""
    order = sorted(range(len(ranks)), key=lambda index: ranks[index])
    found: list[tuple[int, ...]] = []
    for start, first in enumerate(order):
        run = tuple(index for index in order[start:] if ranks[index] - ranks[first] < apart)
        if len(run) > 1 and not (found and set(run) <= set(found[-1])):
            found.append(run)
    return tuple(found)
