"""Gaussian noise: what a sensor adds in poor light (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["GaussianNoise"]

# Standard deviation, in [0, 1] units.
SIGMA = SeverityTable(cifar=(0.04, 0.06, 0.08, 0.09, 0.10), imagenet=(0.08, 0.12, 0.18, 0.26, 0.38))


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Add a normal number to every value, each drawn on its own. As published, but for the random stream."""

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return images (N, 3, H, W) plus noise, not clipped. Raises MeasurementError for a severity not in 1 to 5."""
        sigma = SIGMA.at(severity, min(images.shape[-2:]), self.table)
        return draws.normal(*images.shape[1:]).mul_(sigma).add_(images)
