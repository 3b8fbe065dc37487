"""Attacks at work: many walks at once, their queries put together into full batches, every answer checked.

The engine does not trust an attack: what it asks about is clipped to [0, 1] and measured, and the artifact itself says
what fell. A sample that has fallen is asked no more about, and the next ones take its place in the batch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from robustgate.core.budget import Budget
from robustgate.core.components import Answer, Attack, Query, Walk
from robustgate.core.errors import MeasurementError
from robustgate.engine.draws import SampleDraws
from robustgate.engine.ledger import Ledger
from robustgate.engine.questions import Question, put
from robustgate.engine.subjects import CountedTarget

# Where more than this share of the samples falls at a walk's k-th query, they are looked at before gradients are taken:
# a look costs half a gradient, and what has fallen then needs no gradient, nor to be confirmed.
MOST = 1 / 3

# A claim lies where rounding decides. One that is not confirmed is moved away from the image, by these factors in turn.
FARTHER = (1, 1.001, 1.01, 1.1)


@dataclass(frozen=True, kw_only=True)
class Caps:
    """What no attack may exceed: queries about one sample, gradients among them, and seconds of one case."""

    queries: int = 100_000
    seconds: float = 3600.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Samples to attack: their numbers (n,) among all, images (n, 3, H, W), labels (n,), and a seed for each."""

    numbers: Tensor
    images: Tensor
    labels: Tensor
    seeds: Sequence[int]


Finished = Callable[[Batch, Ledger], None]


@dataclass(eq=False)
class _Walker:
    """A walk and what it has found; its query waits for the answer, its `asked`-th."""

    walk: Walk
    ledger: Ledger
    batch: Batch
    query: Query
    asked: int = 0


class Arena:
    """One attack on one target. `size` is the number of images that go through the target at once."""

    def __init__(self, target: CountedTarget, attack: Attack, *, size: int, caps: Caps | None = None) -> None:
        self.target = target
        self.attack = attack
        self.size = size
        self.caps = caps or Caps()
        # Of the samples at the k-th query of all walks so far: how many there were, how many fell.
        self._asked: Counter[int] = Counter()
        self._fell: Counter[int] = Counter()

    def fight(self, batches: Iterator[Batch], finished: Finished) -> None:
        """Attack every batch; `finished` hears of each when its walk has ended. Raises MeasurementError.

        Batches are small against `size`: several fill it, and the next is begun when there is room.
        """
        ends = time.monotonic() + self.caps.seconds
        walkers: list[_Walker] = []
        more = True
        while more or walkers:
            while more and sum(len(walker.query.rows) for walker in walkers) < self.size:
                batch = next(batches, None)
                more = batch is not None
                if batch is not None:
                    walkers += self._begun(batch, finished)
            if time.monotonic() > ends:
                raise MeasurementError(
                    f"{self.target.name}: the attack took longer than {self.caps.seconds:g} s and is not done"
                )
            together, waiting = self._round(walkers)
            answers = self._answers(together)
            walkers = waiting + [
                left
                for walker, answer in zip(together, answers, strict=True)
                for left in self._sent(walker, answer, finished)
            ]

    def _begun(self, batch: Batch, finished: Finished) -> list[_Walker]:
        budget = Budget(self.attack.norm, self.attack.eps)
        ledger = Ledger(batch.images, batch.labels, budget, minimizes=self.attack.minimizes)
        draws = SampleDraws(batch.seeds, batch.images.device)
        walk = _complete(self.attack.run(batch.images.clone(), batch.labels.clone(), draws, self.target), ledger)
        return self._sent(_Walker(walk, ledger, batch, Query(batch.numbers, batch.images)), None, finished)

    def _sent(self, walker: _Walker, answer: Answer | None, finished: Finished) -> list[_Walker]:
        """Send a walk its answer; return its walker if it asks on, nothing if it has ended."""
        before = self.target.queries, self.target.gradients
        query = None
        with torch.no_grad(), suppress(StopIteration):  # the walk has ended
            query = walker.walk.send(answer) if answer is not None else next(walker.walk)
        # A library that calls the module itself does not say for which samples: evenly for all.
        count = len(walker.ledger.labels)
        walker.ledger.queries += -((before[0] - self.target.queries) // count)
        walker.ledger.gradients += -((before[1] - self.target.gradients) // count)
        if query is None:
            finished(walker.batch, walker.ledger)
            return []
        walker.query = self._checked(query, walker.ledger)
        return [walker]

    def _checked(self, query: Query, ledger: Ledger) -> Query:
        rows, points = query.rows, query.points
        name = f"{self.target.name}: the attack"
        if points.shape != (len(rows), *ledger.images.shape[1:]) or not len(rows):
            raise MeasurementError(f"{name} asked about {tuple(points.shape)} for {len(rows)} samples")
        if not points.isfinite().all():
            raise MeasurementError(f"{name} asked about a point with NaN or infinity")
        if int((ledger.queries + ledger.gradients)[rows.cpu()].max()) >= self.caps.queries:
            raise MeasurementError(f"{name} asked {self.caps.queries:,} times about one sample and is not done")
        return Query(rows, points.detach().clamp(0, 1), query.loss, query.exact)

    def _round(self, walkers: list[_Walker]) -> tuple[list[_Walker], list[_Walker]]:
        """Return the walkers whose queries make one batch, the first come first, and those that wait."""
        room = self.size
        together: list[_Walker] = []
        waiting: list[_Walker] = []
        for walker in walkers:
            fits = len(walker.query.rows) <= room or not together
            (together if fits else waiting).append(walker)
            room -= len(walker.query.rows) if fits else 0
        return together, waiting

    def _answers(self, walkers: list[_Walker]) -> list[Answer]:
        # In bfloat16 too many claims are false to walk by.
        defer = self.attack.minimizes and not self.target.mixed
        questions = [Question(walker.query, walker.ledger, self._looks(walker), defer) for walker in walkers]
        put(self.target, questions)
        answers = [question.answer() for question in questions]
        for walker, answer in zip(walkers, answers, strict=True):
            self._asked[walker.asked] += len(answer.settled)
            self._fell[walker.asked] += int(answer.settled.sum())
            walker.asked += 1
        return answers

    def _looks(self, walker: _Walker) -> bool:
        """Say whether the artifact is asked first: it must be, or most samples will have fallen."""
        most = self._fell[walker.asked] > MOST * self._asked[walker.asked]
        return walker.query.exact or not self.target.subject.has_own_gradient or most


def _complete(walk: Walk, ledger: Ledger) -> Walk:
    """Let a walk end, then have its claims confirmed, and ask about what lies outside the budget, projected to it."""
    yield from walk
    for farther in FARTHER:
        rows, points = ledger.claims(farther)
        if not len(rows):
            break
        yield Query(rows, points, exact=True)
    rows, points = ledger.last_words()
    if len(rows):
        yield Query(rows, points, exact=True)
