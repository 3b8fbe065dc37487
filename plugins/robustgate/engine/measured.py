"""What was measured: the outcome of samples, and where their adversarial examples are found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustgate.core.errors import MeasurementError
from robustgate.engine.examples import read
from robustgate.engine.measure import Outcome

Rows = NDArray[np.int64]


class Measured(Protocol):
    """The outcome of N samples; `cached` says that none of them was measured by this run."""

    @property
    def outcome(self) -> Outcome:
        """What happened to each sample."""

    @property
    def cached(self) -> bool:
        """Whether all was kept from before."""

    @property
    def has_example(self) -> NDArray[np.bool_]:
        """Which samples (N,) have an adversarial example that was kept."""

    def points(self, rows: Rows) -> Tensor:
        """Return the examples (n, 3, H, W) of samples `rows` (n,), all of which have one."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Samples that were measured together, and the folder that keeps them."""

    outcome: Outcome
    folder: Path
    cached: bool = False

    @property
    def has_example(self) -> NDArray[np.bool_]:
        """Which samples (N,) have an example. Raises MeasurementError where none were kept with a measurement."""
        return self._places >= 0

    def points(self, rows: Rows) -> Tensor:
        """Return the examples of some samples."""
        return torch.from_numpy(read(self.folder, self._places[rows]))

    @property
    def _places(self) -> NDArray[np.int64]:
        if self.outcome.examples is None:
            raise MeasurementError(f"{self.folder}: no adversarial examples were kept with this measurement")
        return self.outcome.examples


@dataclass(frozen=True, kw_only=True)
class Some:
    """Some samples of what was measured, in the order of `rows`."""

    whole: Measured
    rows: Rows

    @cached_property
    def outcome(self) -> Outcome:
        """What happened to each of them."""
        return self.whole.outcome.take(self.rows)

    @property
    def cached(self) -> bool:
        """Whether all was kept from before."""
        return self.whole.cached

    @property
    def has_example(self) -> NDArray[np.bool_]:
        """Which of them have an example."""
        return self.whole.has_example[self.rows]

    def points(self, rows: Rows) -> Tensor:
        """Return the examples of some of them."""
        return self.whole.points(self.rows[rows])


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Several measurements of one case, one after another; `outcome` is that of their first samples, or of all."""

    parts: Sequence[Measured]
    outcome: Outcome

    @property
    def cached(self) -> bool:
        """Whether all was kept from before."""
        return all(part.cached for part in self.parts)

    @property
    def has_example(self) -> NDArray[np.bool_]:
        """Which samples have an example."""
        return np.concatenate([part.has_example for part in self.parts])[: len(self.outcome.labels)]

    def points(self, rows: Rows) -> Tensor:
        """Return the examples of some samples."""
        ends = np.cumsum([len(part.outcome.labels) for part in self.parts])
        which = np.searchsorted(ends, rows, side="right")
        starts = [0, *ends]
        return _gathered(rows, which, [part.points for part in self.parts], starts)


@dataclass(frozen=True, kw_only=True)
class Worst:
    """Several attacks on the same samples, joined sample by sample: `by` (N,) says which of `parts` counts."""

    parts: Mapping[str, Measured]
    outcome: Outcome
    by: NDArray[np.int64]

    @property
    def cached(self) -> bool:
        """Whether all was kept from before."""
        return all(part.cached for part in self.parts.values())

    @cached_property
    def has_example(self) -> NDArray[np.bool_]:
        """Which samples fell, and have the example of what felled them."""
        had = np.stack([part.has_example for part in self.parts.values()])
        found: NDArray[np.bool_] = np.take_along_axis(had, self.by[None], axis=0)[0] & ~self.outcome.correct
        return found

    def points(self, rows: Rows) -> Tensor:
        """Return the examples of some samples."""
        return _gathered(rows, self.by[rows], [part.points for part in self.parts.values()], [0] * len(self.parts))


def _gathered(
    rows: Rows, which: NDArray[np.int64], sources: Sequence[Callable[[Rows], Tensor]], starts: Sequence[int]
) -> Tensor:
    """Return the examples of `rows` (n,), each from the source that `which` (n,) names, where it is `starts` less."""
    found: dict[int, Tensor] = {}
    for source in np.unique(which):
        places = np.flatnonzero(which == source)
        points = sources[source](rows[places] - starts[source])
        found.update(zip(places.tolist(), points, strict=True))
    return torch.stack([found[place] for place in range(len(rows))])
