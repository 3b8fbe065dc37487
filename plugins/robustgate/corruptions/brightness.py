"""More light on the whole image (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["Brightness"]

# What is added to the value of HSV, in [0, 1] units.
ADDED = SeverityTable(cifar=(0.05, 0.10, 0.15, 0.20, 0.30), imagenet=(0.1, 0.2, 0.3, 0.4, 0.5))

DARKEST = 1e-30
"""A light that no 8-bit value has, and that changes none: it makes black a very dark grey."""


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """Raise every pixel's value, the largest of its three channels, up to 1, at the same hue and saturation."""

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the brighter images (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5."""
        added = ADDED.at(severity, min(images.shape[-2:]), self.table)
        # At a fixed hue and saturation, the channels are in proportion to the value: no conversion to HSV is needed.
        lit = images + DARKEST
        value = lit.amax(dim=1, keepdim=True)
        return lit.div_(value).mul_((value + added).clamp_(max=1))
