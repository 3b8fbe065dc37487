"""Fronts against their definition, volumes against closed forms and inclusion-exclusion, knees of known curves."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest

from robustgate.statistics.fronts import hypervolume, knee, non_dominated


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_front_is_its_definition(count: int) -> None:
    points = np.random.default_rng(count).integers(0, 4, size=(60, count))  # a coarse grid: many ties
    maximised = [index % 2 == 0 for index in range(count)]

    def beats(one: np.ndarray, other: np.ndarray) -> bool:
        better = [a > b if is_max else a < b for a, b, is_max in zip(one, other, maximised, strict=True)]
        worse = [a < b if is_max else a > b for a, b, is_max in zip(one, other, maximised, strict=True)]
        return any(better) and not any(worse)

    expected = [not any(beats(other, own) for other in points) for own in points]
    assert non_dominated(points, maximised).tolist() == expected


def test_ties_are_on_the_front_together_or_not_at_all() -> None:
    points = [(0.9, 4.0), (0.9, 4.0), (0.8, 5.0), (0.8, 5.0), (0.9, 3.0), (0.7, 4.0), (0.7, 4.0)]
    assert non_dominated(points, [True, True]).tolist() == [True, True, True, True, False, False, False]
    assert non_dominated(points, [True, False]).tolist() == [False, False, False, False, True, False, False]
    assert non_dominated([(1.0,), (2.0,), (2.0,)], [True]).tolist() == [False, True, True]


def test_the_volume_of_one_point_and_of_two() -> None:
    assert hypervolume([(3.0, 5.0)], [True, True], (1.0, 1.0)) == 8
    assert hypervolume([(3.0, 2.0), (2.0, 5.0)], [True, True], (0.0, 0.0)) == 3 * 2 + 2 * 5 - 2 * 2
    # The same two, their second objective counted downwards from 10.
    assert hypervolume([(3.0, 8.0), (2.0, 5.0)], [True, False], (0.0, 10.0)) == 12
    assert hypervolume([(2.0,), (7.0,)], [True], (4.0,)) == 3


# Whole coordinates above 0 with the sum n: the unit cubes below one of them are those whose corner sums to n or less.
@pytest.mark.parametrize(("count", "total"), [(2, 9), (3, 9), (4, 8), (5, 8)])
def test_a_staircase_holds_a_binomial_coefficient_of_cubes(count: int, total: int) -> None:
    points = [one for one in product(range(1, total), repeat=count) if sum(one) == total]
    assert hypervolume(points, [True] * count, [0.0] * count) == math.comb(total, count)


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_the_volume_is_that_of_inclusion_and_exclusion(count: int) -> None:
    points = np.random.default_rng(count).random((8, count))
    subsets = [list(one) for size in range(1, 9) for one in combinations(range(8), size)]
    expected = sum((-1) ** (len(one) + 1) * points[one].min(axis=0).prod() for one in subsets)
    assert hypervolume(points, [True] * count, [0.0] * count) == pytest.approx(expected, abs=1e-12)
    assert hypervolume(1 - points, [False] * count, [1.0] * count) == pytest.approx(expected, abs=1e-12)


def test_what_is_beaten_or_no_better_than_the_reference_adds_nothing() -> None:
    front = [(3.0, 2.0), (2.0, 5.0)]
    more = [*front, (2.0, 2.0), (3.0, 2.0), (9.0, 0.0), (9.0, -1.0), (-4.0, -4.0)]
    assert hypervolume(more, [True, True], (0.0, 0.0)) == 12
    assert hypervolume([(1.0, 1.0)], [True, True], (2.0, 2.0)) == 0


def test_the_knee_of_known_curves() -> None:
    steps = np.linspace(0.0, 1.0, 101)
    hyperbola = np.stack([2.0 ** (4 * steps - 2), 2.0 ** (2 - 4 * steps)], axis=1)  # y = 1 / x from 1/4 to 4
    assert hyperbola[knee(hyperbola, [False, False])] == pytest.approx((1.0, 1.0))
    circle = np.stack([np.cos(steps * np.pi / 2), np.sin(steps * np.pi / 2)], axis=1)
    assert knee(circle, [True, True]) == 50
    octant = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.6, 0.6, 0.52), (0.7, 0.7, 0.14)])
    assert knee(octant, [True, True, True]) == 3


def test_units_do_not_move_the_knee() -> None:
    front = np.array([(0.93, 300.0, 5.0), (0.91, 120.0, 7.0), (0.85, 100.0, 7.5), (0.80, 20.0, 30.0)])
    maximised = [True, False, False]
    assert knee(front, maximised) == 1
    assert knee(front * (100, 1e-6, 40) + (3, 7, -5), maximised) == 1


def test_the_knee_of_a_front_without_a_bend() -> None:
    assert knee([(0.5, 7.0)], [True, False]) == 0
    assert knee([(0.5, 7.0), (0.5, 7.0)], [True, False]) == 0
    assert knee([(0.0, 1.0), (0.3, 0.7), (1.0, 0.0)], [True, True]) == 0  # on a line all are alike
    # One point is best in two objectives: its front's own ends span no plane.
    assert knee([(0.9, 0.9, 0.0), (0.8, 0.8, 0.8), (0.0, 0.0, 0.9)], [True, True, True]) == 1


@pytest.mark.parametrize("points", [[(0.9, math.nan)], [(math.inf, 1.0)], [(1.0, 2.0), (None, 1.0)]])
def test_a_missing_figure_is_refused(points: list[tuple[float, float]]) -> None:
    for function in (non_dominated, knee):
        with pytest.raises(ValueError, match="a missing figure has no place in an order"):
            function(points, [True, True])
    with pytest.raises(ValueError, match="a missing figure has no place in an order"):
        hypervolume([(1.0, 1.0)], [True, True], points[-1])


@pytest.mark.parametrize("points", [[], [(1.0, 2.0, 3.0)], [1.0, 2.0], np.zeros((0, 2))])
def test_points_of_another_shape_are_refused(points: object) -> None:
    with pytest.raises(ValueError, match="expected at least one point of 2 objectives, got an array"):
        non_dominated(points, [True, True])  # type: ignore[arg-type]
