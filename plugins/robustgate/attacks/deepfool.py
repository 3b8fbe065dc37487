"""DeepFool (Moosavi-Dezfooli et al. 2016, arXiv 1511.04599)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.attacks._plane import nearest_plane
from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Answer, Loss, Query
from robustgate.core.losses import others
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

    The paper's point lies beyond the boundary, by the overshoot and by what the last step was too long. So a bisection
    of `refinements` halvings ends the attack, on the segment from the image to the point; it asks for logits only, and
    with 0 of them the attack is the paper's.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = True

    eps: float
    norm: Literal["l2", "linf"] = "l2"
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02
    refinements: int = 10

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.candidates < 2:
            raise ValueError(f"candidates must be at least 2, the image's own class and another, got {self.candidates}")
        if not 0 <= self.overshoot < float("inf"):
            raise ValueError(f"overshoot must be at least 0 and finite, got {self.overshoot:g}")
        if self.refinements < 0:
            raise ValueError(f"refinements must be at least 0, got {self.refinements}")

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Walk over the boundary, then come back to it."""
        import torch

        answer = yield Query(torch.arange(len(images), device=images.device), images)
        count = min(self.candidates, target.classes) - 1
        ranked = others(answer.logits, labels).topk(count, dim=1).indices
        rows, points = yield from self._cross(images, labels, ranked)
        yield from approach(images, rows, points, self.refinements)

    def _cross(self, images: Tensor, labels: Tensor, aims: Tensor) -> Generator[Query, Answer, tuple[Tensor, Tensor]]:
        """Return the samples that came over a boundary to any of `aims` (N, K), and their points there."""
        import torch

        budget = Budget(self.norm, self.eps)
        rows, points = torch.arange(len(images), device=images.device), images
        total = torch.zeros_like(images)
        found: list[tuple[Tensor, Tensor]] = []
        for _ in range(self.steps):
            answer = yield Query(rows, points, differences(labels[rows], aims[rows]))
            found.append((rows[answer.adversarial], points[answer.adversarial]))
            values = differences(labels[rows], aims[rows])(answer.logits)
            step, moves = nearest_boundary(values, answer.gradient, budget)
            left = ~answer.adversarial & moves
            if not bool(left.any()):
                break
            rows, total = rows[left], total[left] + step[left]
            points = (images[rows] + (1 + self.overshoot) * total).clamp(0, 1)
        else:
            answer = yield Query(rows, points)
            found.append((rows[answer.adversarial], points[answer.adversarial]))
        return torch.cat([part for part, _ in found]), torch.cat([part for _, part in found])


def differences(labels: Tensor, aims: Tensor) -> Loss:
    """Return the loss of K values: the logits of `aims` (n, K) less the label's, negative while it is decided for."""
    return lambda logits: logits.gather(1, aims) - logits.gather(1, labels[:, None])


def nearest_boundary(values: Tensor, gradient: Tensor, budget: Budget) -> tuple[Tensor, Tensor]:
    """Return the step (n, 3, H, W) to the nearest of K linearised boundaries, and for which samples there is one.

    `values` (n, K) are the differences of logits, `gradient` (n, K, 3, H, W) theirs (the paper's eq. 8 for l2, section
    4 for linf).
    """
    value, chosen, moves = nearest_plane(values, gradient, budget)
    distance = (value.abs() / budget.slope(chosen)).where(moves, value.new_zeros(()))
    return wide(distance + BEYOND) * budget.direction(chosen), moves
