"""What attacks are put together from: walks among some of the samples, one after another."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING

from robustgate.core.components import Answer, Query, Walk
from robustgate.core.losses import margin

if TYPE_CHECKING:
    from torch import Tensor

# How many queries a search for the boundary may lose to wrong guesses, before it halves what is left every time.
SLACK = 4


def among(rows: Tensor, walk: Walk) -> Generator[Query, Answer, Tensor]:
    """Pass on the queries of a walk that was begun for the samples `rows` only; return those that are not settled.

    An attack made of others runs them in turn, each on what the ones before left standing:
    ``standing = yield from among(standing, attack.run(images[standing], labels[standing], ...))``.
    """
    import torch

    settled = torch.zeros_like(rows, dtype=torch.bool)
    answer = None
    while True:
        try:
            query = walk.send(answer) if answer is not None else next(walk)
        except StopIteration:
            return rows[~settled]
        answer = yield replace(query, rows=rows[query.rows])
        settled[query.rows] = answer.settled


def approach(
    images: Tensor,
    labels: Tensor,
    margins: Tensor,
    rows: Tensor,
    points: Tensor,
    halvings: int,
    *,
    beyond: Tensor | None = None,
) -> Walk:
    """Find the boundary on the segments from images to their adversarial `points` (n, 3, H, W), of the samples `rows`.

    The result is that of a bisection with so many `halvings`, if a segment crosses the boundary once: of its
    2**halvings cells that with the crossing is found, and both its edges asked about. The engine keeps the nearest
    adversarial point. Where to ask is guessed by the margins of the logits: `margins` (N,) are those of the images as
    they are, `beyond` (n,) those of the points. Without these the points are asked about first, and any that is not
    adversarial is given up.

    On a network three queries do, or four, after that about the points. Only decisions narrow the search: margins that
    mislead it cost at most SLACK queries more than the bisection.
    """
    import torch

    if not halvings or not len(rows):
        return
    cells, starts, far = 2.0**halvings, images[rows], points - images[rows]
    left = torch.ones_like(rows, dtype=torch.bool)
    if beyond is None:
        answer = yield Query(rows, points)
        beyond, left = margin(labels[rows])(answer.logits), answer.adversarial & ~answer.settled
    # Where on the segment, in cells, three points lie: the farthest known to be right, the nearest known to be
    # adversarial, and the one that was either of these before; and their margins. The third is not there yet.
    places = far.new_tensor([0.0, cells, float("nan")]).double().repeat(len(rows), 1)
    values = torch.stack([margins[rows], beyond, margins[rows]], dim=1).double()
    for spare in reversed(range(halvings + SLACK)):
        rows, starts, far, places, values = (one[left] for one in (rows, starts, far, places, values))
        if not len(rows):
            return
        place = _crossing(places, values, 2.0**spare)
        answer = yield Query(rows, starts + wide(place / cells).to(far.dtype) * far)
        places = _narrowed(places, place, answer.adversarial)
        values = _narrowed(values, margin(labels[rows])(answer.logits).double(), answer.adversarial)
        left = (places[:, 1] - places[:, 0] > 1) & ~answer.settled


def _crossing(places: Tensor, values: Tensor, reach: float) -> Tensor:
    """Return the far edges (n,) of the cells where the margin seems to cross zero; the near ones where those are known.

    The guess is the root of a parabola through all three points: it has one between the two of opposite signs. Where
    that is no number, or elsewhere, it is the root of a straight line, and at last the middle. It is moved so that at
    most `reach` cells are left on either side: this is what bounds the search, as `reach` is halved every time.
    """
    low, high, other = places.unbind(dim=1)
    at_low, at_high, at_other = values.unbind(dim=1)
    slope = (at_high - at_low) / (high - low)
    bend = ((at_other - at_high) / (other - high) - slope) / (other - low)
    steep = slope - bend * (high - low)
    guess = (low + high) / 2
    for drop in (at_low / slope, 2 * at_low / (steep + (steep.square() - 4 * bend * at_low).sqrt())):
        root = low - drop
        guess = root.where((low <= root) & (root <= high), guess)
    edge = guess.ceil().maximum(low + 1).minimum(high - 1)
    return edge.maximum(high - reach).minimum(low + reach)


def _narrowed(known: Tensor, found: Tensor, fooled: Tensor) -> Tensor:
    """Return what is `known` (n, 3) of the three points, with a new one, `found`, between the first two."""
    import torch

    low, high, _ = known.unbind(dim=1)
    nearer, farther = torch.stack([low, found, high], dim=1), torch.stack([found, high, low], dim=1)
    return nearer.where(fooled[:, None], farther)


def wide(numbers: Tensor) -> Tensor:
    """Return (n,) as (n, 1, 1, 1), to go with images."""
    return numbers[:, None, None, None]
