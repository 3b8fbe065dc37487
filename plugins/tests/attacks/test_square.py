"""Square: its proposals, its schedule, closed forms, images of any shape, logits on a grid, torchattacks."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from closed_forms import CPU, Ground, ground
from published import published
from torch import Tensor, nn

from robustgate.attacks import square
from robustgate.attacks.square import Square, bumps, move_budget, recolour, stripes, tiles
from robustgate.core.budget import Budget
from robustgate.core.components import Answer, Samples
from robustgate.engine.draws import SampleDraws
from robustgate.engine.subjects import TorchSubject
from robustgate.testing import pictures

COUNT = 64
SHAPES = [(32, 32), (7, 19), (20, 6), (4, 4), (3, 40)]
LINF, L2 = Budget("linf", 0.1), Budget("l2", 0.3)


def grey(height: int, width: int, count: int = COUNT) -> Tensor:
    """Return random images so far from 0 and 1 that no proposal is clipped."""
    return 0.4 + 0.2 * torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def changed(points: Tensor, before: Tensor) -> Tensor:
    """Say which pixels (N, H, W) differ."""
    return ((points - before).abs() > 1e-6).any(dim=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_linf_start_is_vertical_stripes_and_a_change_is_one_square(shape: tuple[int, int]) -> None:
    images, draws = grey(*shape), SampleDraws(range(COUNT))
    start = stripes(images, LINF, draws)
    offset = start - images
    torch.testing.assert_close(offset.abs(), torch.full_like(offset, 0.1))
    torch.testing.assert_close(offset, offset[:, :, :1].expand_as(offset))
    assert 0.45 < float((offset[:, :, 0] > 0).float().mean()) < 0.55
    seen = torch.zeros(shape, dtype=torch.bool)
    for _ in range(20):
        points = recolour(start, images, LINF, 3, draws.uniform(8))
        moved = points - images
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.1))
        for flags, offsets in zip(changed(points, start), moved, strict=True):
            seen |= flags
            rows, columns = flags.any(dim=1).nonzero()[:, 0], flags.any(dim=0).nonzero()[:, 0]
            assert int(rows[-1] - rows[0]) == 2
            assert int(columns[-1] - columns[0]) <= 2  # a stripe that has the new colour already does not change
            assert all(len(set((channel[flags] > 0).tolist())) == 1 for channel in offsets)
    # Every row and column has its turn, those at the edges too.
    assert seen.any(dim=0).all()
    assert seen.any(dim=1).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_an_l2_change_moves_budget_and_uses_all_of_it(shape: tuple[int, int]) -> None:
    images, draws = grey(*shape), SampleDraws(range(COUNT))
    start = tiles(images, L2, draws)
    torch.testing.assert_close(L2.size(start - images), torch.full((COUNT,), 0.3))
    points = start
    for _ in range(20):
        before, points = points, move_budget(points, images, L2, 3, draws.uniform(8))
        assert float((L2.size(points - images) - 0.3).abs().max()) <= 1e-5
        # Two squares of 9 pixels, one of which is zero now where the other does not cover it.
        flags, filled = changed(points, before), changed(points, images)
        assert int(flags.flatten(1).sum(dim=1).max()) <= 18
        assert int((flags & filled).flatten(1).sum(dim=1).max()) <= 9


def test_a_bump_is_the_papers() -> None:
    # Equation 2 for h = 5: two rows up, three down, in rings of 1 + 1/4 + 1/9, 1/4 + 1/9 and 1/9 from the middle out.
    inner, middle, outer = 1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9
    side = [outer, middle, middle, middle, outer]
    centre = [outer, middle, inner, middle, outer]
    upper, lower = np.array([side, centre]), np.array([side, centre, side])
    expected = np.concatenate([upper / np.linalg.norm(upper), -lower / np.linalg.norm(lower)]) / 2**0.5
    np.testing.assert_allclose(bumps(5, torch.zeros(1)).numpy(), expected, atol=1e-6)
    for side_length in range(1, 12):
        assert float(bumps(side_length, torch.zeros(1)).norm()) == pytest.approx(1)


def test_the_schedule_is_the_papers_for_any_number_of_queries() -> None:
    # Halvings of p = 0.8 after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 queries, on 32 x 32.
    starts = [0, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    sides = [round((0.8 / 2**halvings * 1024) ** 0.5) for halvings in range(10)]
    assert [Square(eps=0.1, queries=10_000).side(query, (1, 3, 32, 32)) for query in starts] == sides
    assert sides == [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    tenth = [Square(eps=0.1, queries=1000).side(-(-start // 10), (1, 3, 32, 32)) for start in starts]
    assert tenth == sides
    odd = [Square(eps=1, norm="l2", queries=10_000).side(query, (1, 3, 32, 32)) for query in starts]
    assert odd == [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]
    assert Square(eps=0.1).side(0, (1, 3, 4, 64)) == 4


@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (7, 2)])
def test_linf_reaches_what_a_linear_network_has_in_reach(shape: tuple[int, int]) -> None:
    # Once its squares are single pixels it searches coordinate by coordinate: it finds the corner that is nearest.
    field = ground("linear", side=shape)
    nearest = field.nearest("linf").numpy()
    eps = float(np.quantile(nearest, 0.5))
    outcome = field.outcome(Square(eps=eps, queries=1000))
    assert outcome.correct[nearest > eps + 1e-6].all()
    assert not outcome.correct[nearest < 0.99 * eps].any()


def test_l2_comes_half_the_way_that_a_linear_network_has_in_reach() -> None:
    # w is white noise, the worst case for bumps of three pixels: they hardly follow it.
    field = ground("linear", side=(5, 7))
    nearest = field.nearest("l2").numpy()
    eps = float(np.quantile(nearest, 0.8))
    outcome = field.outcome(Square(eps=eps, norm="l2", queries=500))
    assert outcome.correct[nearest > eps + 1e-6].all()
    assert not outcome.correct[nearest < 0.5 * eps].any()
    assert (nearest < 0.5 * eps).sum() >= 10


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 9), (11, 2)])
def test_the_smallest_images_are_no_error(norm: str, shape: tuple[int, int]) -> None:
    field = ground("linear", side=shape)
    outcome = field.outcome(Square(eps=0.2, norm=norm, queries=70))
    assert not outcome.correct.all()


def test_it_asks_for_logits_only_and_no_more_than_told() -> None:
    field = ground("linear")
    eps = float(field.nearest("linf").quantile(0.5))
    outcome = field.outcome(Square(eps=eps, queries=150))
    assert outcome.gradients.sum() == 0
    assert set(outcome.queries[outcome.correct]) == {150}
    assert (outcome.queries[~outcome.correct] <= 150).all()
    walk = Square(eps=eps, queries=2).run(grey(4, 4, 2), torch.tensor([0, 1]), SampleDraws([0, 1]), None)  # type: ignore[arg-type]
    asked = next(walk)
    assert asked.loss is None
    flags = torch.tensor([True, False])
    assert walk.send(Answer(torch.eye(2), torch.empty(0), flags, flags)).rows.tolist() == [1]


class Coarse(nn.Module):
    """A network whose logits lie on a grid, as those of a quantized file."""

    def __init__(self, inner: nn.Module, step: float) -> None:
        super().__init__()
        self.inner, self.step = inner, step

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) / self.step).round() * self.step


def test_it_drifts_over_the_plateaus_of_coarse_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    field = ground("linear", side=8, count=48)
    eps = 1.5 * float(field.nearest("linf").quantile(0.5))
    logits = field.subject.logits(field.images)
    step = float((logits[:, 1] - logits[:, 0]).abs().median()) / 3
    coarse = Ground(TorchSubject(Coarse(field.subject.module, step), CPU), field.samples, field.images)
    attack = Square(eps=eps, queries=600)

    def standing() -> int:
        return sum(int(coarse.outcome(attack, seed=seed).correct.sum()) for seed in (7, 8, 9))

    drifting = standing()
    # Planted: only what is better is kept, as in the paper. A hair off the margin makes an equal one worse.
    plain, hairs = square.margin, itertools.count()

    def strict(labels: Tensor):
        hair = 1e-5 * next(hairs)
        return lambda logits: plain(labels)(logits) - hair

    monkeypatch.setattr(square, "margin", strict)
    assert drifting <= standing() - 9


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"eps": 0}, "eps must be above 0.*got 0"),
        ({"eps": 8.0}, "eps is in .0, 1. units, got 8"),
        ({"eps": 0.1, "queries": 0}, "queries must be at least 1, got 0"),
        ({"eps": 0.1, "p_init": 0.0}, "p_init must be above 0 and at most 1, .* got 0"),
        ({"eps": 0.1, "p_init": 1.5}, "p_init must be above 0 and at most 1, .* got 1.5"),
    ],
)
def test_impossible_parameters_are_refused(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Square(**wrong)
    Square(eps=8.0, norm="l2")


def balanced() -> Ground:
    """Return a random network of ten classes, its bias such that it tells pictures apart, and 300 pictures."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()]
        last = nn.Linear(128, 10)
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), last)
        images = pictures(300, 32)
        last.bias -= network(images).mean(dim=0)
        labels = network(images).argmax(dim=1)
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    classes = tuple(map(str, range(10)))
    samples = Samples(images=pixels.contiguous().numpy(), labels=labels.numpy(), classes=classes, names=("",) * 300)
    return Ground(TorchSubject(network, CPU), samples, images)


