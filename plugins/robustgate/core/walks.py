"""What attacks are put together from: walks among some of the samples, one after another."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from robustgate.core.components import Answer, Query, Walk

if TYPE_CHECKING:
    from torch import Tensor


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
        answer = yield Query(rows[query.rows], query.points, query.loss)
        settled[query.rows] = answer.settled


def approach(images: Tensor, rows: Tensor, points: Tensor, halvings: int) -> Walk:
    """Bisect the segments from images to their adversarial `points` (n, 3, H, W), of the samples `rows`.

    The engine keeps the nearest adversarial point; the boundary is then known to 2**-halvings of the segment.
    """
    starts, far = images[rows], points - images[rows]
    low, high = far[:, :1, :1, :1] * 0, far[:, :1, :1, :1] * 0 + 1
    for _ in range(halvings):
        if not len(rows):
            return
        middle = (low + high) / 2
        answer = yield Query(rows, starts + middle * far)
        fooled, left = wide(answer.adversarial), ~answer.settled
        low, high = low.where(fooled, middle)[left], high.where(~fooled, middle)[left]
        rows, starts, far = rows[left], starts[left], far[left]


def wide(numbers: Tensor) -> Tensor:
    """Return (n,) as (n, 1, 1, 1), to go with images."""
    return numbers[:, None, None, None]
