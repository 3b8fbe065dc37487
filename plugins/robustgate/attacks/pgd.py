"""Projected gradient descent (Madry et al. 2018, arXiv 1706.06083)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Query
from robustgate.core.losses import cross_entropy, dlr

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Pgd"]

LOSSES = {"cross_entropy": cross_entropy, "dlr": dlr}
LAST_STEP = 0.01


@dataclass(frozen=True, kw_only=True)
class Pgd:
    """Climb a loss in steps, projected to the ball of radius `eps` and to [0, 1].

    `relative_step` is a constant step in units of `eps`, as in the paper. By default the step falls along a cosine
    from the whole of `eps` to a hundredth of it (the schedule of DDN, arXiv 1811.09600): at 40 steps and eps 0.004 it
    fells more samples than 2.5 / steps does, and most of them sooner. `random_start` begins at a point drawn uniformly
    from the ball; `restarts` are further walks for what still stands, each from a random start. `loss` "dlr" is the
    logit-scale-invariant one.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = False

    eps: float
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 20
    relative_step: float | None = None
    random_start: bool = True
    restarts: int = 0
    loss: Literal["cross_entropy", "dlr"] = "cross_entropy"

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.restarts < 0:
            raise ValueError(f"restarts must be at least 0, got {self.restarts}")
        step = self.relative_step
        if step is not None and (step <= 0 or step * self.steps < 1):
            raise ValueError(
                f"relative_step {step:g} x {self.steps} steps cannot reach eps: their product must be at least 1"
            )

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Walk from the images, and again from other points while any stands."""
        import torch

        budget = Budget(self.norm, self.eps)
        standing = torch.arange(len(images), device=images.device)
        for restart in range(1 + self.restarts):
            rows, centres, truth = standing, images[standing], labels[standing]
            begin = self.random_start or restart > 0
            points = budget.random_point(centres, draws.take(rows)) if begin else centres
            for step in range(self.steps):
                answer = yield Query(rows, points, LOSSES[self.loss](truth))
                left = ~answer.settled
                rows, centres, truth, points = rows[left], centres[left], truth[left], points[left]
                if not len(rows):
                    break
                direction = budget.direction(answer.gradient[left])
                points = budget.project(points + self.step(step) * direction, centres)
            else:
                answer = yield Query(rows, points)
                rows = rows[~answer.settled]
            standing = rows
            if not len(standing):
                return

    def step(self, step: int) -> float:
        """Return the length of a step, counted from 0, in [0, 1] units."""
        if self.relative_step is not None:
            return self.eps * self.relative_step
        return self.eps * (LAST_STEP + (1 - LAST_STEP) * (1 + math.cos(math.pi * step / self.steps)) / 2)
