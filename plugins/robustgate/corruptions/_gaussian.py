"""Gaussian smoothing of a batch, as SciPy's gaussian_filter defines it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Border = Literal["nearest", "reflect"]
"""What lies outside a line: its last value again and again, or its mirror image, the last value twice."""

BLOCK = 32
"""The number of values of a line that are made by one product: 32 is the fastest from 32 to 224 px."""


def gaussian(images: Tensor, sigma: float, *, truncate: float = 4.0, mode: Border = "nearest") -> Tensor:
    """Return images (..., H, W) smoothed along both axes by a Gaussian of `sigma` > 0 pixels, in their own type.

    The bell is cut off at `truncate` sigmas, rounded to whole pixels, and its weights sum to 1.
    """
    import torch

    height, width = images.shape[-2:]
    bell = weights(sigma, truncate)
    reach = len(bell) // 2
    down, right = (torch.from_numpy(matrix(side, bell, mode)).to(images) for side in (height, width))
    lines = images.reshape(-1, width)
    across, smooth = torch.empty_like(lines), torch.empty_like(images, memory_format=torch.contiguous_format)
    for block, near in _blocks(width, reach):
        across[:, block] = lines[:, near] @ right[block, near].T
    across = across.view(images.shape)
    for block, near in _blocks(height, reach):
        smooth[..., block, :] = down[block, near] @ across[..., near, :]
    return smooth


def _blocks(side: int, reach: int) -> list[tuple[slice, slice]]:
    """Return the blocks of a line, each with the part of the line that it is made of."""
    starts = range(0, side, BLOCK)
    return [(slice(one, one + BLOCK), slice(max(0, one - reach), one + BLOCK + reach)) for one in starts]


def weights(sigma: float, truncate: float) -> NDArray[np.float64]:
    """Return the 2r + 1 weights of a Gaussian cut off at r = `truncate` sigmas; their sum is 1."""
    import numpy as np

    reach = int(truncate * sigma + 0.5)
    bell = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    normalised: NDArray[np.float64] = bell / bell.sum()
    return normalised


def matrix(side: int, bell: NDArray[np.float64], mode: Border) -> NDArray[np.float64]:
    """Return the (side, side) matrix that smooths a line of `side` pixels.

    The weight of what lies outside the line is added to the pixel that is repeated there.
    """
    import numpy as np

    reach = len(bell) // 2
    places = np.arange(side)[:, None] + np.arange(-reach, reach + 1)
    if mode == "nearest":
        sources = places.clip(0, side - 1)
    else:
        sources = places % (2 * side)
        sources = np.minimum(sources, 2 * side - 1 - sources)
    smoothing = np.zeros((side, side))
    np.add.at(smoothing, (np.arange(side)[:, None], sources), bell)
    return smoothing
