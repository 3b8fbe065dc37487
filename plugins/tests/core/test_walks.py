"""The search for the boundary on a segment: the bisection's own result, in fewer queries, whatever the margins say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from robustgate.core.components import Answer, Walk
from robustgate.core.walks import SLACK, approach

HALVINGS = 10
CELLS = 2**HALVINGS
# In the midst of cells, so that no float32 is on an edge; one in the first cell, one in the last.
ROOTS = torch.tensor([0.5, 3.5, 200.5, 512.5, 777.5, 1000.5, 1021.5, 1023.5], dtype=torch.float64) / CELLS

Margin = Callable[[Tensor, Tensor], Tensor]
"""The margin at places (n,) from 0 to 1 on segments that cross the boundary at roots (n,)."""


def linear(place: Tensor, root: Tensor) -> Tensor:
    return 7 * (place - root)


def steepening(place: Tensor, root: Tensor) -> Tensor:
    """Seven times as steep at the end as at the start."""
    return (2 * place).exp() - (2 * root).exp()


def steep(place: Tensor, root: Tensor) -> Tensor:
    """Nearly all of the rise in the last third."""
    return (5 * place).exp() - (5 * root).exp()


def flattening(place: Tensor, root: Tensor) -> Tensor:
    return (-2 * root).exp() - (-2 * place).exp()


def kinked(place: Tensor, root: Tensor) -> Tensor:
    """Straight pieces, as of a network of ReLUs: ten times as steep beyond a kink just before the root."""
    kink = root - 0.01
    return (place - kink).clamp(max=0) + 10 * (place - kink).clamp(min=0) - 0.1


def step(place: Tensor, root: Tensor) -> Tensor:
    return torch.where(place > root, 1.0, -1.0)


def uneven_step(place: Tensor, root: Tensor) -> Tensor:
    return torch.where(place > root, 1e-6, -1e6)


def constant(place: Tensor, root: Tensor) -> Tensor:
    return torch.zeros_like(place * root)


def opposite(place: Tensor, root: Tensor) -> Tensor:
    return root - place


def lure(place: Tensor, root: Tensor) -> Tensor:
    """Points away from the root: it seems just beyond the last right place, or just before the wrong one."""
    return torch.where(place > root, 1e9 * (1 + place), -1e-9 * (1 + place))


def infinite(place: Tensor, root: Tensor) -> Tensor:
    return torch.where(place > root, torch.inf, -1.0)


def undefined(place: Tensor, root: Tensor) -> Tensor:
    return torch.full_like(place * root, torch.nan)


def huge(place: Tensor, root: Tensor) -> Tensor:
    return 1e37 * (place - root)


def tiny(place: Tensor, root: Tensor) -> Tensor:
    return 1e-37 * (place - root)


TRUTHFUL = [linear, steepening, steep, flattening, kinked, huge, tiny]
MISLEADING = [step, uneven_step, constant, opposite, lure, infinite, undefined]


@dataclass
class Segments:
    """Segments from the images 0 to the points 1: a place on one is the brightness there. Class 0 is right."""

    margin: Margin
    roots: Tensor
    halvings: int = HALVINGS
    beyond: Callable[[Tensor, Tensor], Tensor] = torch.gt
    settles: float = -1.0

    def search(self, rows: Tensor | None = None, *, known: bool = False) -> list[list[float]]:
        """Return the places that were asked about on each segment; the margins at its end may be known before."""
        rows = torch.arange(len(self.roots)) if rows is None else rows
        images = torch.zeros(len(self.roots), 3, 2, 2)
        labels = torch.zeros(len(self.roots), dtype=torch.int64)
        margins = self.margin(torch.zeros_like(self.roots), self.roots).float()
        beyond = self.margin(torch.ones(len(rows)), self.roots[rows]).float() if known else None
        points = torch.ones(len(rows), 3, 2, 2)
        walk = approach(images, labels, margins, rows, points, self.halvings, beyond=beyond)
        return self.drive(walk)

    def drive(self, walk: Walk) -> list[list[float]]:
        asked: list[list[float]] = [[] for _ in self.roots]
        answer = None
        while True:
            try:
                query = walk.send(answer) if answer is not None else next(walk)
            except StopIteration:
                return asked
            assert query.loss is None
            assert len(query.rows)
            places, roots = query.points[:, 0, 0, 0].double(), self.roots[query.rows]
            assert (query.points == query.points[:, :1, :1, :1]).all()
            for row, place in zip(query.rows.tolist(), places.tolist(), strict=True):
                asked[row].append(place)
            value = self.margin(places, roots).float()
            logits = torch.stack([torch.zeros_like(value), value], dim=1)
            settled = places < self.settles
            answer = Answer(logits, torch.empty(0), self.beyond(places, roots), settled)


def check_closed(asked: list[list[float]], roots: Tensor, cells: int = CELLS) -> None:
    """Fail unless both edges of the cell with the root are known; an image, at 0, is right without a question."""
    for places, root in zip(asked, roots.tolist(), strict=True):
        assert places[0] == 1
        assert len(set(places)) == len(places)
        assert min(place for place in places if place > root) == math.ceil(root * cells) / cells
        assert max([place for place in places if place < root], default=0) == math.floor(root * cells) / cells


@pytest.mark.parametrize("margin", TRUTHFUL + MISLEADING)
def test_it_ends_where_a_bisection_does(margin: Margin) -> None:
    asked = Segments(margin, ROOTS).search()
    check_closed(asked, ROOTS)
    assert max(map(len, asked)) <= 1 + HALVINGS + SLACK


@pytest.mark.parametrize(
    ("margin", "nearest", "most", "mean"),
    [
        (linear, 0.0, 3, 3.0),
        (huge, 0.0, 3, 3.0),
        (tiny, 0.0, 3, 3.0),
        (steepening, 0.0, 6, 5.5),
        (flattening, 0.0, 9, 6.5),
        (steepening, 0.9, 5, 4.8),
        (flattening, 0.9, 5, 4.8),
        (steep, 0.9, 7, 5.5),
        (kinked, 0.9, 10, 8.5),
    ],
)
def test_margins_spare_queries(margin: Margin, nearest: float, most: int, mean: float) -> None:
    cells = torch.randint(int(nearest * CELLS), CELLS, (200,), generator=torch.Generator().manual_seed(1))
    roots = (cells.double() + 0.5) / CELLS
    asked = Segments(margin, roots).search()
    check_closed(asked, roots)
    counts = [len(places) for places in asked]
    assert max(counts) <= most
    assert np.mean(counts) <= mean


def test_a_parabola_is_known_by_three_of_its_points() -> None:
    roots = (torch.arange(20, 1000, 7).double() + 0.5) / CELLS
    asked = Segments(lambda place, root: place.square() - root.square(), roots).search()
    check_closed(asked, roots)
    assert max(map(len, asked)) <= 4


def test_margins_at_random_cost_no_more_than_the_slack() -> None:
    generator = torch.Generator().manual_seed(2)

    def noise(place: Tensor, root: Tensor) -> Tensor:
        return torch.randn(len(place), generator=generator).exp() * torch.where(place > root, 1, -1)

    roots = (torch.randint(CELLS, (500,), generator=generator).double() + 0.5) / CELLS
    asked = Segments(noise, roots).search()
    check_closed(asked, roots)
    assert max(map(len, asked)) <= 1 + HALVINGS + SLACK


@pytest.mark.parametrize("halvings", [1, 2, 5, 20])
@pytest.mark.parametrize("margin", [steep, step, opposite])
def test_every_accuracy(margin: Margin, halvings: int) -> None:
    cells = 2**halvings
    roots = (torch.tensor([0.0, 0.3, 0.5, 0.9]).double() * cells).floor() / cells + 0.5 / cells
    asked = Segments(margin, roots, halvings).search()
    check_closed(asked, roots, cells)
    assert max(map(len, asked)) <= 1 + halvings + SLACK


@pytest.mark.parametrize("margin", TRUTHFUL + MISLEADING)
def test_every_sample_searches_on_its_own(margin: Margin) -> None:
    together = Segments(margin, ROOTS).search()
    assert together == [Segments(margin, root[None]).search()[0] for root in ROOTS]
    some = torch.tensor([6, 1, 4])
    chosen = Segments(margin, ROOTS).search(some)
    assert chosen == [places if row in some.tolist() else [] for row, places in enumerate(together)]


def test_decisions_count_not_the_signs_of_margins() -> None:
    # As of an artifact that gives way a little later than the logits say.
    later = ROOTS[2:-2] + 20 / CELLS
    segments = Segments(lambda place, root: linear(place, root - 20 / CELLS), later)
    asked = segments.search()
    check_closed(asked, later)
    assert max(map(len, asked)) <= 1 + HALVINGS + SLACK


def test_several_crossings_end_at_one() -> None:
    def over(place: Tensor, root: Tensor) -> Tensor:
        return torch.sin(40 * place) * torch.sign(place - 0.02) > 0

    asked = Segments(lambda place, root: torch.sin(40 * place), ROOTS[:1], beyond=over).search()
    places = torch.tensor(sorted([0.0, *asked[0]]), dtype=torch.float64)
    fooled = over(places, places)
    closed = fooled[1:] & ~fooled[:-1] & (places.diff() == 1 / CELLS)
    assert bool(closed.any())
    assert len(asked[0]) <= 1 + HALVINGS + SLACK


def test_a_point_that_is_denied_is_given_up() -> None:
    denied = ROOTS.clone()
    denied[::2] = 2.0
    asked = Segments(linear, denied).search()
    assert all(places == [1.0] for places in asked[::2])
    check_closed(asked[1::2], denied[1::2])


@pytest.mark.parametrize("margin", TRUTHFUL + MISLEADING)
def test_known_margins_of_the_points_spare_the_first_query(margin: Margin) -> None:
    segments = Segments(margin, ROOTS)
    assert segments.search(known=True) == [places[1:] for places in segments.search()]


def test_what_is_settled_is_asked_no_more_about() -> None:
    whole = Segments(step, ROOTS).search()
    asked = Segments(step, ROOTS, settles=0.6).search()
    for places, all_places in zip(asked, whole, strict=True):
        below = [place < 0.6 for place in places]
        assert places == all_places[: len(places)]
        assert not any(below[:-1])
        assert below[-1] or places == all_places


def test_without_halvings_or_samples_nothing_is_asked() -> None:
    assert Segments(linear, ROOTS, 0).search() == [[] for _ in ROOTS]
    assert Segments(linear, ROOTS).search(torch.arange(0)) == [[] for _ in ROOTS]
