"""Square: its proposals, its schedule, closed forms, images of any shape, logits on a grid, torchattacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from closed_forms import CPU, Ground, ground
from safetensors.torch import load_file
from torch import Tensor, nn

from robustgate.attacks import square
from robustgate.attacks.square import Square, bumps, move_budget, recolour, stripes, tiles
from robustgate.core.budget import Budget
from robustgate.core.components import Answer, Samples
from robustgate.engine.draws import SampleDraws
from robustgate.engine.networks import Normalized
from robustgate.engine.subjects import TorchSubject
from robustgate.zoo import cifar_resnet

COUNT = 64
SHAPES = [(32, 32), (7, 19), (20, 6), (4, 4), (3, 40)]
LINF, L2 = Budget("linf", 0.1), Budget("l2", 0.3)


def grey(height: int, width: int, count: int = COUNT) -> Tensor:
    """Return random images so far from 0 and 1 that no proposal is clipped."""
    return 0.4 + 0.2 * torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def changed(points: Tensor, before: Tensor) -> Tensor:
    """Say which pixels (N, H, W) differ."""
    return ((points - before).abs() > 1e-6).any(dim=1)


def extent(flags: Tensor) -> tuple[int, int, int]:
    """Return the height and width of the box around an image's flags (H, W), and how many are set."""
    rows, columns = flags.any(dim=1).nonzero()[:, 0], flags.any(dim=0).nonzero()[:, 0]
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1, int(flags.sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_an_linf_start_is_vertical_stripes_and_a_change_is_one_square(shape: tuple[int, int]) -> None:
    images, draws = grey(*shape), SampleDraws(range(COUNT))
    start = stripes(images, LINF, draws)
    offset = start - images
    torch.testing.assert_close(offset.abs(), torch.full_like(offset, 0.1))
    torch.testing.assert_close(offset, offset[:, :, :1].expand_as(offset))
    assert 0.45 < float((offset[:, :, 0] > 0).float().mean()) < 0.55
    points = recolour(start, images, LINF, 3, draws.uniform(8))
    moved = points - images
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.1))
    seen = torch.zeros(shape, dtype=torch.bool)
    for flags, offsets in zip(changed(points, start), moved, strict=True):
        if flags.any():
            high, wide, _ = extent(flags)
            assert high == 3  # a stripe that had the new colour already is not changed
            assert wide <= 3
            for channel in offsets:
                assert len(set((channel[flags] > 0).tolist())) == 1
        seen |= flags
    assert seen[-1].any()
    assert seen[0].any()


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
        assert int(changed(points, before).flatten(1).sum(dim=1).max()) <= 18
    emptied = ((points - images).abs().amax(dim=1) <= 1e-6).flatten(1).sum(dim=1)
    assert int(emptied.min()) > 0


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
    outcome = field.outcome(Square(eps=eps, queries=2000))
    assert outcome.correct[nearest > eps + 1e-6].all()
    assert not outcome.correct[nearest < 0.99 * eps].any()


def test_l2_comes_near_what_a_linear_network_has_in_reach() -> None:
    # It keeps to squares of three pixels, so that it ends in the mean of its bumps, not along w: 0.8 of the way.
    field = ground("linear", side=(5, 7), count=48)
    nearest = field.nearest("l2").numpy()
    eps = float(np.quantile(nearest, 0.5))
    outcome = field.outcome(Square(eps=eps, norm="l2", queries=2000))
    assert outcome.correct[nearest > eps + 1e-6].all()
    assert not outcome.correct[nearest < 0.8 * eps].any()


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
    drifting = coarse.outcome(attack).correct.sum()
    # Planted: only what is better is kept, as in the paper. A hair off the margin makes an equal one worse.
    plain = square.margin

    def strict(labels: Tensor):
        calls = {"count": 0}

        def loss(logits: Tensor) -> Tensor:
            calls["count"] += 1
            strict.hair += 1e-5  # type: ignore[attr-defined]
            return plain(labels)(logits) - strict.hair  # type: ignore[attr-defined]

        return loss

    strict.hair = 0.0  # type: ignore[attr-defined]
    monkeypatch.setattr(square, "margin", strict)
    print(drifting, coarse.outcome(attack).correct.sum(), field.outcome(attack).correct.sum(), step)
    assert drifting < coarse.outcome(attack).correct.sum()


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


@pytest.fixture(scope="module")
def resnet(real_data: Path) -> Ground:
    """The published ResNet-20 and 100 CIFAR-10 images, ten of each class."""
    network = cifar_resnet(depth=20, num_classes=10)
    network.load_state_dict(load_file(real_data / "weights" / "cifar10_resnet20.safetensors"))
    with np.load(real_data / "cifar" / "cifar10_test_2000.npz") as arrays:
        rows = np.concatenate([np.flatnonzero(arrays["labels"] == label)[:10] for label in range(10)])
        samples = Samples(
            images=arrays["images"][rows],
            labels=arrays["labels"][rows],
            classes=tuple(arrays["classes"]),
            names=tuple(map(str, rows)),
        )
    module = Normalized(network, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = torch.tensor(samples.images).permute(0, 3, 1, 2).contiguous().float() / 255
    return Ground(TorchSubject(module, CPU), samples, images)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 1.0)])
def test_no_weaker_than_torchattacks(resnet: Ground, norm: str, eps: float) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    labels = torch.tensor(resnet.samples.labels)
    name = {"linf": "Linf", "l2": "L2"}[norm]
    other = torchattacks.Square(resnet.subject.module, norm=name, eps=eps, n_queries=100, seed=0)
    found = resnet.subject.logits(other(resnet.images, labels)).argmax(dim=1)
    robust = resnet.outcome(Square(eps=eps, norm=norm, queries=101)).correct
    print(norm, eps, robust.sum(), int((found == labels).sum()))
    assert 0 < robust.mean() < 0.5
    assert robust.sum() <= int((found == labels).sum()) + 1
