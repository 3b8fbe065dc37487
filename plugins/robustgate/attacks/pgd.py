"""Projected gradient descent (Madry et al. 2018, arXiv 1706.06083)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Passes, Query
from robustgate.core.losses import dlr, exact_cross_entropy, log_odds
from robustgate.core.walks import among

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Pgd"]

LOSSES = {"cross_entropy": exact_cross_entropy, "dlr": dlr}
LAST_STEP = 0.01


@dataclass(frozen=True, kw_only=True)
class Pgd:
    """Climb a loss in steps, projected to the ball of radius `eps` and to [0, 1].

    `relative_step` is a constant step in units of `eps`, as in the paper. By default the step falls along a cosine
    from the whole of `eps` to a hundredth of it (the schedule of DDN, arXiv 1811.09600): at 40 steps and eps 0.004 it
    fells more samples than 2.5 / steps does, and most of them sooner. `random_start` begins at a point drawn uniformly
    from the ball; `restarts` are further walks for what still stands, each from a random start. `loss` "dlr" is the
    logit-scale-invariant one. The cross-entropy's gradient is taken so that it does not vanish where float32 rounds a
    probability to 1: of a third of the samples the published ResNet-20 is as sure as that.

    A sample is given up where the loss, if it went on as straight as it does here and `give_up` times as steep, would
    not reach the boundary anywhere in the ball: the bound of Frank and Wolfe (1956), which is certain for a concave
    loss, and for networks has to be measured. Of 2,000 images of CIFAR-10, attacked at two budgets in linf, one in l2,
    and with "dlr", one was lost in l2 that all steps fell, four at a `give_up` of 2, and one in ten at 1. A restart
    begins again with what was given up. `inf` spends all steps on every sample.
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
    give_up: float = 3.0

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
        if not self.give_up >= 1:
            raise ValueError(f"give_up must be at least 1, got {self.give_up:g}; inf takes every step")

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return what is asked about a sample that neither falls nor is given up."""
        return Passes(forward=self.steps + 1, backward=self.steps) * (1 + self.restarts)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Walk from the images, and again from other points while any stands."""
        import torch

        budget = Budget(self.norm, self.eps)
        standing = torch.arange(len(images), device=images.device)
        for restart in range(1 + self.restarts):
            centres = images[standing]
            begin = self.random_start or restart > 0
            points = budget.random_point(centres, draws.take(standing)) if begin else centres
            standing = yield from among(standing, self._climb(points, centres, labels[standing], budget))
            if not len(standing):
                return

    def _climb(self, points: Tensor, centres: Tensor, labels: Tensor, budget: Budget) -> Walk:
        import torch

        rows = torch.arange(len(points), device=points.device)
        for step in range(self.steps):
            answer = yield Query(rows, points, LOSSES[self.loss](labels))
            hopeless = self.give_up * budget.gain(answer.gradient, points, centres) < self._lack(answer.logits, labels)
            left = ~answer.settled & ~hopeless
            rows, points, centres, labels = rows[left], points[left], centres[left], labels[left]
            if not len(rows):
                return
            direction = budget.direction(answer.gradient[left])
            points = budget.project(points + self.step(step) * direction, centres)
        yield Query(rows, points)

    def _lack(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return what the loss (N,) must still rise by, at its slope here, for a decision to be wrong."""
        if self.loss == "dlr":
            return -dlr(labels)(logits)
        # Cross-entropy is flat where the network is sure. Its argument, the odds, is about as straight as the logits,
        # and at least 0 where a decision is wrong.
        odds = log_odds(labels)(logits)
        return -odds * odds.sigmoid()

    def step(self, step: int) -> float:
        """Return the length of a step, counted from 0, in [0, 1] units."""
        if self.relative_step is not None:
            return self.eps * self.relative_step
        return self.eps * (LAST_STEP + (1 - LAST_STEP) * (1 + math.cos(math.pi * step / self.steps)) / 2)
