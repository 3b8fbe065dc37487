"""The accuracy on the class where it is lowest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from robustgate.core.components import Bound
from robustgate.rules._over_shifts import OverShifts, check_fraction, least, mean, of_kind

if TYPE_CHECKING:
    from robustgate.core.components import Shares
    from robustgate.core.records import Shift

__all__ = ["WorstClass"]


@dataclass(frozen=True, kw_only=True)
class WorstClass(OverShifts):
    """At least so much accuracy on the images of every class: ``min = 0.5``.

    On clean images, or as the mean over the planned corruptions or domains; a class that one of them has no samples of
    is left out. The finding names the worst.
    """

    min: float
    over: Literal["clean", "corruptions", "domains"] = "clean"

    def __post_init__(self) -> None:
        check_fraction(self.min, "min")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The least accuracy."""
        return (Bound(metric="worst_class", kind="min", limit=self.min, least=0, most=1),)

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return the shifts of one kind."""
        return of_kind(planned, self.over)

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return the lowest accuracy of a class."""
        return (np.nanmin(mean(shares.by_class, shifts), axis=-1),)

    def counts(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[tuple[int, int], ...]:
        """Return each class's samples, where they are those of one shift."""
        if len(shifts) > 1:
            return ()
        (shift,) = shifts
        held, sizes = shares.by_class(shift)[0], shares.sizes(shift)
        return tuple((round(share * size), int(size)) for share, size in zip(held, sizes, strict=True) if size)

    def remark(self, shares: Shares, shifts: Sequence[Shift]) -> str:
        """Return which class it is."""
        held = mean(shares.by_class, shifts)[0]
        named = {name: share for name, share in zip(shares.classes, held, strict=True) if not np.isnan(share)}
        return f"the worst is {least(named)}"
