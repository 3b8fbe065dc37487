"""Low contrast: haze, a washed-out display (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["Contrast"]

# The share of every deviation from the mean that is left.
KEPT = SeverityTable(cifar=(0.75, 0.5, 0.4, 0.3, 0.15), imagenet=(0.4, 0.3, 0.2, 0.1, 0.05))


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Draw every value towards the mean of its image and channel. As published."""

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the paler images (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5."""
        import torch

        height, width = images.shape[-2:]
        kept = KEPT.at(severity, min(height, width), self.table)
        # Of 8-bit levels, which are whole numbers in single precision too, these sums are exact.
        sums = images.mul(255).sum(dim=3, keepdim=True).sum(dim=2, keepdim=True, dtype=torch.float64)
        return torch.add(lift(sums / (height * width), kept).to(images.dtype), images, alpha=kept)


def lift(means: Tensor, kept: float) -> Tensor:
    """Return what is added to the kept share of a value, in [0, 1] units: the lost share of the mean, in grey levels.

    The published one computes in doubles, and the caller truncates. With shares that are multiples of 1/20, a whole
    level lies `kept` times a level plus some multiple of 1/20 above zero, so that only the whole twentieths of what is
    added decide. Its rest is kept away from both ends, by 0.00025 levels, and single precision gives the same level.
    """
    # A mean that is itself a whole level stays one: a flat surface does not change.
    twentieths = means * (20 - round(20 * kept)) + 1e-9
    whole = twentieths.floor()
    return (whole + (twentieths - whole).clamp(0.005, 0.995)) / (20 * 255)