def fallen_to_torchattacks(field: Ground, size: int, **parameters) -> int:
    """Run their Square on batches of `size`: all images of a batch share its squares, so that its luck is shared."""
    torchattacks = pytest.importorskip("torchattacks")
    labels, fallen = torch.tensor(field.samples.labels), 0
    for start in range(0, len(labels), size):
        attack = torchattacks.Square(field.subject.module, seed=start, **parameters)
        images, truth = field.images[start : start + size], labels[start : start + size]
        fallen += int((field.subject.logits(attack(images, truth)).argmax(dim=1) != truth).sum())
    return fallen


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.01), ("l2", 0.3)])
def test_no_weaker_than_torchattacks(norm: str, eps: float) -> None:
    # Means of six runs: ours fell 181 of 300 and theirs 184 in linf, 116 and 121 in l2, each give or take 5 a run.
    field = balanced()
    theirs = fallen_to_torchattacks(field, 10, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, n_queries=100)
    ours = int((~field.outcome(Square(eps=eps, norm=norm, queries=101)).correct).sum())
    assert 90 < ours < 210
    assert ours >= theirs - 15


def test_no_weaker_than_torchattacks_on_real_images(real_data: Path) -> None:
    resnet = published(real_data, 10)
    theirs = fallen_to_torchattacks(resnet, 10, norm="Linf", eps=8 / 255, n_queries=40)
    ours = int((~resnet.outcome(Square(eps=8 / 255, queries=41)).correct).sum())
    assert ours >= theirs - 6
