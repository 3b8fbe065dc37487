"""ASAM, adaptive sharpness-aware minimisation (Kwon et al. 2021, arXiv 2102.11600)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.training._sharpness import SharpnessAware, globally

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.training._descent import Run

__all__ = ["Asam"]


@dataclass(frozen=True, kw_only=True)
class Asam(SharpnessAware):
    """Minimise the loss at w + rho T^2 g / ||T g||, where T is |w| + `eta` for weights and 1 for other parameters.

    So the perturbation does not change where a layer's weights are scaled up and the next one's down. Weights are
    parameters with "weight" in their name, as in the authors' code; `rho` and `eta` are theirs for CIFAR-10.
    """

    rho: float = 0.5
    eta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, value in (("rho", self.rho), ("eta", self.eta)):
            if value <= 0:
                raise ValueError(f"{key} must be above 0, got {value:g}")

    def perturbation(self, run: Run, moving: Sequence[tuple[str, Tensor]]) -> list[Tensor]:  # noqa: ARG002
        """Return rho T^2 g / ||T g||."""
        sizes = [parameter.detach().abs() + self.eta if "weight" in name else 1 for name, parameter in moving]
        scaled = [size * one.grad for size, (_, one) in zip(sizes, moving, strict=True) if one.grad is not None]
        scale = self.rho / globally(scaled)
        return [scale * size * one for size, one in zip(sizes, scaled, strict=True)]
