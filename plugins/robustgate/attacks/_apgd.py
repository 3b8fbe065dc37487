"""APGD, the climb that apgd_ce and apgd_t share (Croce & Hein 2020, arXiv 2003.01690, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Loss, Passes, Query
from robustgate.core.walks import wide

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Norm, Walk

# How much of a step is taken, and how much of the one before is added to it: alpha, and 1 - alpha.
MOMENTUM = 0.75
# Between two checkpoints the loss must rise in this share of the steps, or the step is halved: rho.
RISING = 0.75
# In percent of the steps: the first checkpoint, what each stretch is shorter than the one before, and the shortest.
FIRST, SHORTER, SHORTEST = 22, 3, 6


class Climbing(Protocol):
    """The parameters that both attacks have."""

    @property
    def eps(self) -> float:
        """The budget, in [0, 1] units."""

    @property
    def norm(self) -> Norm:
        """The norm, linf or l2."""

    @property
    def steps(self) -> int:
        """The steps of one climb."""

    @property
    def restarts(self) -> int:
        """The climbs after the first."""


def refuse_impossible(attack: Climbing) -> None:
    """Raise ValueError for parameters that no climb can have."""
    check_eps(attack.eps, attack.norm)
    if attack.steps < 1:
        raise ValueError(f"steps must be at least 1, got {attack.steps}")
    if attack.restarts < 0:
        raise ValueError(f"restarts must be at least 0, got {attack.restarts}")


def climb(
    images: Tensor, start: Tensor, loss: Callable[..., Loss], classes: Sequence[Tensor], budget: Budget, steps: int
) -> Walk:
    """Climb from `start` (N, 3, H, W) in the balls around `images`; `loss` takes `classes`, labels (N,) or also aims.

    A sample takes `steps` gradients and one query more. Only the order of a sample's values and the direction of its
    gradient matter: a growing function of the loss climbs the same way.
    """
    climbers = Climbers(images, start, 2 * budget.eps)
    checks = checkpoints(steps)
    last = 0
    for step in range(steps):
        climbed = loss(*(those[climbers.rows] for those in classes))
        answer = yield Query(climbers.rows, climbers.points, climbed)
        values = climbed(answer.logits)
        left = ~answer.settled
        climbers.keep(left)
        if not len(climbers.rows):
            return
        climbers.arrive(values[left], answer.gradient[left])
        if not step:
            # As in the authors' code, which has a part in the first check: a first step counts as a rise if it comes
            # above 0, where the loss of a wrong decision begins. Of few steps the longest are soon halved.
            climbers.value = climbers.value * 0
        if step in checks:
            climbers.check(step - last)
            last = step
        climbers.move(budget, MOMENTUM if step else 1.0)
    yield Query(climbers.rows, climbers.points)


def climb_passes(steps: int) -> Passes:
    """Return what a climb asks about a sample that stands."""
    return Passes(forward=steps + 1, backward=steps)


def checkpoints(steps: int) -> frozenset[int]:
    """Return after which steps the length of a step is judged (section 3.3), the start among them.

    The paper's shares of the steps, p = 0, 0.22 and p + max(p - p_before - 0.03, 0.06), are whole percents.
    """
    percents, stretch = [0], FIRST
    while percents[-1] + stretch < 100:
        percents.append(percents[-1] + stretch)
        stretch = max(stretch - SHORTER, SHORTEST)
    return frozenset(-(-percent * steps // 100) for percent in percents)


class Climbers:
    """n samples on their way: where each is, its highest point so far, and the length of its next step.

    `points` is the paper's x(k) with its `value` and `gradient`, `before` x(k-1), `summit` the highest point with its
    value `peak` and its gradient `slope`; `level` is the peak at the last checkpoint, `rises` counts the steps up
    since, and `halved` says whether the step was halved there.
    """

    def __init__(self, images: Tensor, start: Tensor, length: float) -> None:
        import torch

        count = len(images)
        self.rows = torch.arange(count, device=images.device)
        self.centres = images
        self.points = self.before = self.summit = start
        self.gradient = self.slope = torch.zeros_like(start)
        self.length = images.new_full((count, 1, 1, 1), length)
        self.value = images.new_full((count,), float("inf"))  # the start is no rise
        self.peak = self.level = -self.value
        self.rises = torch.zeros_like(self.rows)
        self.halved = torch.zeros_like(self.rows, dtype=torch.bool)

    def keep(self, left: Tensor) -> None:
        """Keep the samples whose `left` (n,) is true."""
        if not bool(left.all()):
            vars(self).update({name: tensor[left] for name, tensor in vars(self).items()})

    def arrive(self, values: Tensor, gradient: Tensor) -> None:
        """Take the loss (n,) and its gradient at the points."""
        self.rises = self.rises + (values > self.value)
        higher = values > self.peak
        self.peak = values.where(higher, self.peak)
        self.summit = self.points.where(wide(higher), self.summit)
        self.slope = gradient.where(wide(higher), self.slope)
        self.value, self.gradient = values, gradient

    def check(self, stretch: int) -> None:
        """Halve the step, and go back to the summit, where the last `stretch` steps got nowhere.

        That is where too few of them rose, or where the step was not halved at the last checkpoint and the summit is
        still the same (conditions 1 and 2).
        """
        self.halved = (self.rises < RISING * stretch) | (~self.halved & (self.peak <= self.level))
        self.level, self.rises = self.peak, self.rises * 0
        self.length = self.length / (1 + wide(self.halved).to(self.length.dtype))
        self.value = self.peak.where(self.halved, self.value)
        self.points = self.summit.where(wide(self.halved), self.points)
        self.gradient = self.slope.where(wide(self.halved), self.gradient)

    def move(self, budget: Budget, share: float) -> None:
        """Take a step: `share` of the one along the gradient, the rest of the one before."""
        along = budget.project(self.points + self.length * budget.direction(self.gradient), self.centres)
        onward = self.points + share * (along - self.points) + (1 - share) * (self.points - self.before)
        self.before, self.points = self.points, budget.project(onward, self.centres)
