"""Colours too pale or too strong (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["Saturate"]

# What the saturation of HSV is multiplied by, and what is then added to it.
SATURATION = SeverityTable(
    cifar=((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
    imagenet=((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
)

PALEST = 1e-30
"""A chroma that no 8-bit colour has, and that changes none: it makes grey a very pale red."""


@dataclass(frozen=True, kw_only=True)
class Saturate:
    """Scale and shift every pixel's saturation, up to 1, at the same hue and value.

    As in the published one, a grey pixel has the hue of red: at severities 4 and 5 greys turn reddish.
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the images (N, 3, H, W), paler or stronger. Raises MeasurementError for a severity not in 1 to 5."""
        import torch

        factor, added = SATURATION.at(severity, min(images.shape[-2:]), self.table)
        # At a fixed hue and value, a channel's distance below the value, the largest channel, is in proportion to the
        # saturation: no conversion to HSV is needed. The saturation is the largest distance over the value.
        value = images.amax(dim=1, keepdim=True)
        below = value - images
        below[:, 1:] += PALEST
        inverse = value / below.amax(dim=1, keepdim=True)
        change = torch.minimum(factor + added * inverse, inverse)
        return value - below.mul_(change)
