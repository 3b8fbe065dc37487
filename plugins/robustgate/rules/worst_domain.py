"""The accuracy on the domain where it is lowest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from robustgate.core.components import Bound
from robustgate.rules._over_shifts import OverShifts, check_fraction, least, of_kind

if TYPE_CHECKING:
    from robustgate.core.components import Shares
    from robustgate.core.records import Shift

__all__ = ["WorstDomain"]


@dataclass(frozen=True, kw_only=True)
class WorstDomain(OverShifts):
    """At least so much accuracy on every target domain: ``min = 0.5``. The finding names the worst."""

    min: float

    def __post_init__(self) -> None:
        check_fraction(self.min, "min")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The least accuracy."""
        return (Bound(metric="worst_domain", kind="min", limit=self.min, least=0, most=1),)

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return all domain pairs."""
        return of_kind(planned, "domains")

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return the lowest accuracy."""
        return (np.min([shares.right(shift) for shift in shifts], axis=0),)

    def counts(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[tuple[int, int], ...]:
        """Return each domain's samples."""
        sizes = [int(shares.sizes(shift).sum()) for shift in shifts]
        return tuple((round(shares.right(one)[0] * size), size) for one, size in zip(shifts, sizes, strict=True))

    def remark(self, shares: Shares, shifts: Sequence[Shift]) -> str:
        """Return which domain it is."""
        return f"the worst is {least({str(shift.target): shares.right(shift)[0] for shift in shifts})}"
