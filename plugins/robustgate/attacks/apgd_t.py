"""APGD on the targeted difference of logits ratio (Croce & Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.attacks._apgd import climb, climb_passes, refuse_impossible
from robustgate.core.budget import Budget
from robustgate.core.components import Passes, Query
from robustgate.core.losses import dlr_targeted, others
from robustgate.core.walks import among

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["ApgdT"]


@dataclass(frozen=True, kw_only=True)
class ApgdT:
    """Climb towards one other class after another, along the targeted DLR loss (eq. 7); see `apgd_ce` for the steps.

    The other classes are taken by the logits of the image as it is, the largest first: `targets` of them, or all where
    there are fewer. Each climb is for what the ones before left standing. `restarts` are further rounds of all targets,
    from other starts. With three classes or two the loss is as in `core.losses`: the paper needs four.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = False

    eps: float
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 100
    targets: int = 9
    restarts: int = 0

    def __post_init__(self) -> None:
        refuse_impossible(self)
        if self.targets < 1:
            raise ValueError(f"targets must be at least 1, got {self.targets}")

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return what is asked about a sample that stands, where there are so many other classes."""
        return Passes(forward=1) + climb_passes(self.steps) * (self.targets * (1 + self.restarts))

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:
        """Rank the other classes, then climb towards each while any sample stands."""
        import torch

        budget = Budget(self.norm, self.eps)
        everyone = torch.arange(len(images), device=images.device)
        answer = yield Query(everyone, images)
        standing = everyone[~answer.settled]
        ranked = others(answer.logits, labels).topk(min(self.targets, target.classes - 1), dim=1).indices
        for _, place in product(range(1 + self.restarts), range(ranked.shape[1])):
            if not len(standing):
                return
            centres, truth, aims = images[standing], labels[standing], ranked[standing, place]
            start = budget.random_point(centres, draws.take(standing))
            standing = yield from among(
                standing, climb(centres, start, dlr_targeted, (truth, aims), budget, self.steps)
            )
