"""Knowledge distillation as a way to train (Hinton, Vinyals and Dean 2015, arXiv 1503.02531)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.errors import CompressionError
from robustgate.core.losses import softened
from robustgate.training._descent import Descent

if TYPE_CHECKING:
    from robustgate.core.components import Course, Network
    from robustgate.training._descent import Run

__all__ = ["Distillation"]


@dataclass(frozen=True, kw_only=True)
class Distillation(Descent):
    """Minimise (1 - alpha) CE(z_s, y) + alpha T^2 KL(softmax(z_t / T) || softmax(z_s / T)), the teacher's logits z_t.

    `teacher` is a model of the configuration; without it, the variant's own, as it was before any compression. It
    sees the same augmented images, in eval mode. `temperature` T and the weight `alpha` of what it says are in Hinton's
    usual range. `label_smoothing` must be 0: the teacher's answers are what softens the labels.
    """

    teacher: str | None = None
    temperature: float = 4.0
    alpha: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature:g}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {self.alpha:g}")
        if self.label_smoothing:
            raise ValueError(
                f"label_smoothing must be 0, got {self.label_smoothing:g}: the teacher's answers soften the labels"
            )

    @property
    def models(self) -> tuple[str, ...]:
        """The configured models that it asks the course for."""
        return () if self.teacher is None else (self.teacher,)

    def begin(self, network: Network, course: Course) -> Run:
        """Return a run whose objective is the teacher's.

        Raises CompressionError where the course has an objective, or the teacher tells other classes apart.
        """
        import torch

        if course.objective is not None:
            raise CompressionError(
                "distillation: the compression trains by a loss of its own, which this recipe would drop; "
                "expected a recipe without one, as supervised"
            )
        # A copy: whoever else holds the teacher gets neither its mode nor its weights changed.
        teacher = copy.deepcopy(course.teacher(self.teacher).module).eval().requires_grad_(False)
        with torch.no_grad():
            taught, told = (one(course.example).shape[-1] for one in (teacher, network.module.eval()))
        if taught != told:
            raise CompressionError(
                f"distillation: the teacher ({self.teacher or 'the model itself, uncompressed'}) has {taught} classes, "
                f"the student has {told}; expected the same number"
            )
        run = super().begin(network, course)
        run.objective = softened(teacher, self.temperature, self.alpha)
        return run
