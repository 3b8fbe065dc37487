"""AutoAttack (Croce & Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.attacks.apgd_ce import ApgdCe
from robustgate.attacks.apgd_t import ApgdT
from robustgate.attacks.fab import Fab
from robustgate.attacks.square import Square
from robustgate.core.components import Passes
from robustgate.core.walks import among

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Autoattack"]


@dataclass(frozen=True, kw_only=True)
class Autoattack:
    """The standard four in turn, each on what the ones before left standing: apgd_ce, apgd_t, fab and square.

    `steps` are those of one climb of APGD and of one target of FAB, `targets` the other classes that both aim at,
    `queries` those of Square. The sizes are the paper's by default.

    The official code differs in this: its first climb is on the rounded cross-entropy; the first check of a climb
    compares the first loss with 0, not with the start's; its Square shrinks its squares as if it had 10,000 queries
    (for 5,000 they end at 1/128 of the first area), never reaches an image's last row and column, and puts all images'
    squares at one place. torchattacks' version takes 10 steps, not 100, seeds by the clock, so that no two runs agree,
    and ends in an IndexError for fewer than four classes.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = False

    eps: float
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 100
    queries: int = 5000
    targets: int = 9

    def __post_init__(self) -> None:
        self.parts()

    def parts(self) -> tuple[ApgdCe, ApgdT, Fab, Square]:
        """Return the four, in order. Raises ValueError where one refuses its parameters."""
        return (
            ApgdCe(eps=self.eps, norm=self.norm, steps=self.steps),
            ApgdT(eps=self.eps, norm=self.norm, steps=self.steps, targets=self.targets),
            Fab(eps=self.eps, norm=self.norm, steps=self.steps, targets=self.targets),
            Square(eps=self.eps, norm=self.norm, queries=self.queries),
        )

    def passes(self, values: int | None) -> Passes:
        """Return what is asked about a sample that all four leave standing."""
        return sum((one.passes(values) for one in self.parts()), Passes())

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:
        """Run one after the other while any sample stands."""
        import torch

        standing = torch.arange(len(images), device=images.device)
        for attack in self.parts():
            walk = attack.run(images[standing], labels[standing], draws.take(standing), target)
            standing = yield from among(standing, walk)
            if not len(standing):
                return
