"""The ball around an image: its nearest points, its size, its steepest ascent, and points drawn uniformly from it."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats

from robustgate.core.budget import Budget
from robustgate.engine.draws import SampleDraws

NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
COUNT = 4000


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sizes(offset: torch.Tensor, norm: str) -> torch.Tensor:
    return torch.linalg.vector_norm(offset.flatten(1), ord=float("inf") if norm == "linf" else 2, dim=1)


@NORMS
def test_size_is_the_norm_of_each_sample(norm: str) -> None:
    offset = noise(5, 3, 4, 4)
    assert torch.allclose(Budget(norm, 1.0).size(offset), sizes(offset, norm))
    three_four = torch.tensor([[[[3.0, -4.0]]], [[[0.0, 0.0]]]])
    assert Budget(norm, 1.0).size(three_four).tolist() == [{"linf": 4.0, "l2": 5.0}[norm], 0.0]


@NORMS
def test_a_point_inside_stays_and_one_outside_goes_to_the_border(norm: str) -> None:
    centres = torch.full((64, 3, 4, 4), 0.5, dtype=torch.float64)
    for scale in (0.001, 0.02, 0.3):
        points = centres + scale * noise(64, 3, 4, 4)
        projected = Budget(norm, 0.1).project(points, centres)
        before, after = sizes(points - centres, norm), sizes(projected - centres, norm)
        assert torch.allclose(after, before.clamp_max(0.1), rtol=0, atol=1e-12)
        inside = before <= 0.1
        assert torch.allclose(projected[inside], points[inside], rtol=0, atol=1e-15)


@NORMS
def test_no_point_of_the_ball_is_nearer_than_the_projected_one(norm: str) -> None:
    # A projection onto a convex set: the angle to every other point of the set is never acute.
    centres = torch.full((1, 1, 2, 3), 0.5, dtype=torch.float64)
    budget = Budget(norm, 0.1)
    inside = budget.random_point(centres.float().expand(COUNT, -1, -1, -1), SampleDraws(range(COUNT))).double()
    for seed in range(20):
        point = centres + 0.2 * noise(1, 1, 2, 3, seed=seed)
        nearest = budget.project(point, centres)
        assert ((inside - nearest) * (point - nearest)).sum(dim=(1, 2, 3)).max() < 1e-7
        closest = torch.linalg.vector_norm((point - nearest).flatten())
        assert torch.linalg.vector_norm((inside - point).flatten(1), dim=1).min() > closest - 1e-7


@NORMS
def test_the_result_is_an_image_within_the_budget_wherever_the_centre_lies(norm: str) -> None:
    centres = torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    centres[:50], centres[50:100] = 0.0, 1.0
    budget = Budget(norm, 0.5)
    drawn = budget.random_point(centres, SampleDraws(range(200)))
    for points in (budget.project(centres + 3 * noise(200, 3, 4, 4).float(), centres), drawn):
        assert points.min() >= 0
        assert points.max() <= 1
        assert sizes(points - centres, norm).max() <= 0.5 + 1e-6


def test_each_sample_has_its_own_ball() -> None:
    centres = torch.tensor([0.2, 0.8])[:, None, None, None].expand(2, 1, 1, 2)
    points = torch.tensor([[0.9, 0.2], [0.8, 0.8]])[:, None, None, :]
    expected = torch.tensor([[0.3, 0.2], [0.8, 0.8]])[:, None, None, :]
    for norm in ("linf", "l2"):
        assert torch.allclose(Budget(norm, 0.1).project(points, centres), expected)


@NORMS
@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e-20, 1e-6, 1.0, 1e6, 1e30])
def test_the_direction_is_a_unit_step_that_gains_the_dual_norm(norm: str, scale: float) -> None:
    # However small: a saturated network's gradient is tiny, and a step of no length would look like robustness.
    gradient = noise(8, 3, 4, 4)
    direction = Budget(norm, 0.1).direction((scale * gradient).float()).double()
    assert torch.allclose(sizes(direction, norm), torch.ones(8, dtype=torch.float64), atol=1e-6)
    gain = (direction * gradient).sum(dim=(1, 2, 3))
    dual = torch.linalg.vector_norm(gradient.flatten(1), ord=1 if norm == "linf" else 2, dim=1)
    assert torch.allclose(gain, dual, rtol=1e-5)


@NORMS
def test_the_gain_is_the_most_that_any_point_of_the_ball_gives(norm: str) -> None:
    # Centres in the middle, so that the box is no matter to l2; near the edges it cuts linf's balls.
    low, high = (0.0, 1.0) if norm == "linf" else (0.2, 0.8)
    centres = (low + (high - low) * torch.rand(1, 1, 2, 3, generator=torch.Generator().manual_seed(3))).double()
    budget = Budget(norm, 0.1)
    inside = budget.random_point(centres.float().expand(COUNT, -1, -1, -1), SampleDraws(range(COUNT))).double()
    for seed in range(20):
        gradient, start = noise(1, 1, 2, 3, seed=seed), inside[seed : seed + 1]
        gain = float(budget.gain(gradient, start, centres))
        best = budget.project(centres + budget.eps * budget.direction(gradient), centres)
        assert gain == pytest.approx(float((gradient * (best - start)).sum()), abs=1e-9)
        assert float((gradient * (inside - start)).sum(dim=(1, 2, 3)).max()) <= gain + 1e-7
        assert float(budget.gain(gradient, best, centres)) == pytest.approx(0, abs=1e-9)


@NORMS
def test_without_a_gradient_there_is_no_direction(norm: str) -> None:
    gradient = noise(3, 1, 2, 2).float()
    gradient[1] = 0
    direction = Budget(norm, 0.1).direction(gradient)
    assert torch.equal(direction[1], torch.zeros(1, 2, 2))
    assert sizes(direction[[0, 2]], norm).min() > 0.99


def drawn_from(norm: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Offsets in units of eps, of many draws around the middle of the cube."""
    centres = torch.full((COUNT, *shape), 0.5)
    return (Budget(norm, 0.1).random_point(centres, SampleDraws(range(COUNT))) - 0.5) / 0.1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (3, 1, 1), (3, 4, 4)], ids=str)
