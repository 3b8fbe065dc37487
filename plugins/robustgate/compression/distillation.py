"""Knowledge distillation (Hinton, Vinyals and Dean 2015, arXiv 1503.02531)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robustgate.core.components import Network, Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import ConstraintKind, Workshop

__all__ = ["Distillation"]


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Train a student on the teacher's softened outputs: the network that the chain has made so far teaches.

        L = (1 - alpha) CE(z_s, y) + alpha T^2 KL(softmax(z_t / T) || softmax(z_s / T))

    `build` and `args` are the student's factory, `training` its recipe. The student starts untrained. The studies
    of compressed networks that use it leave temperature and alpha open; these defaults are Hinton's usual range.
    """

    product: ClassVar[Literal["network", "file"]] = "network"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset()
    keeps: ClassVar[frozenset[ConstraintKind]] = frozenset()

    build: str
    args: Mapping[str, Any]
    training: Recipe
    temperature: float = 4.0
    alpha: float = 0.9

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature:g}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {self.alpha:g}")

    def apply(self, network: Network, workshop: Workshop) -> Network:
        """Return the trained student; the teacher is left as it was."""
        import torch
        from torch.nn import functional

        teacher = network.module.eval()

        def objective(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                taught = functional.log_softmax(teacher(images) / self.temperature, dim=1)
            soft = functional.log_softmax(logits / self.temperature, dim=1)
            divergence = functional.kl_div(soft, taught, reduction="batchmean", log_target=True)
            hard = functional.cross_entropy(logits, labels)
            return (1 - self.alpha) * hard + self.alpha * self.temperature**2 * divergence

        student = workshop.build(self.build, self.args)
        workshop.train(student, self.training, objective)
        return student
