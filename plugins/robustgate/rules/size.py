"""The size of the artifact's file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.rules._bytes import read_bytes, show_bytes

if TYPE_CHECKING:
    from robustgate.core.records import VariantRecord

__all__ = ["Size"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """At most so many bytes on the device: ``max = "3 MB"`` (10^6 bytes) or ``"3 MiB"`` (2^20 bytes)."""

    metric: ClassVar[str] = "size_bytes"
    limit_kind: ClassVar[Literal["min", "max"]] = "max"
    measures: ClassVar[None] = None

    max: str

    def __post_init__(self) -> None:
        read_bytes(self.max, "max")

    @property
    def limit(self) -> float:
        """The limit in bytes."""
        return read_bytes(self.max, "max")

    def value(self, record: VariantRecord, reference: VariantRecord) -> float:  # noqa: ARG002
        """Return the size of the artifact in bytes."""
        return float(record.size_bytes)

    def interval(self, record: VariantRecord, reference: VariantRecord) -> tuple[float, float]:
        """Return the size twice: it is exact."""
        return self.value(record, reference), self.value(record, reference)

    def show(self, value: float) -> str:
        """Return ``2.9 MB``."""
        return show_bytes(value)
