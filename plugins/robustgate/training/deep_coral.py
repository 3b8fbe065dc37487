"""Deep CORAL: adaptation to another domain by its images alone (Sun and Saenko 2016, arXiv 1607.01719)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.training._coral import Aligning, Alignment

if TYPE_CHECKING:
    from robustgate.core.components import Course, Network
    from robustgate.training._descent import Run

__all__ = ["DeepCoral"]


@dataclass(frozen=True, kw_only=True)
class DeepCoral(Aligning):
    """Adapt a network to the images of another domain, without their labels, while it learns its own.

    `target` is that domain; the images are those of its train split, so that only its test split judges. The running
    statistics of batch normalisation become the target's: expect the accuracy on the source domain to fall where the
    two differ much.
    """

    target: str

    @property
    def domains(self) -> tuple[str, ...]:
        """The domain that is adapted to."""
        return (self.target,)

    def begin(self, network: Network, course: Course) -> Run:
        """Return the run on the source's samples and the target's images."""
        return Alignment(self, network, course, course.samples("train"), course.unlabelled(self.target))
