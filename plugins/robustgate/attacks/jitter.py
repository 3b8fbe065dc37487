"""Jitter (Schwinn et al. 2021, arXiv 2105.10304)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.attacks.pgd import Pgd
from robustgate.core.budget import Budget
from robustgate.core.components import Loss, Passes, Query

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Jitter"]


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Climb, as PGD does, a loss that is neither flat for large logits nor aims at one class only.

    The logits are divided by their largest absolute value and multiplied by `scale`: a confident network's softmax is
    then not saturated. The loss is the distance from that softmax, with Gaussian noise of standard deviation `std`
    added at every step, to the one-hot label: the noise turns the walk to other classes. `relative_step`
    and `random_start` are as in `pgd`, and so is the step where none is given.

    Three things are other than in the paper. Its loss is divided by the perturbation's norm once a sample is wrong,
    to make that norm small; here a sample that is wrong within the budget is done with, and nothing is left to divide.
    The distance is squared: a walk by directions is the same. And with two classes the largest logit is held constant
    as the gradient is taken: where one logit is zero, or they are each other's negative, the divided logits are
    constant, and no gradient would be left.

    The noise can cost more than it finds: where the scaled softmax is still close to the one-hot label it outweighs the
    loss, and the walk is random. On the published ResNet-20 (linf 1/255, 10 steps of a quarter) 24 of 100 images stand
    with a `std` of 0, and about 50 with 0.1, here and in torchattacks.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = False

    eps: float
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 20
    relative_step: float | None = None
    random_start: bool = True
    scale: float = 10.0
    std: float = 0.1

    def __post_init__(self) -> None:
        self.pace()
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale must be above 0 and finite, got {self.scale:g}")
        if not 0 <= self.std < float("inf"):
            raise ValueError(f"std must be at least 0 and finite, got {self.std:g}")

    def pace(self) -> Pgd:
        """Return the PGD whose steps these are. Raises ValueError where it refuses the parameters."""
        return Pgd(eps=self.eps, norm=self.norm, steps=self.steps, relative_step=self.relative_step)

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return what is asked about a sample that stands."""
        return Passes(forward=self.steps + 1, backward=self.steps)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:
        """Climb while any sample stands."""
        import torch

        budget, pace = Budget(self.norm, self.eps), self.pace()
        rows = torch.arange(len(images), device=images.device)
        points = budget.random_point(images, draws) if self.random_start else images
        for step in range(self.steps):
            noise = self.std * draws.take(rows).normal(target.classes)
            answer = yield Query(rows, points, jitter(labels[rows], noise, self.scale))
            left = ~answer.settled
            rows = rows[left]
            if not len(rows):
                return
            direction = budget.direction(answer.gradient[left])
            points = budget.project(points[left] + pace.step(step) * direction, images[rows])
        yield Query(rows, points)


def jitter(labels: Tensor, noise: Tensor, scale: float) -> Loss:
    """Return the squared distance of the scaled logits' softmax plus `noise` (N, classes) to one-hot `labels` (N,)."""

    def loss(logits: Tensor) -> Tensor:
        largest = logits.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
        if logits.shape[1] < 3:
            largest = largest.detach()
        found = (scale * logits / largest).softmax(dim=1) + noise
        truth = noise.new_zeros(noise.shape).scatter(1, labels[:, None], 1.0)
        return (found - truth).square().sum(dim=1)

    return loss
