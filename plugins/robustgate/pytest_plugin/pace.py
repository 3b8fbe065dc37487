"""How far a run is, and how long it will take yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean

# A case by the kind of its shift and its name, as `engine.results.key` has it.
Key = tuple[str, str]


@dataclass
class Pace:
    """The cases of a run, and the seconds that went into each; `workers` measure at the same time.

    A case may be measured before its turn: as what another is compared with, or is judged beside.
    """

    workers: int = 1
    kept: int = 0
    _planned: frozenset[Key] = frozenset()
    _finished: set[Key] = field(default_factory=set)
    _seconds: dict[Key, float] = field(default_factory=dict)

    def plan(self, cases: Iterable[Key]) -> None:
        """Say which cases the run is about."""
        self._planned = frozenset(cases)

    def work(self, case: Key, seconds: float) -> None:
        """Add what was spent on measuring a case."""
        self._seconds[case] = self._seconds.get(case, 0.0) + seconds

    def finish(self, case: Key, *, kept: bool) -> None:
        """Count a case in. One that was kept from before took no time, and says nothing of those to come."""
        self._finished.add(case)
        self.kept += kept

    @property
    def done(self) -> int:
        """How many cases are finished."""
        return len(self._finished)

    @property
    def total(self) -> int:
        """How many cases there are."""
        return len(self._planned | self._finished)

    def seconds_left(self, underway: Key | None = None, share: float = 0.0) -> float | None:
        """Return how long it takes if all cases that nobody has touched are to be measured; None before any was.

        Each takes the mean of those of its kind of shift, or of all where there is none of its kind: an attack may take
        a hundred times as long as clean images. From that of the one `underway` goes what it has taken so far; if that
        is more, the rest of it takes as long as the `share` of its samples that are done.
        """
        spent = {case: seconds for case, seconds in self._seconds.items() if case != underway}
        if not spent:
            return None

        def mean(kind: str) -> float:
            alike = [seconds for case, seconds in spent.items() if case[0] == kind]
            return fmean(alike or spent.values())

        ahead = self._planned - self._finished - spent.keys()
        means = {kind: mean(kind) for kind, _ in ahead}
        seconds = sum(means[kind] for kind, _ in ahead)
        if underway in ahead:
            so_far, expected = self._seconds.get(underway, 0.0), means[underway[0]]
            late = so_far * (1 - share) / share if share else 0.0
            seconds += (expected - so_far if so_far < expected else late) - expected
        return seconds / self.workers