def test_points_are_uniform_in_the_l2_ball(shape: tuple[int, ...]) -> None:
    offsets = drawn_from("l2", shape).flatten(1).double()
    dimension = offsets.shape[1]
    radius = offsets.norm(dim=1)
    # The share of the ball within a radius r is r ** dimension.
    assert stats.kstest(radius**dimension, "uniform").pvalue > 1e-3
    directions = offsets / radius[:, None]
    # A uniform direction: every coordinate has mean 0 and variance 1 / dimension, and is symmetric.
    assert directions.mean(dim=0).abs().max() < 5 / (COUNT * dimension) ** 0.5
    assert torch.allclose(directions.square().mean(dim=0), torch.full((dimension,), 1 / dimension).double(), rtol=0.15)
    if dimension == 3:  # Archimedes: a coordinate of a uniform point of the sphere is uniform
        assert stats.kstest((directions[:, 0] + 1) / 2, "uniform").pvalue > 1e-3


def test_points_are_uniform_in_the_linf_ball() -> None:
    offsets = drawn_from("linf", (1, 1, 2)).flatten(1)
    for column in (0, 1):
        assert stats.kstest((offsets[:, column] + 1) / 2, "uniform").pvalue > 1e-3
    assert abs(stats.pearsonr(offsets[:, 0], offsets[:, 1]).statistic) < 5 / COUNT**0.5


@NORMS
def test_a_point_depends_on_its_own_stream_alone(norm: str) -> None:
    centres = torch.full((4, 3, 2, 2), 0.5)
    together = Budget(norm, 0.1).random_point(centres, SampleDraws([5, 6, 7, 8]))
    alone = Budget(norm, 0.1).random_point(centres[:1], SampleDraws([7]))
    assert torch.equal(together[2:3], alone)


def test_the_l0_size_is_the_share_of_the_values_that_differ() -> None:
    offset = torch.zeros(3, 3, 2, 2)
    offset[1, 0, 0, 0], offset[1, 2, 1, 1], offset[2] = 1e-30, -1.0, 0.5
    assert Budget("l0", 0.1).size(offset).tolist() == pytest.approx([0, 2 / 12, 1])


@pytest.mark.parametrize(
    ("eps", "values", "allowed"),
    [(0.1, 30, 3), (0.29, 100, 29), (0.1, 39, 3), (7 / 3072, 3072, 7), (0.001, 12, 0), (1.0, 12, 12)],
)
def test_an_l0_budget_is_a_whole_number_of_values(eps: float, values: int, allowed: int) -> None:
    # 0.29 * 100 is 28.999999999999996: what arithmetic takes away is given back.
    budget, centres = Budget("l0", eps), torch.full((2, 1, 1, values), 0.5)
    projected = budget.project(centres + 0.1 * noise(2, 1, 1, values).float(), centres)
    assert (projected != centres).flatten(1).sum(dim=1).tolist() == [allowed] * 2
    assert budget.contains(budget.size(projected - centres)).all()
    assert not budget.contains(torch.tensor((allowed + 1) / values))


def test_no_image_of_the_l0_ball_is_nearer_than_the_projected_one() -> None:
    # By brute force over all choices of 2 values of 6; what leaves [0, 1] is clipped.
    budget, eps_values = Budget("l0", 2 / 6), 2
    centres = 0.5 * torch.ones(50, 1, 2, 3, dtype=torch.float64)
    points = (centres + 0.2 * noise(50, 1, 2, 3)).clamp(0, 1)
    nearest = (budget.project(points, centres) - points).flatten(1).norm(dim=1)
    flat, origin = points.flatten(1), centres.flatten(1)
    for chosen in itertools.combinations(range(6), eps_values):
        moved = origin.clone()
        moved[:, list(chosen)] = flat[:, list(chosen)]
        assert (nearest <= (moved - flat).norm(dim=1) + 1e-12).all()


def test_what_is_inside_an_l0_ball_stays_and_ties_are_broken_by_place() -> None:
    centres = torch.zeros(2, 1, 1, 4)
    points = torch.tensor([[0.0, 0.7, 0.0, 0.2], [0.3, 0.3, 0.3, 0.3]])[:, None, None]
    expected = torch.tensor([[0.0, 0.7, 0.0, 0.2], [0.3, 0.3, 0.0, 0.0]])[:, None, None]
    assert torch.equal(Budget("l0", 0.5).project(points, centres), expected)
    assert torch.equal(Budget("l0", 0.5).project(expected, centres), expected)
    # The sign of a change does not matter, and each sample has its own ball.
    assert torch.equal(
        Budget("l0", 0.25).project(1 - points[:1], 1 - centres[:1])[0, 0, 0], torch.tensor([1, 0.3, 1, 1])
    )
