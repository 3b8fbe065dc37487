"""The number of the artifact's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.core.counts import read_count

if TYPE_CHECKING:
    from robustgate.core.records import VariantRecord

__all__ = ["Parameters"]


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """At most so many parameters: ``max = "4.51M"``; with `nonzero`, only those that are not zero are counted.

    A file whose weights cannot be counted is never within the limit: the finding is incomplete.
    """

    limit_kind: ClassVar[Literal["min", "max"]] = "max"
    measures: ClassVar[None] = None

    max: str | int
    nonzero: bool = False

    def __post_init__(self) -> None:
        read_count(self.max, "max")

    @property
    def metric(self) -> str:
        """Which count it is."""
        return "nonzero_parameters" if self.nonzero else "parameters"

    @property
    def limit(self) -> float:
        """The largest count."""
        return float(read_count(self.max, "max"))

    def value(self, record: VariantRecord, reference: VariantRecord) -> float | None:  # noqa: ARG002
        """Return the count, None where the weights of the file cannot be counted."""
        count = record.nonzero_parameters if self.nonzero else record.parameters
        return None if count is None else float(count)

    def interval(self, record: VariantRecord, reference: VariantRecord) -> tuple[float, float] | None:
        """Return the count twice: it is exact."""
        value = self.value(record, reference)
        return None if value is None else (value, value)

    def show(self, value: float) -> str:
        """Return ``4,510,000 parameters``."""
        return f"{value:,.0f} {'nonzero ' if self.nonzero else ''}parameters"
