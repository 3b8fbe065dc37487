"""Random noise: what a network meets without an attacker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Passes, Query

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Noise"]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Add noise of the budget's size, up to `repeats` times a sample: it has fallen when any draw fools.

    In linf every value is uniform in [-eps, eps]; in l2 the noise is Gaussian, scaled to the norm `eps`. Both are then
    clipped to [0, 1]. It is the weakest floor there is: nothing is looked for, and in many dimensions a random
    direction is almost at right angles to the one that fools. What falls here is not robust; what stands is not shown
    to be.
    """

    needs_gradient: ClassVar[bool] = False
    minimizes: ClassVar[bool] = False

    eps: float
    norm: Literal["linf", "l2"] = "linf"
    repeats: int = 100

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return what is asked about a sample that stands."""
        return Passes(forward=self.repeats)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Draw for what stands, again and again."""
        import torch

        budget = Budget(self.norm, self.eps)
        rows = torch.arange(len(images), device=images.device)
        for _ in range(self.repeats):
            centres, streams = images[rows], draws.take(rows)
            if self.norm == "linf":
                points = budget.random_point(centres, streams)
            else:
                points = (centres + self.eps * budget.direction(streams.normal(*images.shape[1:]))).clamp(0, 1)
            answer = yield Query(rows, points)
            rows = rows[~answer.settled]
            if not len(rows):
                return
