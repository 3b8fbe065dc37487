"""APGD on the cross-entropy (Croce & Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.attacks._apgd import climb, climb_passes, refuse_impossible
from robustgate.core.budget import Budget
from robustgate.core.components import Passes
from robustgate.core.losses import log_odds
from robustgate.core.walks import among

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["ApgdCe"]


@dataclass(frozen=True, kw_only=True)
class ApgdCe:
    """Climb the cross-entropy with momentum, in steps that halve where the loss stops rising (algorithm 1).

    A step is 2 `eps` long at first. At checkpoints, for each sample by itself, it is halved and the climb goes on from
    the highest point, if fewer than 3/4 of the steps rose or none rose above that point. The start is drawn uniformly
    from the ball; `restarts` are further climbs for what still stands.

    What is climbed is the log-odds against the label, of which cross-entropy is a growing function: the climb is the
    same, since only the order of values and the direction of gradients count. But it does not stop where a network is
    so sure that float32 rounds the cross-entropy to 0.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = False

    eps: float
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 100
    restarts: int = 0

    def __post_init__(self) -> None:
        refuse_impossible(self)

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return what is asked about a sample that stands."""
        return climb_passes(self.steps) * (1 + self.restarts)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Climb, and again from elsewhere while any stands."""
        import torch

        budget = Budget(self.norm, self.eps)
        standing = torch.arange(len(images), device=images.device)
        for _ in range(1 + self.restarts):
            centres, truth = images[standing], labels[standing]
            start = budget.random_point(centres, draws.take(standing))
            standing = yield from among(standing, climb(centres, start, log_odds, (truth,), budget, self.steps))
            if not len(standing):
                return
