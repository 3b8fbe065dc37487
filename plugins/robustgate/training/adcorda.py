"""AdCorDA: adversarial correction, then adaptation back (Shen et al. 2024, arXiv 2401.13212)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from robustgate.core.catalog import shelf
from robustgate.core.components import Attack
from robustgate.core.errors import CompressionError
from robustgate.training._coral import Aligning, Alignment

if TYPE_CHECKING:
    from robustgate.core.components import Course, Network
    from robustgate.training._descent import Run

__all__ = ["AdCorDa"]

# The l2 norm of no image is above it, up to 5,773 x 5,773 pixels.
FARTHEST = 1e4


def nearest_stored() -> Attack:
    """Return DDN as its authors use it for images that are stored: the nearest point among 256 levels, however far."""
    attack: Attack = shelf("attacks").component("ddn")(eps=FARTHEST, levels=256)
    return attack


@dataclass(frozen=True, kw_only=True)
class AdCorDa(Aligning):
    """Move misclassified training images until the network is right, then the weights until it needs no such move.

    First `attack`, turned towards each label, looks for the nearest image that is taken for it: by default DDN, without
    a bound. Corrected images take the place of the misclassified ones; all others stay, and those that cannot be
    corrected. That set is the labelled source, the train split as it was the unlabelled target of Deep CORAL. Gradients
    pass the rounding of a network that simulates its quantized file straight through, in both stages.

    Of the second stage the source that could be read says no more than "Deep CORAL". Ours are: that the logits are
    aligned, the weight, the learning rate, and that images are not moved (`shift` 0): a pixel aside, most corrections
    are none.
    """

    shift: int = 0
    attack: Attack = field(default_factory=nearest_stored)

    def begin(self, network: Network, course: Course) -> Run:
        """Return the run on the corrected samples and the images as they were."""
        corrected, rows = course.corrected(network, self.attack)
        if not len(rows):
            raise CompressionError(
                "adcorda: nothing was corrected: the network classifies every training sample right, or the attack "
                "corrects none of those that it does not"
            )
        return Alignment(self, network, course, corrected, course.samples("train").images)
