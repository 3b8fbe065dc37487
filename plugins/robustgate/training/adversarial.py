"""Adversarial training (Madry et al. 2018, arXiv 1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from robustgate.core.catalog import shelf
from robustgate.core.components import Attack
from robustgate.training._descent import Descent

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.training._descent import Run

__all__ = ["Adversarial"]


def madry() -> Attack:
    """Return the attack that the paper trains on for CIFAR-10: 7 steps of a quarter of eps, from a random point."""
    attack: Attack = shelf("attacks").component("pgd")(eps=8 / 255, steps=7, relative_step=0.25, give_up=float("inf"))
    return attack


@dataclass(frozen=True, kw_only=True)
class Adversarial(Descent):
    """Minimise the loss where an attack on the network as it is now has led: the inner maximum of the paper's eq. 2.1.

    `attack` is the paper's for CIFAR-10 unless another is given: PGD in linf at eps 8/255. Of each batch the `share` is
    attacked, in eval mode, and the rest left as it is; the network learns from both at once, in train mode. It takes
    as many more passes as the attack has steps.
    """

    attack: Attack = field(default_factory=madry)
    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not hasattr(self.attack, "run"):
            raise ValueError(f"attack must be one that attacks by itself, got {type(self.attack).__name__}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be in [0, 1], got {self.share:g}")

    def gradients(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        """Leave the gradients of a batch of which the first images are perturbed, and return its loss."""
        import torch

        count = round(self.share * len(images))  # the batch is in random order: the first are any
        if count:
            with run.precision():
                points = run.course.perturbed(run.network, images[:count], labels[:count], self.attack, run.step)
            images = torch.cat([points, images[count:]])
        return super().gradients(run, images, labels)
