"""Gaussian blur (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table
from robustgate.corruptions._gaussian import gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["GaussianBlur"]

# Sigma in pixels.
SIGMA = SeverityTable(cifar=(0.4, 0.6, 0.7, 0.8, 1.0), imagenet=(1.0, 2.0, 3.0, 4.0, 6.0))


@dataclass(frozen=True, kw_only=True)
class GaussianBlur:
    """Convolve every channel with a Gaussian, cut off at four sigmas; beyond the border its last pixel is repeated."""

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the blurred images (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5."""
        return gaussian(images, SIGMA.at(severity, min(images.shape[-2:]), self.table))
