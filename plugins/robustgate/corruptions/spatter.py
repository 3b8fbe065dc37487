"""Spatter: drops of water or mud on the lens (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table
from robustgate.corruptions._gaussian import gaussian
from robustgate.corruptions._water import relief

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["Spatter"]

# Of the liquid: mean and standard deviation of its normal numbers, the sigma that smooths them, the threshold above
# which there is any; then the strength of water's light or the sigma that smooths mud, and which of the two it is.
LIQUID = SeverityTable(
    cifar=(
        (0.62, 0.1, 0.7, 0.7, 0.5, "water"),
        (0.65, 0.1, 0.8, 0.7, 0.5, "water"),
        (0.65, 0.3, 1.0, 0.69, 0.5, "water"),
        (0.65, 0.1, 0.7, 0.69, 0.6, "mud"),
        (0.65, 0.1, 0.5, 0.68, 0.6, "mud"),
    ),
    imagenet=(
        (0.65, 0.3, 4.0, 0.69, 0.6, "water"),
        (0.65, 0.3, 3.0, 0.68, 0.6, "water"),
        (0.65, 0.3, 2.0, 0.68, 0.5, "water"),
        (0.65, 0.3, 1.0, 0.65, 1.5, "mud"),
        (0.67, 0.4, 1.0, 0.65, 1.5, "mud"),
    ),
)

PALE_TURQUOISE = (175 / 255, 238 / 255, 238 / 255)
BROWN = (63 / 255, 42 / 255, 20 / 255)

OPAQUE = 0.8
"""The least cover at which there is any mud."""


@dataclass(frozen=True, kw_only=True)
class Spatter:
    """Add drops of water, pale turquoise and embossed along their edges, or cover parts with brown mud.

    As published, but for the random stream. An image on which no drop falls stays as it is, where the published water
    divides 0 by 0 and gives black.
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return the spattered images (N, 3, H, W), not clipped. Raises MeasurementError for a severity not in 1 to 5.

        An image must be at least 2 px on each side.
        """
        height, width = images.shape[-2:]
        mean, spread, sigma, threshold, strength, kind = LIQUID.at(severity, min(height, width), self.table)
        # In doubles: a sum's last bit, which may depend on the device, must not decide where there is liquid.
        liquid = gaussian(draws.normal(height, width).double().mul_(spread).add_(mean), sigma)
        wet = liquid >= threshold
        if kind == "mud":
            cover = gaussian(wet.double(), strength).to(images.dtype)
            cover = (cover * (cover >= OPAQUE))[:, None]
            return images * (1 - cover) + images.new_tensor(BROWN).view(3, 1, 1) * cover
        # 8-bit levels, as the published one keeps them: one above 255 starts again at 0.
        levels = (liquid * 255).floor().remainder(256).to(images.dtype) * wet
        light = levels * relief(levels)
        brightest = light.amax(dim=(1, 2), keepdim=True).clamp_min(1)
        return images + (light * (strength / brightest))[:, None] * images.new_tensor(PALE_TURQUOISE).view(3, 1, 1)
