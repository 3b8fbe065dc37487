"""The queries of several walks as full batches: what the artifact is asked, and what gradients are taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robustgate.core.components import Answer, Loss, Query
from robustgate.engine.ledger import Ledger
from robustgate.engine.subjects import CountedTarget


@dataclass(eq=False)
class Question:
    """A walk's query on its way to its answer.

    With `look` the artifact is asked about all points first, and gradients are taken of the samples that still stand.
    Otherwise the logits are those of the artifact's faster copy, with the gradients or alone, and the artifact confirms
    what seems to have fallen: at once, or with `defer` what is the nearest when the walk ends.
    """

    query: Query
    ledger: Ledger
    look: bool
    defer: bool = False
    logits: Tensor | None = None
    gradient: Tensor | None = None
    adversarial: Tensor | None = None
    wanted: Tensor | None = None

    def looked(self, logits: Tensor) -> None:
        """Take the artifact's logits of all points."""
        self.logits = logits
        self.adversarial = self.ledger.enter(self.query.rows, self.query.points, logits.argmax(dim=1))
        self.ledger.asked(self.query.rows, self.query.points)
        self.ledger.queries[self.query.rows.cpu()] += 1

    def glanced(self, logits: Tensor) -> None:
        """Take the copy's logits of all points."""
        self._seem(logits)
        self.ledger.queries[self.query.rows.cpu()] += 1

    def want(self) -> Tensor:
        """Decide which samples' gradients are taken; return their points."""
        settled = self.ledger.settled(self.query.rows)
        self.wanted = (~settled if self.look else torch.ones_like(settled)).nonzero()[:, 0]
        return self.query.points if len(self.wanted) == len(settled) else self.query.points[self.wanted]

    def values(self, logits: Tensor, loss: Loss) -> Tensor:
        """Return the loss of the wanted samples, of their logits; it was written for those of all points."""
        if self.wanted is None or self.logits is None or len(self.wanted) == len(self.logits):
            return loss(logits)
        return loss(self.logits.index_put((self.wanted,), logits))[self.wanted]

    def flowed(self, logits: Tensor, gradient: Tensor, columns: int | None) -> None:
        """Take the gradients of the wanted samples; those of the others stay zero."""
        wanted = self.wanted if self.wanted is not None else torch.arange(len(logits), device=logits.device)
        if gradient.dim() > self.query.points.dim():
            gradient = gradient[:, 0] if columns is None else gradient[:, :columns]
        if len(wanted) == len(self.query.rows):
            self.gradient = gradient
        else:
            self.gradient = gradient.new_zeros(len(self.query.rows), *gradient.shape[1:])
            self.gradient[wanted] = gradient
        self.ledger.gradients[self.query.rows[wanted].cpu()] += 1
        if self.logits is None:
            self._seem(logits)

    def doubtful(self) -> Tensor:
        """Return which points seem adversarial, and would be the best so far."""
        if self.look or self.adversarial is None:
            return torch.empty(0, dtype=torch.int64)
        if self.defer:
            self.ledger.claim(self.query.rows[self.adversarial], self.query.points[self.adversarial])
            return torch.empty(0, dtype=torch.int64)
        return (self.adversarial & self.ledger.would_enter(self.query.rows, self.query.points)).nonzero()[:, 0]

    def confirmed(self, places: Tensor, logits: Tensor) -> None:
        """Take the artifact's logits of doubtful points."""
        rows, points = self.query.rows[places], self.query.points[places]
        decided = self.ledger.enter(rows, points, logits.argmax(dim=1))
        self.ledger.queries[rows.cpu()] += 1
        if self.adversarial is not None:
            self.adversarial[places] = decided

    def answer(self) -> Answer:
        """Return the answer. Every question has been put by then."""
        if self.logits is None or self.adversarial is None:
            raise RuntimeError("a question must be put before it is answered")
        gradient = self.gradient if self.gradient is not None else self._no_gradient()
        return Answer(self.logits, gradient, self.adversarial, self.ledger.settled(self.query.rows))

    def _seem(self, logits: Tensor) -> None:
        """Take logits of all points that are not the artifact's own."""
        self.logits = logits
        self.adversarial = logits.argmax(dim=1) != self.ledger.labels[self.query.rows]
        self.ledger.asked(self.query.rows, self.query.points)

    def _no_gradient(self) -> Tensor:
        """Return zeros where all samples are settled, nothing where no gradient was asked for."""
        return torch.zeros_like(self.query.points) if self.query.loss is not None else self.query.points.new_empty(0)


def put(target: CountedTarget, questions: Sequence[Question]) -> None:
    """Put questions to the target, each kind in one batch. Raises MeasurementError."""
    for one, part in _each(target.logits, [one for one in questions if one.look]):
        one.looked(part)
    for one, part in _each(target.glance, [one for one in questions if not one.look and one.query.loss is None]):
        one.glanced(part)
    points = [(one, one.query.loss, one.want()) for one in questions if one.query.loss is not None]
    _flow(target, [(one, loss, wanted) for one, loss, wanted in points if loss is not None and len(wanted)])
    doubts = [(one, one.doubtful()) for one in questions]
    doubts = [(one, places) for one, places in doubts if len(places)]
    if doubts:
        logits = target.logits(torch.cat([one.query.points[places] for one, places in doubts]))
        for (one, places), part in zip(doubts, torch.split(logits, [len(places) for _, places in doubts]), strict=True):
            one.confirmed(places, part)


def _each(logits: Callable[[Tensor], Tensor], asking: Sequence[Question]) -> list[tuple[Question, Tensor]]:
    """Return the logits of each question's points, all asked in one batch."""
    if not asking:
        return []
    found = logits(torch.cat([one.query.points for one in asking]))
    return list(zip(asking, torch.split(found, [len(one.query.rows) for one in asking]), strict=True))


def _flow(target: CountedTarget, asking: Sequence[tuple[Question, Loss, Tensor]]) -> None:
    if not asking:
        return
    counts = [len(points) for _, _, points in asking]
    columns: list[int | None] = []

    def together(logits: Tensor) -> Tensor:
        parts = zip(asking, torch.split(logits, counts), strict=True)
        values = [one.values(part, loss) for (one, loss, _), part in parts]
        columns.extend(value.shape[1] if value.dim() > 1 else None for value in values)
        return _joined(values)

    logits, gradients = target.gradient(torch.cat([points for _, _, points in asking]), together)
    parts = zip(asking, torch.split(logits, counts), torch.split(gradients, counts), columns, strict=True)
    for (one, _, _), part, gradient, width in parts:
        one.flowed(part, gradient, width)


def _joined(values: list[Tensor]) -> Tensor:
    """Return the losses of several walks as one: (n,), or (n, K) where any has several values a sample."""
    if all(value.dim() == 1 for value in values):
        return torch.cat(values)
    wide = [value if value.dim() > 1 else value[:, None] for value in values]
    most = max(value.shape[1] for value in wide)
    return torch.cat([functional.pad(value, (0, most - value.shape[1])) for value in wide])
