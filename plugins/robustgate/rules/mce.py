"""The mean corruption error, against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from robustgate.core.components import Bound
from robustgate.rules._over_shifts import OverShifts, check_ratio, grid, of_benchmark, over_zero

if TYPE_CHECKING:
    from robustgate.core.components import Shares
    from robustgate.core.records import Shift

__all__ = ["Mce"]


def corruption_errors(errors: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each corruption's CE (..., C): errors (..., C, S), summed over the severities, against those of the base.

    NaN where the base's sum is not above zero. The mean over the corruptions is the mCE; of errors less the clean ones
    it is the relative mCE. Source: Hendrycks & Dietterich 2019, arXiv 1903.12261, 4.1.
    """
    return over_zero(errors.sum(axis=-1), base.sum(axis=-1))


@dataclass(frozen=True, kw_only=True)
class Mce(OverShifts):
    """At most so large a mean corruption error: ``max = 1.05``, printed as 105.

    A corruption's error is the sum of the errors at its five severities against the same sum of the uncompressed
    reference of the same model and source domain; the mean is over the fifteen corruptions, nothing is rounded. So
    arXiv 2512.24971 does it (which rounds each corruption's to a whole percent); the original, against AlexNet, is
    ``mce_alexnet``. With `partial`, over what is planned of them.
    """

    compares: ClassVar[bool] = True
    undefined: ClassVar[str] = "the reference makes no error at any severity of a corruption"

    max: float
    partial: bool = False

    def __post_init__(self) -> None:
        check_ratio(self.max, "max")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The largest error."""
        return (Bound(metric="mce_partial" if self.partial else "mce", kind="max", limit=self.max, unit=""),)

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return the cells of the benchmark."""
        return of_benchmark(planned, "mce", partial=self.partial)

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return the mCE, a ratio."""
        return (corruption_errors(1 - grid(shares.right, shifts), 1 - grid(shares.reference, shifts)).mean(axis=-1),)
