"""Mild changes of an image change few predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from robustgate.core.errors import nearest

__all__ = ["Stability"]


@dataclass(frozen=True, kw_only=True)
class Range:
    """The amounts of a transformation: multiples of `step`, up to `mild` where a rule says nothing, `most` at most."""

    step: float
    mild: float
    most: float


RANGES: Mapping[str, Range] = {
    "brightness": Range(step=0.01, mild=0.15, most=1),
    "contrast": Range(step=0.01, mild=0.25, most=0.99),
    "gamma": Range(step=0.01, mild=0.25, most=0.99),
    "shift": Range(step=1, mild=2, most=1000),
    "rotation": Range(step=0.25, mild=5, most=180),
    "jpeg": Range(step=1, mild=40, most=99),
}
"""The transformations that a rule may name, in the units of `Stability`."""


@dataclass(frozen=True, kw_only=True)
class Stability:
    """At most a share ``max`` of the predictions changes under any mild transformation: ``max = 0.05``.

    Predictions are compared with those of the same variant on the untouched images; labels play no part. Hypothesis
    searches each transformation up to its limit, both ways, for the mildest that changes more, and shrinks it; where
    none does alone, all of them together. `transformations` names those that are searched, with their limits:
    ``brightness`` (added to every value, images being in [0, 1]), ``contrast`` (what is added to or taken from a factor
    of 1 about the image's mean), ``gamma`` (to or from an exponent of 1), ``shift`` (pixels, along either axis; the
    border is repeated), ``rotation`` (degrees about the centre; the border is repeated), ``jpeg`` (how far the quality
    may fall below 100). `samples` of the test split, the same for all variants, are asked about; `examples` is
    how many amounts of a transformation are tried before it is taken to be harmless.
    """

    measures: ClassVar[Literal["stability"]] = "stability"

    max: float
    transformations: dict[str, float] = field(default_factory=lambda: {name: one.mild for name, one in RANGES.items()})
    samples: int = 500
    examples: int = 30

    def __post_init__(self) -> None:
        if not 0 <= self.max < 1:
            raise ValueError(f"max must be a fraction in [0, 1), got {self.max:g}")
        if not self.transformations:
            raise ValueError(f"transformations must name at least one of {', '.join(RANGES)}")
        for name, limit in self.transformations.items():
            if name not in RANGES:
                raise ValueError(
                    f"transformations: unknown {name!r}{nearest(name, RANGES)}; known: {', '.join(RANGES)}"
                )
            least, most = RANGES[name].step, RANGES[name].most
            if not least <= limit <= most:
                raise ValueError(f"transformations.{name} must be from {least:g} to {most:g}, got {limit:g}")
        for key, value in (("samples", self.samples), ("examples", self.examples)):
            if value < 1:
                raise ValueError(f"{key} must be at least 1, got {value}")
