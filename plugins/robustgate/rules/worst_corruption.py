"""The accuracy under the corruption where it is lowest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from robustgate.core.components import Bound
from robustgate.rules._over_shifts import OverShifts, check_fraction, grid, least, of_kind

if TYPE_CHECKING:
    from robustgate.core.components import Shares
    from robustgate.core.records import Shift

__all__ = ["WorstCorruption"]


@dataclass(frozen=True, kw_only=True)
class WorstCorruption(OverShifts):
    """At least so much accuracy under every corruption, as the mean over its planned severities: ``min = 0.4``.

    The finding names the worst. In a resample another one may be, and a little worse: the interval leans down.
    """

    min: float

    def __post_init__(self) -> None:
        check_fraction(self.min, "min")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The least accuracy."""
        return (Bound(metric="worst_corruption", kind="min", limit=self.min, least=0, most=1),)

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return all corruptions."""
        return of_kind(planned, "corruptions")

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return the lowest mean accuracy."""
        return (grid(shares.right, shifts).mean(axis=-1).min(axis=-1),)

    def remark(self, shares: Shares, shifts: Sequence[Shift]) -> str:
        """Return which corruption it is."""
        names = dict.fromkeys(str(shift.corruption) for shift in shifts)
        held = grid(shares.right, shifts)[0].mean(axis=-1)
        return f"the worst is {least(dict(zip(names, held, strict=True)))}"
