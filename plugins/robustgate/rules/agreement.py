"""How often a variant predicts what its reference does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from robustgate.core.components import Bound
from robustgate.rules._over_shifts import OverShifts, check_fraction, mean, of_kind

if TYPE_CHECKING:
    from robustgate.core.components import Shares
    from robustgate.core.records import Shift

__all__ = ["Agreement"]


@dataclass(frozen=True, kw_only=True)
class Agreement(OverShifts):
    """At least such a share of images on which variant and reference predict the same class: ``min = 0.97``.

    On clean images, or as the mean over the planned corruptions or domains. Accuracy may stay while predictions change;
    the finding says in which direction they do.
    """

    compares: ClassVar[bool] = True

    min: float
    over: Literal["clean", "corruptions", "domains"] = "clean"

    def __post_init__(self) -> None:
        check_fraction(self.min, "min")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The least share."""
        return (Bound(metric="agreement", kind="min", limit=self.min, least=0, most=1),)

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return the shifts of one kind."""
        return of_kind(planned, self.over)

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return the share of equal predictions."""
        return (1 - mean(shares.changed, shifts).sum(axis=-1),)

    def counts(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[tuple[int, int], ...]:
        """Return the samples of one shift."""
        if len(shifts) > 1:
            return ()
        (shift,) = shifts
        size = int(shares.sizes(shift).sum())
        return ((size - round(shares.changed(shift)[0].sum() * size), size),)

    def remark(self, shares: Shares, shifts: Sequence[Shift]) -> str:
        """Return in which direction predictions change."""
        lost, gained, other = 100 * mean(shares.changed, shifts)[0]
        return f"right→wrong {lost:.1f} %, wrong→right {gained:.1f} %, wrong→other wrong {other:.1f} %"
