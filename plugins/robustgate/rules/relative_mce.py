"""The relative mean corruption error, against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from robustgate.core.components import Bound
from robustgate.rules._over_shifts import OverShifts, check_fraction, check_ratio, grid, of_benchmark, of_kind
from robustgate.rules.mce import corruption_errors

if TYPE_CHECKING:
    from robustgate.core.components import Shares
    from robustgate.core.records import Shift

__all__ = ["RelativeMce"]


@dataclass(frozen=True, kw_only=True)
class RelativeMce(OverShifts):
    """At most so large a relative mCE, and at least so much accuracy: ``max = 1.0``, ``floor = 0.6``.

    As ``mce``, of what each corruption adds to the clean error. It falls when a network loses its clean accuracy, and
    so rewards collapse: it never stands without `floor`, the least mean accuracy over the same corruptions. Both must
    hold.
    """

    compares: ClassVar[bool] = True
    undefined: ClassVar[str] = "a corruption adds nothing to the reference's clean error"

    max: float
    floor: float
    partial: bool = False

    def __post_init__(self) -> None:
        check_ratio(self.max, "max")
        check_fraction(self.floor, "floor")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The largest error, then the floor."""
        name = "relative_mce_partial" if self.partial else "relative_mce"
        return (
            Bound(metric=name, kind="max", limit=self.max, unit=""),
            Bound(metric="mean_corruption_accuracy", kind="min", limit=self.floor, key="floor", least=0, most=1),
        )

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return the clean images and the cells of the benchmark."""
        return (*of_kind(planned, "clean"), *of_benchmark(planned, "relative_mce", partial=self.partial))

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return the relative mCE, a ratio, and the mean accuracy over its corruptions."""
        clean, *_ = shifts
        right, reference = grid(shares.right, shifts), grid(shares.reference, shifts)
        added = shares.right(clean)[:, None, None] - right
        base = shares.reference(clean)[:, None, None] - reference
        return corruption_errors(added, base).mean(axis=-1), right.mean(axis=(-2, -1))
