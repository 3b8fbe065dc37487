"""How much more accurate a variant is under shift than its clean accuracy lets expect."""

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

__all__ = ["EffectiveRobustness"]

# A line through fewer says more of them than of what is to be expected.
FEWEST = 3
# An accuracy of 0 or 1 has no logit: it stands this near to it.
NEAR = 1e-12


def fit_line(clean: NDArray[np.float64], shifted: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and intercept of logit(shifted) over logit(clean), by least squares; each (M,) accuracies.

    Both are NaN where fewer than three clean accuracies differ, or one of either is 0 or 1, which has no logit.
    """
    both = np.concatenate([clean, shifted])
    if len(np.unique(clean)) < FEWEST or both.min() <= 0 or both.max() >= 1:
        return np.nan, np.nan
    slope, intercept = np.polyfit(_logit(clean), _logit(shifted), 1)
    return float(slope), float(intercept)


def expected(clean: NDArray[np.float64], slope: float, intercept: float) -> NDArray[np.float64]:
    """Return beta: the accuracies under shift that the line lets expect of clean ones."""
    return 1 / (1 + np.exp(-(slope * _logit(clean) + intercept)))


def _logit(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(accuracy, NEAR, 1 - NEAR)
    return np.log(inside / (1 - inside))


@dataclass(frozen=True, kw_only=True)
class EffectiveRobustness(OverShifts):
    """At least such an effective robustness rho: ``min = -0.01``, a point below the line.

    The mean accuracy over the planned corruptions, or over the domains, less what the clean accuracy lets expect by a
    line between their logits. `slope` and `intercept` give the line; without them it is fitted to the uncompressed
    models of the same source domain, for it holds between the same two distributions alone, three of them or more. The
    interval tells how the variant's samples vary, and takes the line as it is. Source: Taori et al. 2020, arXiv
    2007.00644.
    """

    undefined: ClassVar[str] = (
        f"its line needs {FEWEST} uncompressed models of the source domain whose clean accuracies differ, "
        "and none of 0 or 100 %"
    )

    min: float
    slope: float | None = None
    intercept: float | None = None
    over: Over = "corruptions"

    def __post_init__(self) -> None:
        check_fraction(self.min, "min", low=-1.0)
        if (self.slope is None) != (self.intercept is None):
            raise ValueError("a line needs both slope and intercept, or neither: it is then fitted")

    @property
    def standards(self) -> int:  # type: ignore[override]
        """Three for a line that is fitted."""
        return FEWEST if self.slope is None else 0

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The least difference."""
        return (Bound(metric="effective_robustness", kind="min", limit=self.min, unit="points", least=-1, most=1),)

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return the clean images and the shifts of one kind."""
        return (*of_kind(planned, "clean"), *of_kind(planned, self.over))

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return rho."""
        clean, *shifted = shifts
        return (mean(shares.right, shifted) - expected(shares.right(clean), *self._line(shares, shifts)),)

    def remark(self, shares: Shares, shifts: Sequence[Shift]) -> str:
        """Return the line."""
        slope, intercept = self._line(shares, shifts)
        return f"by a line of slope {slope:.3g} and intercept {intercept:.3g} between logits"

    def _line(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[float, float]:
        if self.slope is not None and self.intercept is not None:
            return self.slope, self.intercept
        clean, *shifted = shifts
        return fit_line(shares.standards(clean), mean(shares.standards, shifted))
