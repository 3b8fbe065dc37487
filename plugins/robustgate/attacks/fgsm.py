"""The fast gradient sign method (Goodfellow et al. 2015, arXiv 1412.6572)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws

__all__ = ["Fgsm"]


@dataclass(frozen=True, kw_only=True)
class Fgsm:
    """One step of the whole budget along the sign of the cross-entropy's gradient (linf)."""

    needs_gradient: ClassVar[bool] = True
    norm: ClassVar[Literal["linf"]] = "linf"

    eps: float

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps must be in (0, 1], in [0, 1] units, got {self.eps:g}")

    def run(self, target: AttackTarget, images: Tensor, labels: Tensor, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the perturbed images (N, 3, H, W)."""
        from torch.nn import functional

        _, gradient = target.gradient(images, lambda logits: functional.cross_entropy(logits, labels, reduction="none"))
        return (images + self.eps * gradient.sign()).clamp(0, 1)
