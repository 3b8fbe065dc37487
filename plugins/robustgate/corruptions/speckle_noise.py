"""Speckle noise: noise that grows with the light (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["SpeckleNoise"]

# Standard deviation, as a share of the value.
SIGMA = SeverityTable(cifar=(0.06, 0.10, 0.12, 0.16, 0.20), imagenet=(0.15, 0.20, 0.35, 0.45, 0.60))


@dataclass(frozen=True, kw_only=True)
class SpeckleNoise:
    """Multiply every value by a normal number about 1, each drawn on its own.

    As published, but for the random stream.
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return the noisy images (N, 3, H, W), not clipped. Raises MeasurementError for a severity not in 1 to 5."""
        sigma = SIGMA.at(severity, min(images.shape[-2:]), self.table)
        return draws.normal(*images.shape[1:]).mul_(sigma).add_(1).mul_(images)
