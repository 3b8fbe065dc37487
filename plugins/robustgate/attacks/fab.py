"""FAB, the fast adaptive boundary attack (Croce & Hein 2020, arXiv 1907.02044)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.attacks._approach import approach_passes
from robustgate.attacks._plane import distances_to_planes, nearest_plane, step_to_plane
from robustgate.attacks.deepfool import differences
from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Answer, Passes, Query
from robustgate.core.losses import margin, others
from robustgate.core.walks import approach, wide

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Fab"]


@dataclass(frozen=True, kw_only=True)
class Fab:
    """Walk along the decision boundary towards the image: onto the linearised boundary, and a little back, in turn.

    `eps` is the budget that the norms found are counted at. A step goes to the plane where another class's logit would
    equal the image's own, from the point by the share 1 - alpha and from the image by alpha, both `eta` times as far as
    the plane is; alpha is as in the paper, at most `alpha_max` (algorithm 1). From a point over the boundary it goes
    back to the share `beta` of the way from the image. Both projections, to the plane within [0, 1], are exact.

    The other classes are taken by the logits of the image as it is, `targets` of them with the largest: one after
    another (`targeted`, the version in AutoAttack, arXiv 2003.01690), each with a walk of its own and a gradient a
    step; or at once, the nearest plane at each step, with a gradient for each class. The paper looks at all of these
    planes at every step, here a walk goes on with the `rivals` that are nearest at its start: with 3 in place of 9 none
    of a hundred norms on CIFAR-10 changed. `restarts` counts all walks towards a class: the first is from the image,
    the others from random points at half of the norm found so far or of `eps`, whichever is smaller. `steps` are those
    of one walk.

    At the end, in place of the paper's own final search, one comes from the best point to the boundary, to
    2**-`refinements` of the way from the image; it asks for logits only, and there is none with 0. A walk ends where no
    class has a gradient, which the paper leaves open.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = True

    eps: float
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    targeted: bool = True
    rivals: int = 3
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    refinements: int = 10

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        for name, least in (("steps", 1), ("restarts", 1), ("targets", 1), ("rivals", 1), ("refinements", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.alpha_max <= 1:
            raise ValueError(f"alpha_max must be from 0 to 1, got {self.alpha_max:g}")
        if not 1 <= self.eta < float("inf"):
            raise ValueError(f"eta must be at least 1 and finite, got {self.eta:g}")
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta must be above 0 and at most 1, got {self.beta:g}")

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return the most that is asked about one sample, where there are so many other classes."""
        at_once = 1 if self.targeted else self.targets
        walk = Passes(forward=2 * self.steps, backward=at_once + (self.steps - 1) * min(self.rivals, at_once))
        walks = walk * (self.restarts * (self.targets if self.targeted else 1))
        return Passes(forward=1) + walks + approach_passes(self.refinements)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:
        """Rank the other classes, walk towards each, and come to the boundary."""
        import torch

        budget = Budget(self.norm, self.eps)
        found = Nearest(images, budget)
        answer = yield Query(torch.arange(len(images), device=images.device), images)
        found.note(found.standing(), images, answer)
        margins = margin(labels)(answer.logits)
        ranked = others(answer.logits, labels).topk(min(self.targets, target.classes - 1), dim=1).indices
        aims = torch.split(ranked, 1, dim=1) if self.targeted else (ranked,)
        for aim, restart in product(aims, range(self.restarts)):
            rows = found.standing()
            if not len(rows):
                return
            start = images[rows]
            if restart > 0:
                shape, streams = images.shape[1:], draws.take(rows)
                away = streams.normal(*shape) if self.norm == "l2" else 2 * streams.uniform(*shape) - 1
                radius = found.norms[rows].clamp_max(self.eps) / 2
                start = (start + wide(radius / budget.size(away)) * away).clamp(0, 1)
            yield from self._walk(found, rows, start, labels, aim)
        rows = (found.norms.isfinite() & ~found.settled).nonzero()[:, 0]
        yield from approach(images, labels, margins, rows, found.points[rows], self.refinements)

    def _walk(self, found: Nearest, rows: Tensor, points: Tensor, labels: Tensor, aims: Tensor) -> Walk:
        """Walk among the samples `rows` from `points`, to the boundaries to any of `aims` (N, K)."""
        budget, aims = found.budget, aims[rows]
        for _ in range(self.steps):
            loss = differences(labels[rows], aims)
            answer = yield Query(rows, points, loss)
            left = found.note(rows, points, answer)
            if not bool(left.any()):
                return  # the gradients of what is settled may be left out
            values = loss(answer.logits)
            distances = distances_to_planes(values, answer.gradient, budget)
            nearest, gradient = nearest_plane(answer.gradient, distances)
            rivals = distances.topk(min(self.rivals, aims.shape[1]), dim=1, largest=False).indices
            aims, values = aims.gather(1, rivals), values.gather(1, nearest)[:, 0]
            left = left & distances.isfinite().any(dim=1)
            rows, points, aims, values, gradient = (one[left] for one in (rows, points, aims, values, gradient))
            if not len(rows):
                return
            centres = found.images[rows]
            at_centre = values + (gradient * (centres - points)).flatten(1).sum(dim=1)
            step = step_to_plane(points, values, gradient, self.norm)
            home = step_to_plane(centres, at_centre, gradient, self.norm)
            length, distance = budget.size(step), budget.size(home)
            alpha = wide((length / (length + distance).clamp_min(1e-38)).clamp_max(self.alpha_max))
            points = (1 - alpha) * (points + self.eta * step) + alpha * (centres + self.eta * home)
            points = points.clamp(0, 1)
            answer = yield Query(rows, points)
            left = found.note(rows, points, answer)
            back = centres + self.beta * (points - centres)
            points = back.where(wide(answer.adversarial), points)
            rows, points, aims = rows[left], points[left], aims[left]
            if not len(rows):
                return


class Nearest:
    """The nearest adversarial point of each sample: `points` (N, 3, H, W), and `norms` (N,), infinite where none is."""

    def __init__(self, images: Tensor, budget: Budget) -> None:
        self.images, self.budget = images, budget
        self.points = images.clone()
        self.norms = images.new_full((len(images),), float("inf"))
        self.settled = self.norms < 0

    def standing(self) -> Tensor:
        """Return the samples that more may be asked about."""
        return (~self.settled).nonzero()[:, 0]

    def note(self, rows: Tensor, points: Tensor, answer: Answer) -> Tensor:
        """Keep what is nearer than before; return which of `rows` are not settled."""
        sizes = self.budget.size(points - self.images[rows])
        nearer = answer.adversarial & (sizes < self.norms[rows])
        self.points[rows[nearer]], self.norms[rows[nearer]] = points[nearer], sizes[nearer]
        self.settled[rows] = answer.settled
        return ~answer.settled
