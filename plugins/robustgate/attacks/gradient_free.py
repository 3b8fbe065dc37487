"""An attack without gradients: Square, or HopSkipJump where logits tell nothing; in l0 a random search."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from robustgate.attacks.hop_skip_jump import HopSkipJump
from robustgate.attacks.square import Square
from robustgate.core.budget import TOLERANCE, check_eps
from robustgate.core.components import Answer, Norm, Passes, Query
from robustgate.core.losses import margin
from robustgate.core.walks import among

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["GradientFree"]

# The share of its queries after which Square gives up a sample whose margin has never moved.
PATIENCE = 0.25
# The share of the changed values that a step of the random search changes anew, at its first query and at its last.
FIRST, LAST = 0.3, 0.01


@dataclass(frozen=True, kw_only=True)
class GradientFree:
    """Ask at most `queries` times about each sample, for logits, or for decisions alone where logits tell nothing.

    In linf and l2 Square climbs the margin. A sample whose margin is the same after a quarter of the queries, as that
    of a file that gives decisions or a saturated softmax, stands on a plain where it cannot climb: it is handed to
    HopSkipJump, which follows the boundary by decisions, with the queries that are left. (On an int8 file of ten
    classes Square fells more with 200 queries than both with half of them each.)

    Neither has an l0 version: there a random search moves as many values as there may be to 0 or 1, and keeps what
    does not lower the margin (after Sparse-RS, Croce et al. 2022, arXiv 2006.12834, with single values in place of
    pixels; the share that is moved falls evenly from 0.3 to 0.01, where the paper has a table).
    """

    needs_gradient: ClassVar[bool] = False
    minimizes: ClassVar[bool] = False

    eps: float
    norm: Norm = "linf"
    queries: int = 200

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        if self.queries < 2:
            raise ValueError(f"queries must be at least 2, got {self.queries}")

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return the most that is asked about a sample."""
        return Passes(forward=self.queries)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:
        """Attack all; by decisions alone those whose logits tell nothing."""
        if self.norm == "l0":
            yield from self._search(images, labels, draws)
            return
        patience = max(2, int(PATIENCE * self.queries))
        square = Square(eps=self.eps, norm=self.norm, queries=self.queries)
        flat = yield from until_flat(square.run(images, labels, draws, target), labels, patience)
        if len(flat) and self.queries > patience:
            jump = HopSkipJump(eps=self.eps, norm=self.norm, queries=self.queries - patience)
            yield from among(flat, jump.run(images[flat], labels[flat], draws.take(flat), target))

    def _search(self, images: Tensor, labels: Tensor, draws: Draws) -> Walk:
        """Walk in l0: the places (n, k) of the values that are changed, and what they are changed to, 0 or 1."""
        import torch

        values = images[0].numel()
        allowed = int(self.eps * values + TOLERANCE)
        if not allowed:
            return
        rows = torch.arange(len(images), device=images.device)
        places = draws.uniform(values).topk(allowed, dim=1).indices
        levels = draws.uniform(allowed).round()
        best = images.new_full((len(rows),), float("-inf"))
        tried, raised = places, levels
        for query in range(self.queries):
            points = images[rows].flatten(1).scatter(1, tried, raised).view_as(images[rows])
            answer = yield Query(rows, points)
            climbed = margin(labels[rows])(answer.logits)
            better = climbed >= best
            left = ~answer.settled
            places = torch.where(better[:, None], tried, places)[left]
            levels = torch.where(better[:, None], raised, levels)[left]
            best, rows = torch.where(better, climbed, best)[left], rows[left]
            if not len(rows):
                return
            share = FIRST + (LAST - FIRST) * query / self.queries
            tried, raised = _moved(places, levels, max(1, round(share * allowed)), values, draws.take(rows))


def until_flat(walk: Walk, labels: Tensor, patience: int) -> Generator[Query, Answer, Tensor]:
    """Pass on a walk's queries, of which each asks about all samples that it still walks with.

    After `patience` of them it hears that the samples are settled whose margin was the same at every point; return
    which these are (n,), of those that stand.
    """
    import torch

    first = torch.zeros(len(labels), device=labels.device)
    moved, flat = torch.zeros_like(labels, dtype=torch.bool), torch.zeros_like(labels, dtype=torch.bool)
    asked, answer = 0, None
    while True:
        try:
            query = walk.send(answer) if answer is not None else next(walk)
        except StopIteration:
            return flat.nonzero()[:, 0]
        answer = yield query
        rows, asked = query.rows, asked + 1
        found = margin(labels[rows])(answer.logits)
        if asked == 1:
            first[rows] = found
        moved[rows] |= found != first[rows]
        if asked == patience:
            flat[rows] = ~moved[rows] & ~answer.settled
            answer = replace(answer, settled=answer.settled | flat[rows])


def _moved(places: Tensor, levels: Tensor, count: int, values: int, draws: Draws) -> tuple[Tensor, Tensor]:
    """Return the changes (n, k) with `count` of each sample's moved to places that are not among them."""
    slots = draws.uniform(places.shape[1]).topk(count, dim=1).indices
    # Where nearly all values may change, too few places are free: the rest stay, with another level.
    free = draws.uniform(values).scatter(1, places, -1.0).topk(count, dim=1)
    moved = free.indices.where(free.values >= 0, places.gather(1, slots))
    return places.scatter(1, slots, moved), levels.scatter(1, slots, draws.uniform(count).round())
