"""The memory that running the artifact takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.rules._bytes import read_bytes, show_bytes

if TYPE_CHECKING:
    from robustgate.core.records import VariantRecord

__all__ = ["Memory"]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """At most so much memory for loading the artifact and running one image: ``max = "50 MB"``.

    The peak of a process of its own, without the runtime's own code. Measured on Linux; elsewhere the finding is
    incomplete.
    """

    metric: ClassVar[str] = "memory_bytes"
    limit_kind: ClassVar[Literal["min", "max"]] = "max"
    measures: ClassVar[Literal["memory"]] = "memory"

    max: str

    def __post_init__(self) -> None:
        read_bytes(self.max, "max")

    @property
    def limit(self) -> float:
        """The limit in bytes."""
        return read_bytes(self.max, "max")

    def value(self, record: VariantRecord, reference: VariantRecord) -> float | None:  # noqa: ARG002
        """Return the peak in bytes."""
        return None if record.memory_bytes is None else float(record.memory_bytes)

    def interval(self, record: VariantRecord, reference: VariantRecord) -> tuple[float, float] | None:
        """Return the peak twice: it is one reading."""
        value = self.value(record, reference)
        return None if value is None else (value, value)

    def show(self, value: float) -> str:
        """Return ``2.9 MB``."""
        return show_bytes(value)
