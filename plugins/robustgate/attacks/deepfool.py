"""DeepFool (Moosavi-Dezfooli et al. 2016, arXiv 1511.04599)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.attacks._approach import approach_passes
from robustgate.attacks._plane import distances_to_planes, nearest_plane
from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Answer, Loss, Passes, Query
from robustgate.core.losses import margin, others
from robustgate.core.walks import approach, wide

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Deepfool"]

# Added to each step, in [0, 1] units, as the authors do: near the boundary the steps would shrink and never cross it.
BEYOND = 1e-4


@dataclass(frozen=True, kw_only=True)
class Deepfool:
    """Step to the nearest boundary of the linearised network, again and again, until an image is over it.

    `eps` is the budget that the norms found are counted at. `candidates` are the classes with the largest logits for
    the image as it is, its own among them; a network with fewer classes has them all. A point is `1 + overshoot` times
    the sum of the steps (algorithm 2), clipped to [0, 1]. An image whose steps end nowhere counts as standing; so does
    one where the gradient is zero for every candidate, which the paper leaves open.

    Where it is not the paper's:

    - Only the first step looks at all candidates. The `rivals` whose linearised boundaries are nearest to the image
      are those that it may step to from then on, with a gradient for each: of 3 in place of 9, a ResNet-20's mean norm
      on CIFAR-10 grows by less than 0.1 %. With `candidates` of them it is the paper's again.
    - The paper's point lies beyond the boundary, by the overshoot and by what the last step was too long. So a search
      comes back to it, on the segment from the image to the point, to 2**-`refinements` of its length; it asks for
      logits only, and there is none with 0.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = True

    eps: float
    norm: Literal["l2", "linf"] = "l2"
    steps: int = 50
    candidates: int = 10
    rivals: int = 3
    overshoot: float = 0.02
    refinements: int = 10

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        for name, least in (("steps", 1), ("rivals", 1), ("refinements", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.candidates < 2:
            raise ValueError(f"candidates must be at least 2, the image's own class and another, got {self.candidates}")
        if not 0 <= self.overshoot < float("inf"):
            raise ValueError(f"overshoot must be at least 0 and finite, got {self.overshoot:g}")

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return the most that is asked about one sample."""
        first = Passes(forward=1, backward=self.candidates - 1)
        look, step = Passes(forward=1), Passes(forward=1, backward=min(self.rivals, self.candidates - 1))
        return first + look * self.steps + step * (self.steps - 1) + approach_passes(self.refinements)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Walk over the boundary, then come back to it."""
        import torch

        ranking = Ranking(labels, min(self.candidates, target.classes) - 1)
        first = yield Query(torch.arange(len(images), device=images.device), images, ranking)
        rows, points, beyond = yield from self._cross(images, labels, ranking.aims, first)
        margins = margin(labels)(first.logits)
        yield from approach(images, labels, margins, rows, points, self.refinements, beyond=beyond)

    def _cross(
        self, images: Tensor, labels: Tensor, aims: Tensor, answer: Answer
    ) -> Generator[Query, Answer, tuple[Tensor, Tensor, Tensor]]:
        """Return the samples that came over a boundary to any of `aims` (N, K), their points there, and the margins.

        `answer` is to the images as they are, with the gradients of their differences to the aims.
        """
        import torch

        budget = Budget(self.norm, self.eps)
        rows, total = torch.arange(len(images), device=images.device), torch.zeros_like(images)
        found = [(rows[:0], images[:0], images.new_empty(0))]
        for spare in reversed(range(self.steps)):
            values = differences(labels[rows], aims)(answer.logits)
            distances = distances_to_planes(values, answer.gradient, budget)
            step, moves = step_over(answer.gradient, distances, budget)
            rivals = distances.topk(min(self.rivals, aims.shape[1]), dim=1, largest=False).indices
            rows, total, aims = rows[moves], (total + step)[moves], aims.gather(1, rivals)[moves]
            if not len(rows):
                break
            points = (images[rows] + (1 + self.overshoot) * total).clamp(0, 1)
            # What is over needs no gradient: it is looked at first.
            answer = yield Query(rows, points)
            margins = margin(labels[rows])(answer.logits)
            over, left = answer.adversarial & ~answer.settled, ~answer.adversarial & ~answer.settled
            found.append((rows[over], points[over], margins[over]))
            rows, total, aims, points = (one[left] for one in (rows, total, aims, points))
            if not spare or not len(rows):
                break
            answer = yield Query(rows, points, differences(labels[rows], aims))
        rows, points, margins = (torch.cat(parts) for parts in zip(*found, strict=True))
        return rows, points, margins


class Ranking:
    """The loss of `count` values that aims at the classes with the largest other logits.

    Which they are, `aims` (N, count) says afterwards: the artifact may rank them otherwise than the twin, whose
    gradients these are.
    """

    aims: Tensor

    def __init__(self, labels: Tensor, count: int) -> None:
        self.labels, self.count = labels, count

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the differences (N, count), negative while the label's logit is the largest."""
        self.aims = others(logits, self.labels).topk(self.count, dim=1).indices
        return differences(self.labels, self.aims)(logits)


def differences(labels: Tensor, aims: Tensor) -> Loss:
    """Return the loss of K values: the logits of `aims` (n, K) less the label's, negative while it is decided for."""
    return lambda logits: logits.gather(1, aims) - logits.gather(1, labels[:, None])


def step_over(gradient: Tensor, distances: Tensor, budget: Budget) -> tuple[Tensor, Tensor]:
    """Return the step (n, 3, H, W) over the nearest of K linearised boundaries, and for which samples there is one.

    `gradient` (n, K, 3, H, W) are those of the differences of logits, `distances` (n, K) to where they are zero (the
    paper's eq. 8 for l2, section 4 for linf).
    """
    nearest, slope = nearest_plane(gradient, distances)
    distance = distances.gather(1, nearest)[:, 0]
    moves = distance.isfinite()
    return wide(distance.where(moves, distance.new_zeros(())) + BEYOND) * budget.direction(slope), moves
