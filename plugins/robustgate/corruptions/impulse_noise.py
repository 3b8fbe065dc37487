"""Impulse noise: salt and pepper, as of bit errors (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["ImpulseNoise"]

# The share of the values that are lost.
AMOUNT = SeverityTable(cifar=(0.01, 0.02, 0.03, 0.05, 0.07), imagenet=(0.03, 0.06, 0.09, 0.17, 0.27))


@dataclass(frozen=True, kw_only=True)
class ImpulseNoise:
    """Replace some values, each on its own, by 0 or 1, half each. As published, but for the random stream.

    Chances are multiples of 1/65,536: right to 0.2 %.
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return the noisy images (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5."""
        from torch.nn import functional

        kept = 2**15 - round(AMOUNT.at(severity, min(images.shape[-2:]), self.table) * 2**15)
        numbers = draws.integers(*images.shape[1:]).to(images.dtype).add_(0.5)
        # All numbers but the lowest and the highest become 0; what is left of them outweighs any value. Comparisons and
        # masks take four times as long.
        return functional.hardshrink(numbers, kept).add_(images).clamp_(0, 1)
