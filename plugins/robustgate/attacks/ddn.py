"""DDN, decoupled direction and norm (Rony et al. 2019, arXiv 1811.09600)."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.attacks._approach import approach_passes
from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Answer, Passes, Query
from robustgate.core.losses import log_odds, margin
from robustgate.core.walks import approach, wide

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Ddn"]

FIRST_STEP, LAST_STEP = 1.0, 0.01
# Any slope is above it: a margin divided by it is farther than any image.
TINY = 1e-30
# What the radius grows by at least until a point fools: the margin of quantized logits may be 0.
LEAST = 1e-3


@dataclass(frozen=True, kw_only=True)
class Ddn:
    """Turn a perturbation along the gradient, on a sphere that shrinks while it fools and grows while it does not.

    `eps` is the budget that the norms found are counted at. The sphere's radius changes by the factor 1 - `gamma` or
    1 + `gamma` a step; the step falls along a cosine from 1 to 0.01 (algorithm 1). Where the gradient is zero the
    direction is random.

    The first radius is `initial_norm`, 1 in the paper, from which a radius of 0.1 is 45 steps away. By default it is
    that of the linearised boundary, until a point fools it is no smaller than that of the one linearised last, and the
    lengths of the steps are in units of the radius. On CIFAR-10 40 such steps come as near as the paper's 100.

    `levels` rounds every point to as many levels of [0, 1], as the paper does with 256 for images that are stored. By
    default there is no rounding: variants are given float images, and of a perturbation of norm 0.24 on 32 x 32 pixels
    most values are below half a level. What rounding leaves over is no smallest perturbation.

    The nearest point that fools may lie a factor `gamma` beyond the boundary, and further where it takes more than
    `steps` to shrink to it. So a search for the boundary ends the attack, on the segment from the image to that
    point, to 2**-`refinements` of its length; it asks for logits only. With 0, and with `levels`, there is none.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = True
    norm: ClassVar[Literal["l2"]] = "l2"

    eps: float
    steps: int = 100
    gamma: float = 0.05
    initial_norm: float | None = None
    levels: int | None = None
    refinements: int = 10

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2, the first asks about the image itself, got {self.steps}")
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma must be above 0 and below 1, got {self.gamma:g}")
        if self.initial_norm is not None and not 0 < self.initial_norm < float("inf"):
            raise ValueError(f"initial_norm must be above 0 and finite, got {self.initial_norm:g}")
        if self.levels is not None and self.levels < 2:
            raise ValueError(f"levels must be at least 2, or none, got {self.levels}")
        if self.refinements < 0:
            raise ValueError(f"refinements must be at least 0, got {self.refinements}")

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return the most that is asked about one sample."""
        circle = Passes(forward=self.steps, backward=self.steps)
        return circle + approach_passes(self.refinements if self.levels is None else 0)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Walk around the images on spheres, then come nearer along a straight line."""
        rows, points, margins = yield from self._circle(images, labels, draws)
        if self.levels is None:
            yield from approach(images, labels, margins, rows, points, self.refinements)

    def _circle(
        self, images: Tensor, labels: Tensor, draws: Draws
    ) -> Generator[Query, Answer, tuple[Tensor, Tensor, Tensor]]:
        """Return the samples for which an adversarial point was found, the nearest of each, and all images' margins."""
        import torch

        budget = Budget("l2", self.eps)
        everyone = torch.arange(len(images), device=images.device)
        farthest = budget.size(torch.maximum(images, 1 - images))
        nearest = torch.full_like(farthest, float("inf"))
        radius = torch.full_like(farthest, self.initial_norm or 0)
        points = best = images
        margins = radius
        for step in range(self.steps):
            answer = yield Query(everyone, points, log_odds(labels))
            norms, values = budget.size(points - images), margin(labels)(answer.logits)
            margins = margins if step else values
            better = answer.adversarial & (norms < nearest)
            nearest = norms.where(better, nearest)
            best = points.where(wide(better), best)
            radius = radius * (1 + self.gamma * (1 - 2 * answer.adversarial.to(radius.dtype)))
            if self.initial_norm is None:
                lacks = (-values / budget.slope(answer.gradient).clamp_min(TINY)).clamp_min(LEAST)
                radius = radius.maximum(norms + lacks).where(nearest.isinf(), radius)
            radius = radius.minimum(farthest)
            length = self.step(step) * (wide(radius) if self.initial_norm is None else 1)
            turned = budget.direction(points - images + length * ascent(answer.gradient, budget, draws))
            points = self._rounded(images + wide(radius) * turned)
        found = nearest.isfinite().nonzero()[:, 0]
        return found, best[found], margins

    def step(self, step: int) -> float:
        """Return the length of a step, counted from 0, in units of the radius or, from `initial_norm`, of [0, 1]."""
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
