"""Several objectives at once: which points no other beats, how much they beat together, and where the front bends.

Points are arrays (N, D), a row for each and a column for each objective; `maximised` says of each objective whether
more of it is better. A figure that is missing or infinite is refused: no order is guessed for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def non_dominated(points: ArrayLike, maximised: Sequence[bool]) -> NDArray[np.bool_]:
    """Return (N,) which points are on the Pareto front: none is as good in all objectives and better in one.

    Points that are equal in all do not beat one another: they are on the front together, or not at all.
    """
    return _unbeaten(_gains(points, maximised))


def hypervolume(points: ArrayLike, maximised: Sequence[bool], reference: Sequence[float]) -> float:
    """Return the exact volume of all that is worse than one of the points, and better than `reference` (D,).

    A point that is worse than the reference in an objective, or equal, adds nothing. Source: Zitzler & Thiele 1998,
    PPSN V, 292; sliced as by While, Bradstreet & Barone 2012, IEEE TEVC 16:86.
    """
    gains, origin = _gains(points, maximised), _gains([reference], maximised)[0]
    return _volume(np.maximum(gains - origin, 0))


def knee(front: ArrayLike, maximised: Sequence[bool]) -> int:
    """Return the index of the front's knee, the first of several: past it, a little of one costs much of others.

    Each objective runs from 0, the worst on the front, to 1, the best; the knee lies farthest from the plane through
    the points that are best in one objective and worst in the others, towards the best. With two objectives these are
    the ends of the front, and the plane is the line between them (Das 1999, Struct. Optim. 18:107). With more, a front
    need not reach those points; but where one point is best in two objectives, its own ends give no plane at all.
    """
    gains = _gains(front, maximised)
    span = np.ptp(gains, axis=0)
    scaled = (gains - gains.min(axis=0)) / np.where(span > 0, span, 1)
    # The plane is that of the sum 1; rounding must not choose between points that are equally far from it.
    return int(np.argmax(scaled.sum(axis=1).round(12)))


def _gains(points: ArrayLike, maximised: Sequence[bool]) -> NDArray[np.float64]:
    """Return the points with every objective such that more is better."""
    given = np.asarray(points, dtype=np.float64)
    if given.ndim != 2 or not given.size or given.shape[1] != len(maximised):
        raise ValueError(f"expected at least one point of {len(maximised)} objectives, got an array {given.shape}")
    if not np.isfinite(given).all():
        raise ValueError("points must be finite numbers: a missing figure has no place in an order")
    return np.where(np.asarray(maximised, dtype=bool), given, -given)


def _unbeaten(gains: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.array([not ((gains >= own).all(axis=1) & (gains > own).any(axis=1)).any() for own in gains], dtype=bool)


def _volume(gains: NDArray[np.float64]) -> float:
    """Return the volume of the union of the boxes from 0 to each point.

    In ascending order of the last objective a point adds its own box, less what later points cover of it; they reach
    as far as it does in the last objective, so that what they cover is a volume in one dimension less.
    """
    if gains.shape[1] == 1:
        return float(gains.max(initial=0.0))
    gains = np.unique(gains[_unbeaten(gains)], axis=0)
    gains = gains[np.argsort(gains[:, -1], kind="stable")]
    return sum(
        float(own[-1]) * (float(own[:-1].prod()) - _volume(np.minimum(gains[index + 1 :, :-1], own[:-1])))
        for index, own in enumerate(gains)
    )
