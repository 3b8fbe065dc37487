"""Attacks against known answers: a linear network, whose nearest adversarial input has a closed form."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from closed_forms import Ground
from published import published
from shelf_attacks import ATTACKS
from torch import Tensor, nn

from robustgate.attacks.fgsm import Fgsm
from robustgate.attacks.pgd import Pgd
from robustgate.core.catalog import shelf
from robustgate.core.components import Query, Samples
from robustgate.engine.adversarial import measure_adversarial
from robustgate.engine.subjects import TorchSubject
from robustgate.testing import AttackContract

CPU = torch.device("cpu")
COUNT, SIDE = 64, 4


class Linear(nn.Module):
    """Two logits, 0 and w·x + b."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(3 * SIDE * SIDE, generator=generator))
        self.bias = nn.Parameter(-0.5 * self.weight.detach().sum())

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.fixture
def linear() -> tuple[TorchSubject, Samples, Tensor]:
    """The network, images well inside [0, 1] with the labels it gives them, and each one's margin |w·x + b|."""
    network = Linear()
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(90, 166, (COUNT, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    score = network(images.permute(0, 3, 1, 2).float() / 255)[:, 1].detach()
    samples = Samples(
        images=images.numpy(),
        labels=(score > 0).long().numpy(),
        classes=("no", "yes"),
        names=tuple(map(str, range(COUNT))),
    )
    return TorchSubject(network, CPU), samples, score.abs()


def robust(subject: TorchSubject, samples: Samples, attack) -> np.ndarray:
    return measure_adversarial(subject, samples, "case", lambda *_: None, attack, seed=7).correct


@pytest.mark.parametrize("eps", [0.002, 0.01, 0.03])
@pytest.mark.parametrize("make", [lambda eps: Fgsm(eps=eps), lambda eps: Pgd(eps=eps, steps=20)], ids=["fgsm", "pgd"])
def test_linf_fells_exactly_those_within_reach(linear, make, eps: float) -> None:
    subject, samples, margin = linear
    nearest = margin / subject.module.weight.abs().sum()
    assert 0 < int((nearest > eps).sum()) < COUNT
    np.testing.assert_array_equal(robust(subject, samples, make(eps)), (nearest > eps).numpy())


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.2])
def test_l2_fells_exactly_those_within_reach(linear, eps: float) -> None:
    subject, samples, margin = linear
    nearest = margin / subject.module.weight.norm()
    assert 0 < int((nearest > eps).sum()) < COUNT
    found = robust(subject, samples, Pgd(eps=eps, norm="l2", steps=40, random_start=False))
    np.testing.assert_array_equal(found, (nearest > eps).numpy())


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.2])
def test_l2_from_a_random_start_turns_to_the_steepest_direction(linear, eps: float) -> None:
    # A start on the sphere, at right angles to w in the worst case: a step of a = 2.5 / steps turns it by a·sin(angle),
    # so tan(angle / 2) falls to exp(-2.5) = 0.082 and the walk reaches cos(9.4 degrees) = 0.986 of eps along w.
    subject, samples, margin = linear
    nearest = margin / subject.module.weight.norm()
    found = robust(subject, samples, Pgd(eps=eps, norm="l2", steps=40))
    assert found[(nearest > eps).numpy()].all()
    assert not found[(nearest < 0.98 * eps).numpy()].any()


def test_every_attack_on_the_shelf_is_under_contract() -> None:
    names = set(shelf("attacks").names)
    # A union of others attacks nothing itself: it has no budget and no walk to be held to.
    unions = {name for name in names if "attacks" in {field.name for field in fields_of(name)}}
    assert unions == {"worst_case"}
    assert names - unions == set(ATTACKS)


def fields_of(name: str) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(shelf("attacks").component(name))


class TestContract(AttackContract):
    """Every attack on the shelf keeps the contract."""

    @pytest.fixture(params=sorted(ATTACKS))
    def attack(self, request: pytest.FixtureRequest):
        return shelf("attacks").component(request.param)(**ATTACKS[request.param])


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_impossible_budgets_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="eps"):
        shelf("attacks").component(name)(eps=-1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cheat:
    """An attack that leaves its budget, claims everything, or gives NaN."""

    needs_gradient = False
    minimizes = False
    norm = "linf"
    eps: float = 0.001
    value: float = 0.0

    def run(self, images, labels, draws, target):
        yield Query(torch.arange(len(images)), torch.full_like(images, self.value))


def test_an_attack_that_leaves_its_budget_is_projected_and_counted_on_the_artifact(linear) -> None:
    subject, samples, margin = linear
    outcome = measure_adversarial(subject, samples, "case", lambda *_: None, Cheat(), seed=0)
    assert outcome.details["largest_norm"] <= 0.001 + 1e-6
    assert int(outcome.correct.sum()) >= int((margin / subject.module.weight.abs().sum() > 0.001).sum())


def test_nan_from_an_attack_is_an_error(linear) -> None:
    from robustgate.core.errors import MeasurementError

    subject, samples, _ = linear
    with pytest.raises(MeasurementError, match="NaN"):
        robust(subject, samples, Cheat(value=float("nan")))


def test_wrong_without_attack_counts_as_wrong_and_is_not_attacked(linear) -> None:
    subject, samples, _ = linear
    flipped = dataclasses.replace(samples, labels=np.where(np.arange(COUNT) < 10, 1 - samples.labels, samples.labels))
    outcome = measure_adversarial(subject, flipped, "case", lambda *_: None, Fgsm(eps=1e-6), seed=0)
    assert outcome.details["attacked"] == COUNT - 10
    assert not outcome.correct[:10].any()
    assert outcome.correct[10:].all()


class TestAgainstTorchattacks:
    """On CIFAR-10 and the published ResNet-20: the same FGSM to the half point, and a PGD no weaker than theirs."""

    @pytest.fixture
    def resnet(self, real_data: Path) -> Ground:
        return published(real_data, 50)

    def theirs(self, resnet: Ground, attack) -> float:
        images, labels = resnet.images, torch.tensor(resnet.samples.labels)
        found = torch.cat([attack(images[at : at + 100], labels[at : at + 100]) for at in range(0, len(labels), 100)])
        return float((resnet.subject.logits(found).argmax(1) == labels).float().mean())

    @pytest.mark.parametrize(("eps", "reference"), [(1 / 255, 0.408), (2 / 255, 0.280), (8 / 255, 0.158)])
    def test_fgsm_equals_theirs(self, resnet, eps: float, reference: float) -> None:
        torchattacks = pytest.importorskip("torchattacks")
        ours = float(resnet.outcome(Fgsm(eps=eps)).correct.mean())
        assert abs(ours - self.theirs(resnet, torchattacks.FGSM(resnet.subject.module, eps=eps))) <= 0.005
        assert abs(ours - reference) <= 0.005

    @pytest.mark.parametrize(
        ("norm", "eps", "relative_step", "reference"),
        [("linf", 1 / 255, 0.25, 0.188), ("linf", 2 / 255, 0.25, 0.018), ("l2", 0.25, 0.2, 0.076)],
    )
    def test_pgd_is_no_weaker_than_theirs(self, resnet, norm, eps, relative_step, reference) -> None:
        torchattacks = pytest.importorskip("torchattacks")
        attack = Pgd(eps=eps, norm=norm, steps=10, relative_step=relative_step, random_start=False)
        ours = float(resnet.outcome(attack).correct.mean())
        kind = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
        other = kind(resnet.subject.module, eps=eps, alpha=relative_step * eps, steps=10, random_start=False)
        assert ours <= self.theirs(resnet, other) + 0.005
        assert ours <= reference + 0.005
