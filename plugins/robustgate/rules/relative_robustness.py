"""What a compression does to the accuracy under shift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from robustgate.core.components import Bound
from robustgate.rules._over_shifts import Over, OverShifts, check_fraction, mean, of_kind

if TYPE_CHECKING:
    from robustgate.core.components import Shares
    from robustgate.core.records import Shift

__all__ = ["RelativeRobustness"]


@dataclass(frozen=True, kw_only=True)
class RelativeRobustness(OverShifts):
    """At least such a relative robustness tau: ``min = -0.02``, no more than two points lost.

    The variant's mean accuracy over the planned corruptions, or over the domains, less its reference's on the same
    images. Source: Taori et al. 2020, arXiv 2007.00644.
    """

    compares: ClassVar[bool] = True

    min: float
    over: Over = "corruptions"

    def __post_init__(self) -> None:
        check_fraction(self.min, "min", low=-1.0)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The least difference."""
        return (Bound(metric="relative_robustness", kind="min", limit=self.min, unit="points", least=-1, most=1),)

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return the shifts of one kind."""
        return of_kind(planned, self.over)

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return tau."""
        return (mean(shares.right, shifts) - mean(shares.reference, shifts),)
