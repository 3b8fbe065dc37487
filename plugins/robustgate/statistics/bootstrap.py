"""Intervals for figures that have no formula of their own: how they vary when the samples are drawn again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustgate.statistics.proportion import Interval, normal_quantile, tail_of

RESAMPLES = 2000
# How many drawn rows are held at once.
ROOM = 2**22
# How many resamples must lie beyond an end for the end to be read off them.
RESOLVED = 10


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """Resamples of `n` samples, each `n` of them drawn with replacement.

    Which rows a resample holds depends on `n` and `seed` alone: whatever was measured on the same samples is resampled
    alike, and stays paired. Raises ValueError for less than one sample or resample. Source: Efron 1979, Ann. Stat. 7:1.
    """

    n: int
    seed: int
    resamples: int = RESAMPLES

    def __post_init__(self) -> None:
        for key, value in (("n", self.n), ("resamples", self.resamples)):
            if value < 1:
                raise ValueError(f"{key} must be at least 1, got {value}")

    def means(self, columns: NDArray[Any]) -> NDArray[np.float64]:
        """Return (1 + resamples, k) means of columns (n, k): first of the samples themselves, then of each resample."""
        values = np.asarray(columns, dtype=np.float64)
        return np.concatenate([weights @ values for weights in self._weights()]) / self.n

    def group_means(self, values: NDArray[Any], groups: NDArray[np.int64], count: int) -> NDArray[np.float64]:
        """Return (1 + resamples, count) means of `values` (n,) over each of the groups 0 to count - 1.

        NaN where a group has no sample, in all of them or in a resample.
        """
        order = np.argsort(groups, kind="stable")
        present, starts = np.unique(groups[order], return_index=True)
        sorted_values = np.asarray(values, dtype=np.float64)[order]
        means = np.full((1 + self.resamples, count), np.nan)
        row = 0
        for weights in self._weights():
            drawn = weights[:, order]
            sizes = np.add.reduceat(drawn, starts, axis=1)
            sums = np.add.reduceat(drawn * sorted_values, starts, axis=1)
            means[row : row + len(weights), present] = sums / np.where(sizes > 0, sizes, np.nan)
            row += len(weights)
        return means

    def _weights(self) -> Iterator[NDArray[np.float64]]:
        """Yield how often each sample is drawn, (some resamples, n); before all others, every sample once."""
        yield np.ones((1, self.n))
        draws, most = np.random.default_rng(self.seed), max(1, ROOM // self.n)
        for start in range(0, self.resamples, most):
            some = min(most, self.resamples - start)
            rows = draws.integers(self.n, size=(some, self.n)) + self.n * np.arange(some)[:, None]
            yield np.bincount(rows.ravel(), minlength=some * self.n).reshape(some, self.n).astype(np.float64)


def percentile_interval(figures: NDArray[np.float64], confidence: float) -> Interval:
    """Return between which two of the resamples' `figures` (resamples,) the share `confidence` of them lies.

    Its coverage is approximate: it is asked for where samples are many, covers less of few, and is a point where all
    resamples agree. A resample without a figure (NaN) counts as beyond both ends, which may then be infinite. Raises
    ValueError for a confidence that cannot be, and without figures. Source: Efron & Tibshirani 1993, An Introduction
    to the Bootstrap, 13.3.
    """
    if not len(figures):
        raise ValueError("expected the figures of at least one resample, got none")
    beyond = _beyond(len(figures), confidence)
    lows, highs = (np.sort(np.nan_to_num(figures, nan=end, posinf=np.inf, neginf=-np.inf)) for end in (-np.inf, np.inf))
    return Interval(low=float(lows[beyond]), high=float(highs[-1 - beyond]))


def bootstrap_interval(figures: NDArray[np.float64], confidence: float) -> Interval:
    """Return the interval of a figure: that of the samples, first in `figures` (1 + resamples,), then of each resample.

    The percentile interval where the resamples resolve its tails. Where they are too few, as when many findings share
    an error rate, it is the standard interval, the figure and z standard deviations of the resamples to each side, but
    never narrower than the resamples. Infinite where the samples have no figure (NaN), or more resamples than may lie
    beyond an end. Raises ValueError as `percentile_interval` does. Source: Efron & Tibshirani 1993, 13.
    """
    figure, resampled = float(figures[0]), figures[1:]
    percentile = percentile_interval(resampled, confidence)
    if _beyond(len(resampled), confidence) >= RESOLVED:
        return percentile
    if not np.isfinite([figure, percentile.low, percentile.high]).all():
        return Interval(low=-np.inf, high=np.inf)
    known = resampled[np.isfinite(resampled)]
    reach = normal_quantile(confidence) * float(known.std())
    return Interval(low=min(figure - reach, float(known.min())), high=max(figure + reach, float(known.max())))


def _beyond(resamples: int, confidence: float) -> int:
    """Return how many of the resamples may lie beyond each end."""
    return int(tail_of(confidence) * resamples + 1e-9)  # a tail of 0.05 is a hair less in binary
