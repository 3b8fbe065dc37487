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
        import torch

        height, width = images.shape[-2:]
        amount, decay = LAYER.at(severity, min(height, width), self.table)
        side = 1 << (max(height, width) - 1).bit_length()
        layer = plasma(draws, side, decay)[:, None, :height, :width]
        brightest = images.amax(dim=(1, 2, 3), keepdim=True)
        return torch.add(images, layer, alpha=amount).mul_(brightest / (brightest + amount))


def plasma(draws: Draws, side: int, decay: float) -> Tensor:
    """Return one periodic cloud a sample, (N, side, side), scaled to [0, 1]; `side` is a power of two.

    Diamond-square: every scale halves the grid and displaces the new points from the mean of their four neighbours.
    The published wibble multiplies a number drawn from [-wibble, wibble], so that displacements shrink by the
    *square* of `decay` from scale to scale.
    """
    import torch

    numbers = draws.integers(side * side - 1).to(torch.float32)
    cloud = numbers.new_zeros(len(numbers), 1, 1)
    spread, used, cells = 2.0**-15, 0, 1
    while cells < side:
        noise = numbers[:, used : used + 3 * cells * cells].view(-1, 3, cells, cells)
        beside, below = cloud + cloud.roll(-1, 2), cloud + cloud.roll(-1, 1)
        centres = (beside + beside.roll(-1, 1)).mul_(0.25).add_(noise[:, 0], alpha=spread)
        tops = beside.add_(centres).add_(centres.roll(1, 1)).mul_(0.25).add_(noise[:, 1], alpha=spread)
        lefts = below.add_(centres).add_(centres.roll(1, 2)).mul_(0.25).add_(noise[:, 2], alpha=spread)
        finer = numbers.new_empty(len(numbers), cells, 2, cells, 2)
        for row, column, points in ((0, 0, cloud), (0, 1, tops), (1, 0, lefts), (1, 1, centres)):
            finer[:, :, row, :, column] = points
        spread, used, cells = spread / decay**2, used + 3 * cells * cells, 2 * cells
        cloud = finer.view(-1, cells, cells)
    cloud -= cloud.amin(dim=(1, 2), keepdim=True)
    # A cloud of one pixel is flat: no fog rather than 0/0.
    return cloud.div_(cloud.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12))
