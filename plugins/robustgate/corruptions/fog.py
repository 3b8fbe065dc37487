"""Fog: a cloudy layer over the image (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["Fog"]

# Weight of the layer, and the decay of its roughness from one scale to the next finer one.
LAYER = SeverityTable(
    cifar=((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
    imagenet=((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
)


@dataclass(frozen=True, kw_only=True)
class Fog:
    """Add one grey cloud layer to all channels, then scale back to the image's own maximum.

    As published, but for the random stream, and that the layer fits images of any size.
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return the images in fog (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5."""
        height, width = images.shape[-2:]
        amount, decay = LAYER.at(severity, min(height, width), self.table)
        side = 1 << (max(height, width) - 1).bit_length()
        layer = plasma(draws, side, decay)[:, None, :height, :width]
        brightest = images.amax(dim=(1, 2, 3), keepdim=True)
        return (images + amount * layer) * brightest / (brightest + amount)


def plasma(draws: Draws, side: int, decay: float) -> Tensor:
    """Return one periodic cloud a sample, (N, side, side), scaled to [0, 1]; `side` is a power of two.

    Diamond-square: every scale halves the grid and displaces the new points from the mean of their four neighbours.
    The published wibble multiplies a number drawn from [-wibble, wibble], so that displacements shrink by the
    *square* of `decay` from scale to scale.
    """
    numbers = draws.uniform(side * side - 1) * 2 - 1
    cloud = numbers.new_zeros(len(numbers), side, side)
    spread, used, step = 1.0, 0, side
    while step >= 2:
        half, cells = step // 2, side // step
        noise = spread * numbers[:, used : used + 3 * cells * cells].reshape(-1, 3, cells, cells)
        corners = cloud[:, ::step, ::step]
        beside, below = corners.roll(-1, 2), corners.roll(-1, 1)
        centres = (corners + beside + below + below.roll(-1, 2)) / 4 + noise[:, 0]
        cloud[:, half::step, half::step] = centres
        cloud[:, ::step, half::step] = (corners + beside + centres + centres.roll(1, 1)) / 4 + noise[:, 1]
        cloud[:, half::step, ::step] = (corners + below + centres + centres.roll(1, 2)) / 4 + noise[:, 2]
        spread, used, step = spread / decay**2, used + 3 * cells * cells, half
    cloud = cloud - cloud.amin(dim=(1, 2), keepdim=True)
    # A cloud of one pixel is flat: no fog rather than 0/0.
    return cloud / cloud.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
