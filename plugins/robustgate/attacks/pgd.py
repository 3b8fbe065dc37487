"""Projected gradient descent (Madry et al. 2018, arXiv 1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from robustgate.core.budget import Budget
from robustgate.core.components import Norm

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws

__all__ = ["Pgd"]


@dataclass(frozen=True, kw_only=True)
class Pgd:
    """Climb the cross-entropy in steps, projected to the ball of radius `eps` and to [0, 1].

    `relative_step` is the step in units of `eps`: 2.5 / steps lets the walk cross the ball and come back (the
    paper's rule of thumb; default). `random_start` begins at a point drawn uniformly from the ball. A sample that
    has fallen keeps the iterate that felled it and is stepped no further: the best iterate counts, not the last.
    """

    needs_gradient: ClassVar[bool] = True

    eps: float
    norm: Norm = "linf"
    steps: int = 20
    relative_step: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"eps must be above 0, in [0, 1] units, got {self.eps:g}")
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(f"eps is in [0, 1] units, got {self.eps:g}: divide by 255")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        step = self.relative_step
        if step is not None and (step <= 0 or step * self.steps < 1):
            raise ValueError(
                f"relative_step {step:g} x {self.steps} steps cannot reach eps: their product must be at least 1"
            )

    def run(self, target: AttackTarget, images: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """Return (N, 3, H, W): for each image an iterate that changed the decision, or else the last one."""
        import torch
        from torch.nn import functional

        budget = Budget(self.norm, self.eps)
        step = self.eps * (self.relative_step if self.relative_step is not None else min(1.0, 2.5 / self.steps))
        best = images.clone()
        standing = torch.arange(len(images), device=images.device)
        current = budget.random_point(images, draws) if self.random_start else images.clone()
        for _ in range(self.steps):
            truth = labels[standing]

            def loss(logits: Tensor, truth: Tensor = truth) -> Tensor:
                return functional.cross_entropy(logits, truth, reduction="none")

            logits, gradient = target.gradient(current, loss)
            best[standing] = current
            holds = logits.argmax(dim=1) == truth
            standing, current, gradient = standing[holds], current[holds], gradient[holds]
            if not len(standing):
                return best
            current = budget.project(current + step * budget.direction(gradient), images[standing])
        best[standing] = current
        return best
