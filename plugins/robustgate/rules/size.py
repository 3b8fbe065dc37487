"""The size of the artifact's file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from robustgate.core.records import VariantRecord

__all__ = ["Size"]

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, kw_only=True)
class Size:
    """At most so many bytes on the device: ``max = "3 MB"`` (10^6 bytes) or ``"3 MiB"`` (2^20 bytes)."""

    metric: ClassVar[str] = "size_bytes"
    limit_kind: ClassVar[Literal["min", "max"]] = "max"
    measures: ClassVar[None] = None

    max: str

    def __post_init__(self) -> None:
        if not re.fullmatch(rf"\d+(\.\d+)? ?({'|'.join(UNITS)})", self.max):
            raise ValueError(f"max must be a size such as '3 MB' (units {', '.join(UNITS)}), got {self.max!r}")

    @property
    def limit(self) -> float:
        """The limit in bytes."""
        number, unit = re.split(r" ?(?=[A-Za-z])", self.max, maxsplit=1)
        return float(number) * UNITS[unit]

    def value(self, record: VariantRecord, reference: VariantRecord) -> float:  # noqa: ARG002
        """Return the size of the artifact in bytes."""
        return float(record.size_bytes)

    def interval(self, record: VariantRecord, reference: VariantRecord) -> tuple[float, float]:
        """Return the size twice: it is exact."""
        return self.value(record, reference), self.value(record, reference)

    def show(self, value: float) -> str:
        """Return bytes in the largest decimal unit that keeps the number above one, and whole where that rounds."""
        unit = next(unit for unit in ("GB", "MB", "kB", "B") if value >= UNITS[unit] or unit == "B")
        short = f"{value / UNITS[unit]:.4g} {unit}"
        return short if float(f"{value / UNITS[unit]:.4g}") * UNITS[unit] == value else f"{short} ({value:,.0f} B)"
