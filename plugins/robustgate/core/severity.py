"""The five severities of a corruption: published values for small and for large images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from robustgate.core.benchmark import SEVERITIES
from robustgate.core.errors import ConfigurationError, MeasurementError, nearest

Table = Literal["auto", "cifar", "imagenet"]
"""Which published values a corruption uses: those of CIFAR-10-C (32 px), of ImageNet-C (224 px), or by the image."""

SMALL_SIDE = 64
"""The longest side, in pixels, that ``auto`` takes for a small image."""

Value = TypeVar("Value")
Row = tuple[Value, Value, Value, Value, Value]


@dataclass(frozen=True, kw_only=True)
class SeverityTable(Generic[Value]):
    """What a corruption is set to at severities 1 to 5, for images of 32 px and of 224 px."""

    cifar: Row[Value]
    imagenet: Row[Value]

    def at(self, severity: int, side: int, table: Table = "auto") -> Value:
        """Return the value at `severity` for images whose shorter side is `side` pixels.

        ``auto`` takes the small images' values up to 64 px. Raises MeasurementError for a severity other than 1 to
        5, ConfigurationError for an unknown table.
        """
        if severity not in SEVERITIES:
            raise MeasurementError(f"severity must be a whole number from 1 to 5, got {severity}")
        rows = {"cifar": self.cifar, "imagenet": self.imagenet}
        name = ("cifar" if side <= SMALL_SIDE else "imagenet") if table == "auto" else table
        if name not in rows:
            known = ("auto", *rows)
            raise ConfigurationError([f"table must be one of {', '.join(known)}, got {name!r}{nearest(name, known)}"])
        return rows[name][severity - 1]
