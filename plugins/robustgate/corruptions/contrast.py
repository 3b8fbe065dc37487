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
        kept = KEPT.at(severity, min(images.shape[-2:]), self.table)
        # In doubles, as the published one: the caller truncates, and a mean that errs in its last bit moves a level.
        exact = images.double()
        means = exact.mean(dim=(2, 3), keepdim=True)
        return ((exact - means) * kept + means).to(images.dtype)
