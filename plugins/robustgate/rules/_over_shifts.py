"""What rules on a variant's outcomes have in common: which shifts they take, and how accuracies stand in arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from robustgate.core.benchmark import BENCHMARK_CORRUPTIONS, SEVERITIES
from robustgate.core.errors import listing

if TYPE_CHECKING:
    from robustgate.core.components import Shares
    from robustgate.core.records import Shift

Over = Literal["corruptions", "domains"]
Accuracy = Callable[["Shift"], NDArray[np.float64]]

KINDS = {
    "clean": ("clean", "it is measured on no clean images"),
    "corruptions": ("corruption", "it needs corruptions, and shifts.corruptions names none"),
    "domains": ("domain_shift", "it needs a domain pair from this source, and shifts.pairs has none"),
}


@dataclass(frozen=True, kw_only=True)
class OverShifts:
    """What most rules on outcomes are: they judge the reference too, fit nothing, and always have a figure."""

    measures: ClassVar[Literal["outcomes"]] = "outcomes"
    compares: ClassVar[bool] = False
    standards: ClassVar[int] = 0
    undefined: ClassVar[str] = ""

    def counts(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[tuple[int, int], ...]:  # noqa: ARG002
        """Return nothing: the interval is the bootstrap's."""
        return ()

    def remark(self, shares: Shares, shifts: Sequence[Shift]) -> str:  # noqa: ARG002
        """Return nothing: the figures say it all."""
        return ""


def of_kind(planned: Sequence[Shift], over: str) -> tuple[Shift, ...]:
    """Return the shifts of one kind: ``clean``, ``corruptions`` or ``domains``. Raises ValueError without any."""
    kind, missing = KINDS[over]
    found = tuple(shift for shift in planned if shift.kind == kind)
    if not found:
        raise ValueError(missing)
    return found


def of_benchmark(planned: Sequence[Shift], metric: str, *, partial: bool) -> tuple[Shift, ...]:
    """Return the planned cells of the benchmark. Raises ValueError where it is not whole, and a part was not asked."""
    found = tuple(
        shift for shift in planned if shift.corruption in BENCHMARK_CORRUPTIONS and shift.severity in SEVERITIES
    )
    if partial and not found:
        raise ValueError("it needs corruptions of the benchmark, and shifts.corruptions names none")
    cells = {(shift.corruption, shift.severity) for shift in found}
    if not partial and len(cells) < len(BENCHMARK_CORRUPTIONS) * len(SEVERITIES):
        missing = [name for name in BENCHMARK_CORRUPTIONS if not any(name == planned for planned, _ in cells)]
        lacks = [f"the corruptions {listing(missing)}"] if missing else []
        severities = [str(severity) for severity in SEVERITIES if not any(severity == one for _, one in cells)]
        lacks += [f"the severities {listing(severities)}"] if severities else []
        raise ValueError(
            f"{metric} is defined over the 15 corruptions of the benchmark at severities 1 to 5; the plan lacks "
            f"{' and '.join(lacks)}; partial = true takes those it has, and calls the figure {metric}_partial"
        )
    return found


def grid(accuracy: Accuracy, shifts: Sequence[Shift]) -> NDArray[np.float64]:
    """Return accuracies (R, corruptions, severities), both in the order of `shifts`, which hold every severity of each.

    Shifts that are no corruptions are passed over.
    """
    rows: dict[str | None, list[NDArray[np.float64]]] = {}
    for shift in shifts:
        if shift.kind == "corruption":
            rows.setdefault(shift.corruption, []).append(accuracy(shift))
    return np.stack([np.stack(cells, axis=-1) for cells in rows.values()], axis=-2)


def mean(values: Callable[[Shift], NDArray[np.float64]], shifts: Sequence[Shift]) -> NDArray[np.float64]:
    """Return the plain mean over shifts."""
    total: NDArray[np.float64] = np.sum([values(shift) for shift in shifts], axis=0)
    return total / len(shifts)


def over_zero(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quotient, NaN where the denominator is not above zero, up to what rounding leaves of a share."""
    return numerator / np.where(denominator > 1e-9, denominator, np.nan)


def check_fraction(value: float | None, key: str, low: float = 0.0) -> None:
    """Raise ValueError unless a limit, where there is one, lies in [low, 1]."""
    if value is not None and not low <= value <= 1:
        raise ValueError(f"{key} must be a fraction in [{low:g}, 1], got {value:g}")


def check_ratio(value: float, key: str) -> None:
    """Raise ValueError unless a limit on an error ratio is one, and no percentage."""
    if not 0 < value <= 10:
        raise ValueError(f"{key} must be a ratio above 0, 1.0 being that of the base itself, got {value:g}")


def least(named: dict[str, Any]) -> str:
    """Return the name of the least value."""
    return min(named, key=lambda name: named[name])
