"""Pixelation: a small image shown large (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from robustgate.core.severity import SeverityTable, Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["Pixelate"]

# The share of the side that the shrunk image keeps.
KEPT = SeverityTable(cifar=(0.95, 0.9, 0.85, 0.75, 0.65), imagenet=(0.6, 0.5, 0.4, 0.3, 0.25))

FIXED_POINT = 1 << 22
"""Pillow's unit of a resampling weight for 8-bit images."""


@dataclass(frozen=True, kw_only=True)
class Pixelate:
    """Shrink the image with a box filter and enlarge it again. As published, where Pillow does it, to the last bit."""

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the coarser images (N, 3, H, W), on 8-bit levels. Raises MeasurementError as severity is not 1 to 5.

        Values are rounded to 8 bits and clipped to [0, 1] before they are shrunk.
        """
        height, width = images.shape[-2:]
        shrunk = self._shrink(images.clamp(0, 1).mul_(255).round_(), severity)
        return resize(shrunk.div_(255), height, width)

    def apply_to_levels(self, levels: Tensor, severity: int, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the coarser images, uint8 (N, 3, H, W), of such."""
        import torch

        height, width = levels.shape[-2:]
        shrunk = self._shrink(levels.float(memory_format=torch.contiguous_format), severity)
        return resize(shrunk.to(torch.uint8), height, width)

    def _shrink(self, levels: Tensor, severity: int) -> Tensor:
        height, width = levels.shape[-2:]
        kept = KEPT.at(severity, min(height, width), self.table)
        return resize(levels, max(1, int(height * kept)), max(1, int(width * kept)))


def resize(levels: Tensor, height: int, width: int) -> Tensor:
    """Resample 8-bit levels (N, C, H, W), in floating point, to (N, C, height, width) with Pillow's box filter.

    Rows first, then columns, each rounded to 8 bits, as in Pillow. What only grows is copied: it may have any values.
    """
    return _resize(_resize(levels, width, axis=3), height, axis=2)


def _resize(levels: Tensor, after: int, *, axis: Literal[2, 3]) -> Tensor:
    import torch

    before = levels.shape[axis]
    first, count, weight = (torch.from_numpy(array).to(levels.device) for array in boxes(before, after))
    column = (-1, 1) if axis == 2 else (-1,)

    def pick(places: Tensor) -> Tensor:
        # Along its innermost axis, `gather` is five times as fast as `index_select`; along others it is slower.
        if axis == 3:
            return levels.gather(3, places.expand(*levels.shape[:3], -1))
        return levels.index_select(2, places)

    total, largest = pick(first), int(count.max())
    for further in range(1, largest):
        counts = (count > further).to(levels.dtype).view(column)
        total.addcmul_(pick((first + further).clamp_(max=before - 1)), counts)
    if largest == 1:
        return total
    return total.mul_(weight.to(levels.dtype).view(column)).add_(0.5).floor_()


@lru_cache(maxsize=32)
def boxes(before: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return which of `before` pixels in a line make each of `after`: the first, how many, and the weight of each.

    A pixel counts fully when its centre lies in the new pixel's box, which is never narrower than one old pixel, and
    not at all otherwise: there are no partial pixels at the edges of a box. Weights are Pillow's, of 22 bits: single
    precision holds their sums exactly enough to round them alike.
    """
    import numpy as np

    scale = before / after
    reach = max(scale, 1.0)
    centres = (np.arange(after)[:, None] + 0.5) * scale
    offsets = (np.arange(before)[None, :] - centres + 0.5) / reach
    inside = (offsets > -0.5) & (offsets <= 0.5)
    count = inside.sum(axis=1)
    return inside.argmax(axis=1), count, np.floor(FIXED_POINT / count + 0.5) / FIXED_POINT
