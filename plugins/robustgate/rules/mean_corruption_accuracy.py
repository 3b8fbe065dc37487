"""The mean accuracy over the corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from robustgate.core.components import Bound
from robustgate.rules._over_shifts import OverShifts, check_fraction, mean, of_kind

if TYPE_CHECKING:
    from robustgate.core.components import Shares
    from robustgate.core.records import Shift

__all__ = ["MeanCorruptionAccuracy"]


@dataclass(frozen=True, kw_only=True)
class MeanCorruptionAccuracy(OverShifts):
    """At least so much accuracy under corruption, ``min = 0.6``, or so little less than the reference, or both.

    The plain mean over all planned corruptions and severities; ``max_drop = 0.02`` is the reference's mean less the
    variant's, on the same images.
    """

    min: float | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if self.min is None and self.max_drop is None:
            raise ValueError("a rule on the mean corruption accuracy needs a limit: min, max_drop or both")
        check_fraction(self.min, "min")
        check_fraction(self.max_drop, "max_drop")

    @property
    def compares(self) -> bool:  # type: ignore[override]
        """Whether it has a drop alone: the reference has none."""
        return self.min is None

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The floor, then the largest drop."""
        name = "mean_corruption_accuracy"
        bounds = []
        if self.min is not None:
            bounds.append(Bound(metric=name, kind="min", limit=self.min, least=0, most=1))
        if self.max_drop is not None:
            bounds.append(Bound(metric=name, kind="max_drop", limit=self.max_drop, unit="points", least=-1, most=1))
        return tuple(bounds)

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return all corruptions."""
        return of_kind(planned, "corruptions")

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return the mean accuracy and its drop, each where it has a limit."""
        held = mean(shares.right, shifts)
        floor = [] if self.min is None else [held]
        drop = [] if self.max_drop is None else [mean(shares.reference, shifts) - held]
        return (*floor, *drop)
