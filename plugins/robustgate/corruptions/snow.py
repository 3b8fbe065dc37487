"""Snow: flakes fall across a paler image (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from robustgate.core.severity import SeverityTable, Table
from robustgate.corruptions._motion import motion_blur
from robustgate.corruptions._zoom import centre, enlarging

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["Snow"]


class Fall(NamedTuple):
    """One severity of snow.

    A flake's brightness is normal (`mean`, `deviation`), it is `zoom` pixels large, there is none below `threshold`,
    and it falls as a motion blur of `radius` and `sigma`. `kept` is the share of the image that is not whitened.
    """

    mean: float
    deviation: float
    zoom: float
    threshold: float
    radius: int
    sigma: float
    kept: float


FALL = SeverityTable(
    cifar=(
        Fall(0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
        Fall(0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
        Fall(0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
        Fall(0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
        Fall(0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
    ),
    imagenet=(
        Fall(0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
        Fall(0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
        Fall(0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
        Fall(0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
        Fall(0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
    ),
)

# ITU-R BT.601, as OpenCV has it.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Snow:
    """Whiten the image, and add a layer of falling flakes and the same layer turned by half a circle.

    As published, but for the random stream.
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return the images in snow (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5."""
        height, width = images.shape[-2:]
        fall = FALL.at(severity, min(height, width), self.table)
        layer = flakes(draws, height, width, fall)
        red, green, blue = images.unbind(1)
        # 1.5 times the grey picture, and half of white.
        pale = (red * (1.5 * LUMA[0])).add_(green, alpha=1.5 * LUMA[1]).add_(blue, alpha=1.5 * LUMA[2]).add_(0.5)
        snowy = images.maximum(pale[:, None]).mul_(1 - fall.kept).add_(images, alpha=fall.kept)
        return snowy.add_(layer + layer.flip(2, 3))


def flakes(draws: Draws, height: int, width: int, fall: Fall) -> Tensor:
    """Return one layer of falling flakes a sample, (N, 1, height, width) in [0, 1], on 8-bit levels."""
    import torch

    # Only the centre of the published layer is enlarged: the rest of it need not be drawn.
    layer = draws.normal(centre(height, fall.zoom)[1], centre(width, fall.zoom)[1]).mul_(fall.deviation).add_(fall.mean)
    if fall.zoom != 1:
        down, across = (torch.from_numpy(enlarging(side, fall.zoom)).to(layer) for side in (height, width))
        layer = down @ layer @ across.T
    layer = torch.where(layer < fall.threshold, 0, layer).clamp_(0, 1)[:, None]
    angles = draws.uniform(1)[:, 0] * 90 - 135
    return motion_blur(layer, angles, fall.radius, fall.sigma).mul_(255).round_().div_(255)
