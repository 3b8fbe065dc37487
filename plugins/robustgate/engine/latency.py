"""How long an artifact takes, against its reference: both timed in turn, round by round, in one run."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from torch import Tensor

from robustgate.core.records import Timing
from robustgate.engine.subjects import Subject
from robustgate.statistics.median import fewest_values, median_interval

Program = Callable[[], object]
Rounds = Callable[[Program, Program, int], object]
"""Runs its first program and then its second, so many times: ``benchmark.pedantic``, or a loop."""

WARM_UP_SECONDS, WARM_UP_ROUNDS = 0.2, 3
SECONDS, MOST_ROUNDS, FEWEST_ROUNDS = 2.0, 300, 15


@dataclass(frozen=True, kw_only=True)
class Durations:
    """The seconds that a variant and its reference took for a batch in each round."""

    batch: int
    seconds: tuple[float, ...]
    reference: tuple[float, ...]

    def at(self, confidence: float) -> Timing:
        """Return the medians, with their intervals at a confidence."""
        ratios = [ours / theirs for ours, theirs in zip(self.seconds, self.reference, strict=True)]
        time_interval, ratio_interval = median_interval(self.seconds, confidence), median_interval(ratios, confidence)
        return Timing(
            batch=self.batch,
            rounds=len(ratios),
            median_ms=1e3 * median(self.seconds),
            low_ms=1e3 * time_interval.low,
            high_ms=1e3 * time_interval.high,
            reference_ms=1e3 * median(self.reference),
            ratio=median(ratios),
            ratio_low=ratio_interval.low,
            ratio_high=ratio_interval.high,
        )


def one_by_one(before: Program, program: Program, rounds: int) -> None:
    """Run both programs in turn."""
    for _ in range(rounds):
        before()
        program()


def time_in_turn(
    subject: Subject,
    reference: Subject,
    batches: Mapping[int, Tensor],
    confidence: float,
    rounds: Rounds = one_by_one,
) -> tuple[Durations, ...]:
    """Time a variant in turn with its reference on each of `batches`, by their number of images.

    The caller sees to it that nothing else runs. `rounds` runs the single image (another instrument may watch); larger
    batches run in a plain loop. Each is warmed up, then run for about two seconds, in at least as many rounds as an
    interval at `confidence` takes.
    """
    timed = []
    for batch, images in sorted(batches.items()):
        turn = _Turn(reference.runner(images), subject.runner(images))
        count = max(turn.rounds_in(SECONDS), fewest_values(confidence), FEWEST_ROUNDS)
        (rounds if batch == 1 else one_by_one)(turn.before, turn.program, count)
        timed.append(Durations(batch=batch, seconds=tuple(turn.seconds), reference=tuple(turn.reference_seconds)))
    return tuple(timed)


class _Turn:
    """A reference and a variant, both under one clock, whoever calls them."""

    def __init__(self, reference: Program, variant: Program) -> None:
        self.reference_seconds: list[float] = []
        self.seconds: list[float] = []
        self.before = self._clocked(reference, self.reference_seconds)
        self.program = self._clocked(variant, self.seconds)

    def rounds_in(self, seconds: float) -> int:
        """Warm both up; return how many rounds fit into `seconds`."""
        began = time.perf_counter()
        while time.perf_counter() - began < WARM_UP_SECONDS or len(self.seconds) < WARM_UP_ROUNDS:
            one_by_one(self.before, self.program, 1)
        round_seconds = median(map(sum, zip(self.seconds, self.reference_seconds, strict=True)))
        self.seconds.clear()
        self.reference_seconds.clear()
        return min(math.ceil(seconds / round_seconds), MOST_ROUNDS)

    @staticmethod
    def _clocked(program: Program, seconds: list[float]) -> Program:
        def run() -> None:
            with _untraced():
                began = time.perf_counter()
                program()
                seconds.append(time.perf_counter() - began)

        return run


@contextmanager
def _untraced() -> Iterator[None]:
    """Switch a tracer or profiler off, such as coverage's: it would slow the two unequally."""
    tracer, profiler = sys.gettrace(), sys.getprofile()
    sys.settrace(None)
    sys.setprofile(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
        sys.setprofile(profiler)
