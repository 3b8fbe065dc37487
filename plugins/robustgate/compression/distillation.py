"""Knowledge distillation (Hinton, Vinyals and Dean 2015, arXiv 1503.02531)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robustgate.compression._classes import count_classes
from robustgate.core.components import ConstraintKind, Network, Recipe
from robustgate.core.errors import CompressionError
from robustgate.core.losses import softened

if TYPE_CHECKING:
    from robustgate.core.components import Workshop

__all__ = ["Distillation"]


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Train a student on the teacher's softened outputs.

        L = (1 - alpha) CE(z_s, y) + alpha T^2 KL(softmax(z_t / T) || softmax(z_s / T))

    Who teaches: `teacher`, a model of the configuration, or else the network that the chain has made so far. Who
    learns: a fresh network of the factory `build` with `args`; or `student`, a model of the configuration, which
    goes on from its own weights; or, where `teacher` is named and neither of these, the chain's own network (a
    pruned one taught by the big one), under the constraints that it has. `training` is the student's recipe; both
    see the same augmented images, and the teacher answers in eval mode.

    The studies of compressed networks that use it leave temperature and alpha open; these defaults are Hinton's
    usual range.
    """

    product: ClassVar[Literal["network", "file"]] = "network"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset()

    training: Recipe
    teacher: str | None = None
    student: str | None = None
    build: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 4.0
    alpha: float = 0.9

    def __post_init__(self) -> None:
        if self.student is not None and self.build is not None:
            raise ValueError(f"give either student or build, got student {self.student!r} and build {self.build!r}")
        if self.teacher is None and self._taught_in_place:
            raise ValueError("the chain's network cannot teach itself: give teacher, student or build")
        if self.teacher is not None and self.teacher == self.student:
            raise ValueError(f"teacher and student must be two models, got {self.teacher!r} twice")
        if self.args and self.build is None:
            raise ValueError("args are the arguments of build, which is not given")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature:g}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {self.alpha:g}")

    @property
    def keeps(self) -> frozenset[ConstraintKind]:
        """Every kind where the chain's own network learns; none where another one takes its place."""
        return frozenset({"zeros", "clusters", "quantizers"} if self._taught_in_place else ())

    @property
    def models(self) -> tuple[str, ...]:
        """The configured models that it asks the workshop for."""
        return tuple(name for name in (self.teacher, self.student) if name is not None)

    def apply(self, network: Network, workshop: Workshop) -> Network:
        """Return the trained student. Raises CompressionError where the two do not tell the same classes apart."""
        teaching = network if self.teacher is None else workshop.configured(self.teacher)
        # Copies: whoever else holds these networks gets neither their mode nor their weights changed.
        teacher = copy.deepcopy(teaching.module).eval().requires_grad_(False)
        student = self._student(network, workshop)
        taught, told = count_classes(teacher, workshop.example), count_classes(student.module, workshop.example)
        if taught != told:
            chain = f"{workshop.model} as the chain has made it"
            raise CompressionError(
                f"distillation: the teacher ({self.teacher or chain}) has {taught} classes, "
                f"the student ({self.student or self.build or chain}) has {told}; expected the same number"
            )
        return workshop.train(student, self.training, softened(teacher, self.temperature, self.alpha))

    @property
    def _taught_in_place(self) -> bool:
        return self.student is None and self.build is None

    def _student(self, network: Network, workshop: Workshop) -> Network:
        if self.build is not None:
            return workshop.build(self.build, self.args)
        learning = network if self.student is None else workshop.configured(self.student)
        return replace(learning, module=copy.deepcopy(learning.module).eval())
