"""Pixelation: a small image shown large (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        kept = KEPT.at(severity, min(height, width), self.table)
        # Whole numbers below 2**31 in doubles: every product and sum is exact, on any device, in any order.
        levels = (images.clamp(0, 1).double() * 255).round()
        shrunk = resize(levels, max(1, int(height * kept)), max(1, int(width * kept)))
        return (resize(shrunk, height, width) / 255).to(images.dtype)


def resize(levels: Tensor, height: int, width: int) -> Tensor:
    """Resample 8-bit levels (N, C, H, W), kept in float64, to (N, C, height, width) with Pillow's box filter.

    Rows first, then columns, each rounded to 8 bits, as in Pillow.
    """
    import torch

    def weights(before: int, after: int) -> Tensor:
        return torch.from_numpy(box_weights(before, after)).to(levels.device)

    across = _round(levels @ weights(levels.shape[3], width).T)
    return _round(weights(levels.shape[2], height) @ across)


def _round(fixed: Tensor) -> Tensor:
    return ((fixed + FIXED_POINT / 2) / FIXED_POINT).floor().clamp(0, 255)


def box_weights(before: int, after: int) -> NDArray[np.float64]:
    """Return (after, before): Pillow's weights from a line of `before` pixels to one of `after`, in fixed point.

    A pixel counts fully when its centre lies in the new pixel's box, which is never narrower than one old pixel, and
    not at all otherwise: there are no partial pixels at the edges of a box.
    """
    import numpy as np

    scale = before / after
    reach = max(scale, 1.0)
    centres = (np.arange(after)[:, None] + 0.5) * scale
    offsets = (np.arange(before)[None, :] - centres + 0.5) / reach
    inside = ((offsets > -0.5) & (offsets <= 0.5)).astype(np.float64)
    fixed: NDArray[np.float64] = np.floor(inside / inside.sum(axis=1, keepdims=True) * FIXED_POINT + 0.5)
    return fixed
