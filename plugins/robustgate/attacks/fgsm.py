"""The fast gradient sign method (Goodfellow et al. 2015, arXiv 1412.6572)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.core.components import Passes, Query
from robustgate.core.losses import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Fgsm"]


@dataclass(frozen=True, kw_only=True)
class Fgsm:
    """One step of the whole budget along the sign of the cross-entropy's gradient (linf)."""

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = False
    norm: ClassVar[Literal["linf"]] = "linf"

    eps: float

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps must be in (0, 1], in [0, 1] units, got {self.eps:g}")

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return what is asked about each sample."""
        return Passes(forward=2, backward=1)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Ask for the gradient at the images, then about the end of the step."""
        import torch

        rows = torch.arange(len(images), device=images.device)
        answer = yield Query(rows, images, cross_entropy(labels))
        yield Query(rows, (images + self.eps * answer.gradient.sign()).clamp(0, 1))
