"""How many times smaller the artifact is than its reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from robustgate.core.records import VariantRecord

__all__ = ["CompressionRatio"]


@dataclass(frozen=True, kw_only=True)
class CompressionRatio:
    """At least so many times smaller than the reference: ``min = 4.0``.

    There is more than one such ratio, and they order compressions differently: `of` says which is meant. ``deflated``:
    both files after zlib at level 6, the compression rate of arXiv 2512.24971, which sees zeros and clusters of equal
    weights; ``file``: both files as they are; ``parameters``: both counts of parameters, zeros among them.
    """

    limit_kind: ClassVar[Literal["min", "max"]] = "min"
    measures: ClassVar[None] = None

    min: float
    of: Literal["deflated", "file", "parameters"] = "deflated"

    def __post_init__(self) -> None:
        if self.min <= 0:
            raise ValueError(f"min must be above 0, got {self.min:g}")

    @property
    def metric(self) -> str:
        """Which ratio it is: ``compression_ratio_deflated``."""
        return f"compression_ratio_{self.of}"

    @property
    def limit(self) -> float:
        """The smallest ratio."""
        return float(self.min)

    def value(self, record: VariantRecord, reference: VariantRecord) -> float | None:
        """Return the ratio, None where the weights of one of the two files cannot be counted."""
        figures = {
            "deflated": (reference.deflated_bytes, record.deflated_bytes),
            "file": (reference.size_bytes, record.size_bytes),
            "parameters": (reference.parameters, record.parameters),
        }
        before, after = figures[self.of]
        return before / after if before and after else None

    def interval(self, record: VariantRecord, reference: VariantRecord) -> tuple[float, float] | None:
        """Return the ratio twice: it is exact."""
        value = self.value(record, reference)
        return None if value is None else (value, value)

    def show(self, value: float) -> str:
        """Return ``4.12 times smaller (deflated)``, with digits enough to tell it from a limit that it misses."""
        exact = f"{value:.3g}" if float(f"{value:.3g}") == value else f"{value:.6g}"
        return f"{exact} times smaller ({self.of})"
