"""SAM, sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.training._sharpness import SharpnessAware, globally

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.training._descent import Run

__all__ = ["Sam"]


@dataclass(frozen=True, kw_only=True)
class Sam(SharpnessAware):
    """Minimise the loss at w + rho g / ||g||, g being the gradient at w (eq. 2), with one norm over all parameters.

    `rho` is the paper's for CIFAR-10.
    """

    rho: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rho <= 0:
            raise ValueError(f"rho must be above 0, got {self.rho:g}")

    def perturbation(self, run: Run, moving: Sequence[tuple[str, Tensor]]) -> list[Tensor]:  # noqa: ARG002
        """Return rho g / ||g||."""
        gradients = [parameter.grad for _, parameter in moving if parameter.grad is not None]
        scale = self.rho / globally(gradients)
        return [scale * gradient for gradient in gradients]
