"""AutoAttack: its parts in turn, few classes, the same twice, torchattacks' version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from closed_forms import CPU, Ground, ground
from published import published
from torch import nn

from robustgate.attacks.autoattack import Autoattack
from robustgate.engine.subjects import TorchSubject


def test_the_parts_are_the_papers_at_the_sizes_told() -> None:
    attack = Autoattack(eps=0.1, norm="l2", steps=7, queries=50, targets=3)
    ce, targeted, fab, square = attack.parts()
    assert [type(part).__name__ for part in attack.parts()] == ["ApgdCe", "ApgdT", "Fab", "Square"]
    assert {(part.eps, part.norm) for part in attack.parts()} == {(0.1, "l2")}
    assert (ce.steps, targeted.steps, fab.steps, square.queries) == (7, 7, 7, 50)
    assert (targeted.targets, fab.targets, fab.targeted) == (3, 3, True)
    default = Autoattack(eps=0.1)
    assert (default.norm, default.steps, default.queries, default.targets) == ("linf", 100, 5000, 9)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"eps": 0}, "eps must be above 0"),
        ({"eps": 8.0}, "divide by 255"),
        ({"eps": 0.1, "steps": 0}, "steps must be at least 1"),
        ({"eps": 0.1, "queries": 0}, "queries must be at least 1"),
        ({"eps": 0.1, "targets": 0}, "targets must be at least 1"),
    ],
)
def test_impossible_parameters_are_refused(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Autoattack(**wrong)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_two_classes_and_each_part_only_for_what_stands(norm: str) -> None:
    field = ground("linear")
    nearest = field.nearest(norm).numpy()
    eps = float(np.quantile(nearest, 0.5))
    outcome = field.outcome(Autoattack(eps=eps, norm=norm, steps=15, queries=60))
    np.testing.assert_array_equal(outcome.correct, nearest > eps)
    # On this network the first part fells all that can be: the others cost those nothing.
    assert outcome.gradients[~outcome.correct].max() <= 15
    assert outcome.queries[~outcome.correct].max() <= 15
    assert outcome.gradients[outcome.correct].min() >= 15 + 15 + 1
    assert outcome.queries[outcome.correct].min() >= 60


class Fortress(nn.Module):
    """A network whose gradients lead nowhere: the pixels that count are seen through a staircase."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stairs = (x * 2000).round() / 2000
        return self.inner(stairs.detach() + 0 * x)


def test_square_fells_what_has_no_gradient() -> None:
    field = ground("linear")
    nearest = field.nearest("linf").numpy()
    eps = float(np.quantile(nearest, 0.5))
    masked = Ground(TorchSubject(Fortress(field.subject.module), CPU), field.samples, field.images)
    few = masked.outcome(Autoattack(eps=eps, steps=5, queries=1)).correct
    many = masked.outcome(Autoattack(eps=eps, steps=5, queries=1000)).correct
    assert few[nearest < 0.9 * eps].any()
    assert not many[nearest < 0.9 * eps].any()


def test_the_same_twice_and_in_any_batch() -> None:
    field = ground("linear")
    eps = float(field.nearest("linf").quantile(0.5))
    attack = Autoattack(eps=eps, steps=3, queries=30)
    one, again, alone = field.outcome(attack), field.outcome(attack), field.outcome(attack, size=1)
    for other in (again, alone):
        np.testing.assert_array_equal(one.correct, other.correct)
        np.testing.assert_allclose(one.norms, other.norms, atol=1e-6)


def test_as_strong_as_torchattacks_standard_version(real_data: Path) -> None:
    # Their sizes but for the queries, which their constructor does not take: 200 of 5,000.
    torchattacks = pytest.importorskip("torchattacks")
    resnet = published(real_data, 6)
    eps, labels = 2 / 255, torch.tensor(resnet.samples.labels)
    theirs = torchattacks.AutoAttack(resnet.subject.module, norm="Linf", eps=eps, version="standard", seed=0)
    theirs._autoattack.attacks[3].n_queries = 200
    standing = resnet.subject.logits(theirs(resnet.images, labels)).argmax(dim=1) == labels
    outcome = resnet.outcome(Autoattack(eps=eps, steps=10, queries=200))
    assert abs(int(outcome.correct.sum()) - int(standing.sum())) <= 1
    assert outcome.correct.mean() < 0.2
