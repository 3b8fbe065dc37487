"""PGD on logits scaled down: it tells whether the scale of a network's logits is what hides its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from robustgate.attacks.pgd import Pgd
from robustgate.core.components import AttackTarget, Draws, Loss, Query, Walk
from robustgate.core.losses import cross_entropy, margin

# Below this margin of the logits, float32 holds the gradient of the cross-entropy to a thousandth.
HEALTHY = 10.0


@dataclass(frozen=True, kw_only=True)
class Rescaled:
    """A walk on the cross-entropy of logits that are scaled down, sample by sample, to a margin of at most `HEALTHY`.

    The scale is a constant to the gradient. A network with smaller logits is walked on as without it.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = False

    inner: Pgd

    @property
    def norm(self) -> Literal["linf", "l2"]:
        """That of the inner walk."""
        return self.inner.norm

    @property
    def eps(self) -> float:
        """That of the inner walk."""
        return self.inner.eps

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:
        """Ask what the inner walk asks, with the other loss."""
        walk = self.inner.run(images, labels, draws, target)
        query = next(walk, None)
        while query is not None:
            loss = rescaled(labels[query.rows]) if query.loss is not None else None
            answer = yield Query(query.rows, query.points, loss)
            try:
                query = walk.send(answer)
            except StopIteration:
                return


def rescaled(labels: Tensor) -> Loss:
    """Return the loss that `Rescaled` climbs."""

    def loss(logits: Tensor) -> Tensor:
        scale = (margin(labels)(logits).detach().abs() / HEALTHY).clamp_min(1)
        return cross_entropy(labels)(logits / scale[:, None])

    return loss
