"""Pixelation: a small image shown large (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from robustgate.core.severity import SeverityTable, Table

if TYPE_CHECKING:
    import numpy as np
    import torch
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
        shrunk = resize(images.clamp(0, 1).mul_(255).round_(), *self._small(height, width, severity))
        return resize(shrunk.div_(255), height, width)

    def apply_to_levels(self, levels: Tensor, severity: int, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the coarser images, uint8 (N, 3, H, W), of such. Both lie best in memory as (N, H, W, 3)."""
        import torch

        height, width = levels.shape[-2:]
        rows = levels.permute(0, 2, 3, 1).flatten(2)
        shrunk = resize(rows.float(), *self._small(height, width, severity), values=3)
        # By way of 16 bits, which is four times as fast.
        rows = resize(shrunk.to(torch.int16).to(torch.uint8), height, width, values=3)
        return rows.view(-1, height, width, 3).permute(0, 3, 1, 2)

    def _small(self, height: int, width: int, severity: int) -> tuple[int, int]:
        kept = KEPT.at(severity, min(height, width), self.table)
        return max(1, int(height * kept)), max(1, int(width * kept))


def resize(levels: Tensor, height: int, width: int, values: int = 1) -> Tensor:
    """Resample 8-bit levels (..., H, W), in floating point, to (..., height, width) with Pillow's box filter.

    Rows first, then columns, each rounded to 8 bits, as in Pillow. What only grows is copied: it may have any values.
    With `values` > 1 a pixel is so many neighbours in a row, and sizes are (..., H, W * values).
    """
    return _resize(_resize(levels, width, -1, values), height, -2, 1)


def _resize(levels: Tensor, after: int, axis: Literal[-2, -1], values: int) -> Tensor:
    before = levels.shape[axis] // values
    fewest, first, further, weight = _plan(before, after, axis, values, levels.dtype, levels.device)
    # What every box has is summed at all places at once: adding is far cheaper than fetching.
    length = (before - fewest + 1) * values
    pieces = [levels.narrow(axis, shift * values, length) for shift in range(fewest)]
    windows = pieces[0] if fewest == 1 else pieces[0] + pieces[1]
    for piece in pieces[2:]:
        windows.add_(piece)
    total = _fetch(windows, first, axis)
    for places, present in further:
        total.addcmul_(_fetch(levels, places, axis), present)
    return total if weight is None else total.mul_(weight).add_(0.5).floor_()


def _fetch(lines: Tensor, places: Tensor, axis: Literal[-2, -1]) -> Tensor:
    # Along its innermost axis, `gather` is five times as fast as `index_select`; along others it is slower.
    if axis == -1:
        return lines.gather(-1, places.expand(*lines.shape[:-1], -1))
    return lines.index_select(-2, places)


@lru_cache(maxsize=32)
def _plan(
    before: int, after: int, axis: Literal[-2, -1], values: int, dtype: torch.dtype, device: torch.device
) -> tuple[int, Tensor, list[tuple[Tensor, Tensor]], Tensor | None]:
    # How many pixels every box has; the first of each; which others are in some boxes, and in which; their weights.
    import torch

    first, count, weight = (torch.from_numpy(array) for array in boxes(before, after))
    fewest, most = int(count.min()), int(count.max())

    def places(pixels: Tensor) -> Tensor:
        return (pixels[:, None] * values + torch.arange(values)).flatten().to(device)

    def along(numbers: Tensor) -> Tensor:
        return numbers.repeat_interleave(values).view((-1,) if axis == -1 else (-1, 1)).to(device, dtype)

    further = [(places((first + shift).clamp_(max=before - 1)), along(count > shift)) for shift in range(fewest, most)]
    return fewest, places(first), further, along(weight) if most > 1 else None


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
