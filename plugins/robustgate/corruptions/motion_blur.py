"""Motion blur: the camera is swung to the side (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table
from robustgate.corruptions import _motion

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["MotionBlur"]

# Radius and sigma, in pixels.
BELL = SeverityTable(
    cifar=((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
    imagenet=((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)),
)


@dataclass(frozen=True, kw_only=True)
class MotionBlur:
    """Smear the image to one side along a line whose angle is drawn from -45 to 45 degrees.

    As published, but for the random stream.
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return the blurred images (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5."""
        radius, sigma = BELL.at(severity, min(images.shape[-2:]), self.table)
        angles = draws.uniform(1)[:, 0] * 90 - 45
        return _motion.motion_blur(images, angles, radius, sigma)
