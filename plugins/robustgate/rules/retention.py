"""How much of its clean accuracy a variant keeps under shift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from robustgate.core.components import Bound
from robustgate.rules._over_shifts import Over, OverShifts, check_fraction, check_ratio, mean, of_kind, over_zero

if TYPE_CHECKING:
    from robustgate.core.components import Shares
    from robustgate.core.records import Shift

__all__ = ["Retention"]


@dataclass(frozen=True, kw_only=True)
class Retention(OverShifts):
    """At least such a share of the clean accuracy, and at least so much accuracy: ``min = 0.7``, ``floor = 0.5``.

    The mean accuracy over the planned corruptions, or over the domains, by that on clean images (R_C and R_V2 of arXiv
    2306.14306). It rises when clean accuracy falls faster: it never stands without `floor`, the least mean accuracy
    under shift. Both must hold.
    """

    undefined: ClassVar[str] = "no clean image is classified right"

    min: float
    floor: float
    over: Over = "corruptions"

    def __post_init__(self) -> None:
        check_ratio(self.min, "min")
        check_fraction(self.floor, "floor")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The least retention, then the floor."""
        floor = "mean_corruption_accuracy" if self.over == "corruptions" else "mean_domain_accuracy"
        return (
            Bound(metric="retention", kind="min", limit=self.min),
            Bound(metric=floor, kind="min", limit=self.floor, key="floor", least=0, most=1),
        )

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return the clean images and the shifts of one kind."""
        return (*of_kind(planned, "clean"), *of_kind(planned, self.over))

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return the retention and the mean accuracy under shift."""
        clean, *shifted = shifts
        held = mean(shares.right, shifted)
        return over_zero(held, shares.right(clean)), held
