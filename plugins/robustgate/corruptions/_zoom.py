"""Enlarging the centre of an image by linear interpolation, as ``scipy.ndimage.zoom`` of order 1 does it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def centre(side: int, factor: float) -> tuple[int, int]:
    """Return where the central part of a line of `side` pixels begins that is to be enlarged, and its length."""
    kept = math.ceil(side / factor)
    return (side - kept) // 2, kept


def enlarging(side: int, factor: float) -> NDArray[np.float64]:
    """Return (side, kept): the weights that the central part's pixels have in its enlargement.

    The part's first and last pixels become those of the enlarged line, whose surplus is cut off evenly. Both axes of
    an image are enlarged on their own: ``enlarging(height, f) @ part @ enlarging(width, f).T``.
    """
    import numpy as np

    kept = centre(side, factor)[1]
    enlarged = round(kept * factor)
    surplus = (enlarged - side) // 2
    places = np.arange(surplus, surplus + side) * ((kept - 1) / max(enlarged - 1, 1))
    distances = np.abs(places[:, None] - np.arange(kept))
    weights: NDArray[np.float64] = np.maximum(1 - distances, 0)
    return weights
