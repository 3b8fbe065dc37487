"""DDN, decoupled direction and norm (Rony et al. 2019, arXiv 1811.09600)."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Answer, Query
from robustgate.core.losses import log_odds
from robustgate.core.walks import approach

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Ddn"]

FIRST_STEP, LAST_STEP = 1.0, 0.01


@dataclass(frozen=True, kw_only=True)
class Ddn:
    """Turn a perturbation along the gradient, on a sphere that shrinks while it fools and grows while it does not.

    `eps` is the budget that the norms found are counted at. The sphere's radius is `initial_norm` at first and changes
    by the factor 1 - `gamma` or 1 + `gamma` a step; the step falls along a cosine from 1 to 0.01 (algorithm 1). Where
    the gradient is zero the direction is random.

    `levels` rounds every point to as many levels of [0, 1], as the paper does with 256 for images that are stored. By
    default there is no rounding: variants are given float images, and of a perturbation of norm 0.24 on 32 x 32 pixels
    most values are below half a level. What rounding leaves over is no smallest perturbation.

    The nearest point that fools may lie a factor `gamma` beyond the boundary, and further where it takes more than
    `steps` to shrink to it. So a bisection of `refinements` halvings ends the attack, on the segment from the image to
    that point; it asks for logits only, and with 0 of them the attack is the paper's. With `levels` there is none.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = True
    norm: ClassVar[Literal["l2"]] = "l2"

    eps: float
    steps: int = 100
    gamma: float = 0.05
    initial_norm: float = 1.0
    levels: int | None = None
    refinements: int = 10

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2, the first asks about the image itself, got {self.steps}")
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma must be above 0 and below 1, got {self.gamma:g}")
        if not 0 < self.initial_norm < float("inf"):
            raise ValueError(f"initial_norm must be above 0 and finite, got {self.initial_norm:g}")
        if self.levels is not None and self.levels < 2:
            raise ValueError(f"levels must be at least 2, or none, got {self.levels}")
        if self.refinements < 0:
            raise ValueError(f"refinements must be at least 0, got {self.refinements}")

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Walk around the images on spheres, then come nearer along a straight line."""
        rows, points = yield from self._circle(images, labels, draws)
        if self.levels is None:
            yield from approach(images, rows, points, self.refinements)

    def _circle(self, images: Tensor, labels: Tensor, draws: Draws) -> Generator[Query, Answer, tuple[Tensor, Tensor]]:
        """Return the samples for which an adversarial point was found, and the nearest of each."""
        import torch

        budget = Budget("l2", self.eps)
        everyone = torch.arange(len(images), device=images.device)
        farthest = budget.size(torch.maximum(images, 1 - images))
        radius = torch.full_like(farthest, self.initial_norm)
        points = best = images
        nearest = torch.full_like(farthest, float("inf"))
        for step in range(self.steps):
            answer = yield Query(everyone, points, log_odds(labels))
            norms = budget.size(points - images)
            better = answer.adversarial & (norms < nearest)
            nearest = norms.where(better, nearest)
            best = points.where(better[:, None, None, None], best)
            radius = radius * (1 + self.gamma * (1 - 2 * answer.adversarial.to(radius.dtype)))
            radius = radius.minimum(farthest)
            direction = ascent(answer.gradient, budget, draws)
            turned = budget.direction(points - images + self.step(step) * direction)
            points = self._rounded(images + radius[:, None, None, None] * turned)
        found = nearest.isfinite().nonzero()[:, 0]
        return found, best[found]

    def step(self, step: int) -> float:
        """Return the length of a step, counted from 0, in [0, 1] units."""
        return LAST_STEP + (FIRST_STEP - LAST_STEP) * (1 + math.cos(math.pi * step / self.steps)) / 2

    def _rounded(self, points: Tensor) -> Tensor:
        points = points.clamp(0, 1)
        return points if self.levels is None else (points * (self.levels - 1)).round() / (self.levels - 1)


def ascent(gradient: Tensor, budget: Budget, draws: Draws) -> Tensor:
    """Return the directions (N, 3, H, W) of the gradients; random ones, of each sample's own stream, where it is 0."""
    direction = budget.direction(gradient)
    flat = (~direction.flatten(1).any(dim=1)).nonzero()[:, 0]
    if len(flat):
        direction[flat] = budget.direction(draws.take(flat).normal(*gradient.shape[1:]))
    return direction
