"""The time that the artifact takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from robustgate.core.records import Timing, VariantRecord

__all__ = ["Latency"]

UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, kw_only=True)
class Latency:
    """At most so long: ``max = "5 ms"``, or against the reference ``max_ratio = 0.7``; medians, for one batch.

    Times hold for the machine that the run is on; the ratio, taken in the same run in turn with the reference, is less
    bound to it. The rule passes where the whole interval is within the limit.
    """

    limit_kind: ClassVar[Literal["min", "max"]] = "max"
    measures: ClassVar[Literal["latency"]] = "latency"

    max: str | None = None
    max_ratio: float | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        if (self.max is None) == (self.max_ratio is None):
            raise ValueError('a latency rule needs one limit: max = "5 ms" or max_ratio = 0.7')
        if self.max is not None and not re.fullmatch(r"\d+(\.\d+)? ?(us|ms|s)", self.max):
            raise ValueError(f"max must be a time such as '5 ms' (units us, ms, s), got {self.max!r}")
        if self.max_ratio is not None and self.max_ratio <= 0:
            raise ValueError(f"max_ratio must be above 0, got {self.max_ratio:g}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")

    @property
    def metric(self) -> str:
        """Which figure it is: ``latency_ms``, ``latency_ratio_batch_32``."""
        name = "latency_ratio" if self.max is None else "latency_ms"
        return name if self.batch == 1 else f"{name}_batch_{self.batch}"

    @property
    def limit(self) -> float:
        """The longest time in milliseconds, or the largest ratio."""
        if self.max is None:
            return float(self.max_ratio or 0)
        unit = self.max.lstrip("0123456789. ")
        return float(self.max.removesuffix(unit)) * UNITS[unit]

    def value(self, record: VariantRecord, reference: VariantRecord) -> float | None:  # noqa: ARG002
        """Return the median in milliseconds, or the median ratio; None where this batch was not timed."""
        timing = self._timing(record)
        if timing is None:
            return None
        return timing.ratio if self.max is None else timing.median_ms

    def interval(self, record: VariantRecord, reference: VariantRecord) -> tuple[float, float] | None:  # noqa: ARG002
        """Return the interval of that median."""
        timing = self._timing(record)
        if timing is None:
            return None
        ratio = self.max is None
        return (timing.ratio_low, timing.ratio_high) if ratio else (timing.low_ms, timing.high_ms)

    def show(self, value: float) -> str:
        """Return ``4.12 ms``, or ``0.65 times the reference``; of how many images where it is not one."""
        of = "" if self.batch == 1 else f" for {self.batch} images"
        return (f"{value:.3g} times the reference" if self.max is None else f"{value:.4g} ms") + of

    def _timing(self, record: VariantRecord) -> Timing | None:
        return next((timing for timing in record.timings if timing.batch == self.batch), None)
