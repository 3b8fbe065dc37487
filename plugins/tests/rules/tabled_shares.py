"""Accuracies that are given, as rules see them: no samples, no resamples, unless they are given too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robustgate.core.benchmark import BENCHMARK_CORRUPTIONS
from robustgate.core.records import Shift

CLEAN = Shift(kind="clean", name="clean")


def cell(corruption: str, severity: int) -> Shift:
    return Shift(kind="corruption", name=f"{corruption}_s{severity}", corruption=corruption, severity=severity)


def domain(target: str) -> Shift:
    return Shift(kind="domain_shift", name=f"amazon_to_{target}", target=target)


BENCHMARK = tuple(cell(name, severity) for name in BENCHMARK_CORRUPTIONS for severity in range(1, 6))


@dataclass(frozen=True, kw_only=True)
class TabledShares:
    """The `Shares` of core/components.py: each figure () or (R,) as it is given, one row where it is a number."""

    ours: Mapping[Shift, object]
    theirs: Mapping[Shift, object] = field(default_factory=dict)
    apart: Mapping[Shift, object] = field(default_factory=dict)
    classwise: Mapping[Shift, object] = field(default_factory=dict)
    others: Mapping[Shift, object] = field(default_factory=dict)
    numbers: Mapping[Shift, object] = field(default_factory=dict)
    classes: tuple[str, ...] = ("cat", "dog", "elk")

    def sizes(self, shift: Shift) -> NDArray[np.int64]:
        return np.asarray(self.numbers[shift])

    def right(self, shift: Shift) -> NDArray[np.float64]:
        return np.atleast_1d(np.asarray(self.ours[shift], dtype=float))

    def reference(self, shift: Shift) -> NDArray[np.float64]:
        return np.atleast_1d(np.asarray(self.theirs[shift], dtype=float))

    def changed(self, shift: Shift) -> NDArray[np.float64]:
        return np.atleast_2d(np.asarray(self.apart[shift], dtype=float))

    def by_class(self, shift: Shift) -> NDArray[np.float64]:
        return np.atleast_2d(np.asarray(self.classwise[shift], dtype=float))

    def standards(self, shift: Shift) -> NDArray[np.float64]:
        return np.asarray(self.others[shift], dtype=float)
