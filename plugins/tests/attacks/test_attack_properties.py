"""What every attack keeps on drawn networks: its norm and range, and each sample's result for itself alone."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_attacks import ATTACKS
from torch import Tensor, nn

from robustgate.core.budget import Budget
from robustgate.core.catalog import shelf
from robustgate.core.components import Attack
from robustgate.engine.arena import Arena, Batch
from robustgate.engine.draws import SampleDraws
from robustgate.engine.ledger import Ledger
from robustgate.engine.subjects import CountedTarget, TorchSubject

deterministic = settings(derandomize=True, database=None, deadline=None, max_examples=8)

# Fewer steps than in the contract's tests, where that leaves the same paths to go.
CHEAP: dict[str, dict[str, Any]] = {
    "ddn": {"steps": 15},
    "deepfool": {"steps": 10},
}
# The range of budgets in which some samples of the drawn networks fall and some stand.
BUDGETS = {"linf": (0.005, 0.1), "l2": (0.05, 1.0), "l0": (0.02, 0.2)}


class Drawn(nn.Module):
    """A network of drawn weights, linear or convolutional, whose logits are 0 on the average of some images.

    It computes in double precision: its float32 logits and gradients are then the same in a batch of any size.
    """

    def __init__(self, images: Tensor, classes: int, *, convolutional: bool) -> None:
        super().__init__()
        channels, height, width = images.shape[1:]
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(channels * height * width, classes)]
        if convolutional:
            layers = [nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten()]
            layers.append(nn.Linear(4 * height * width, classes))
        self.layers = nn.Sequential(*layers).double().requires_grad_(False)
        self.layers[-1].bias -= self.layers(images.double()).mean(dim=0)

    def forward(self, images: Tensor) -> Tensor:
        return 20 * self.layers(images.double()).float()


@dataclass(frozen=True)
class Situation:
    """A network, images, the labels that it gives them, and an attack on it."""

    subject: TorchSubject = dataclasses.field(repr=False)
    images: Tensor = dataclasses.field(repr=False)
    labels: Tensor
    classes: int
    attack: Attack


def norms_of(kind: type) -> list[str]:
    """Return the norms that a component's parameter `norm` may be, or none where it has only one."""
    types = [str(one.type) for one in dataclasses.fields(kind) if one.name == "norm"]
    return re.findall(r"linf|l2|l0", types[0]) if types else []


@st.composite
def situations(draw: st.DrawFn, name: str) -> Situation:
    kind = shelf("attacks").component(name)
    parameters = ATTACKS[name] | CHEAP.get(name, {})
    norms = norms_of(kind)
    if norms:
        parameters |= {"norm": draw(st.sampled_from(norms))}
    low, high = BUDGETS[kind(**parameters).norm]
    parameters |= {"eps": draw(st.floats(low, high))}
    height, width, count = draw(st.integers(4, 10)), draw(st.integers(4, 10)), draw(st.integers(2, 5))
    classes, convolutional = draw(st.integers(2, 5)), draw(st.booleans())
    with torch.random.fork_rng():
        torch.manual_seed(draw(st.integers(0, 2**31)))
        images = torch.randint(0, 256, (count, 3, height, width)).float() / 255
        subject = TorchSubject(Drawn(images, classes, convolutional=convolutional), torch.device("cpu"))
    return Situation(subject, images, subject.logits(images).argmax(dim=1), classes, kind(**parameters))


def attacked(situation: Situation, part: int) -> Ledger:
    """Return what the attack finds in walks of `part` samples, as one ledger of all."""
    images, labels, attack = situation.images, situation.labels, situation.attack
    whole = Ledger(images, labels, Budget(attack.norm, attack.eps), minimizes=attack.minimizes)

    def finished(batch: Batch, ledger: Ledger) -> None:
        for name in ("points", "norms", "predictions", "queries", "gradients"):
            getattr(whole, name)[batch.numbers] = getattr(ledger, name)

    batches = (
        Batch(numbers=rows, images=images[rows], labels=labels[rows], seeds=rows.tolist())
        for rows in torch.split(torch.arange(len(images)), part)
    )
    Arena(CountedTarget(situation.subject, situation.classes, "case"), attack, size=part).fight(batches, finished)
    return whole


def check_norms_and_range(situation: Situation, found: Ledger) -> None:
    attack = situation.attack
    sizes = Budget(attack.norm, attack.eps).size(found.points - situation.images)
    has_one = found.norms.isfinite()
    torch.testing.assert_close(sizes[has_one], found.norms[has_one], rtol=0, atol=1e-6)
    assert attack.minimizes or float(sizes.max()) <= attack.eps + 1e-6
    assert float(found.points.min()) >= 0
    assert float(found.points.max()) <= 1
    decided = situation.subject.logits(found.points).argmax(dim=1)
    assert torch.equal(decided, found.predictions)
    assert torch.equal(decided != situation.labels, has_one)


def check_alone_as_together(situation: Situation) -> None:
    together, alone = attacked(situation, len(situation.images)), attacked(situation, 1)
    assert torch.equal(alone.predictions, together.predictions)
    torch.testing.assert_close(alone.points, together.points, rtol=0, atol=1e-5)


def of_its_own(name: str) -> bool:
    """Say whether an attack is not another library's, which draws and stops for a whole batch and says so."""
    return not hasattr(shelf("attacks").component(name), "library")


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_norms_and_range(name: str) -> None:
    @deterministic
    @given(situations(name))
    def holds(situation: Situation) -> None:
        check_norms_and_range(situation, attacked(situation, len(situation.images)))

    holds()


@pytest.mark.parametrize("name", list(filter(of_its_own, sorted(ATTACKS))))
def test_a_sample_alone_and_among_others(name: str) -> None:
    @deterministic
    @given(situations(name))
    def holds(situation: Situation) -> None:
        check_alone_as_together(situation)

    holds()


def test_the_drawn_situations_are_of_every_kind() -> None:
    seen: list[tuple[bool, bool]] = []

    @settings(deterministic, max_examples=30)
    @given(situations("pgd"))
    def look(situation: Situation) -> None:
        fallen = attacked(situation, len(situation.images)).norms.isfinite()
        seen.append((bool(fallen.any()), bool(fallen.all())))

    look()
    assert sum(some for some, _ in seen) >= 5
    assert sum(not every for _, every in seen) >= 5


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A faulty attack: it walks along the mean of its batch's gradients."""

    inner: Attack

    needs_gradient = True
    minimizes = False
    norm = "linf"
    eps = 0.1

    def run(self, images: Tensor, labels: Tensor, draws: SampleDraws, target: CountedTarget) -> Any:
        walk = self.inner.run(images, labels, draws, target)
        query = next(walk)
        while True:
            answer = yield query
            answer = dataclasses.replace(answer, gradient=answer.gradient.mean(dim=0).expand_as(answer.gradient))
            try:
                query = walk.send(answer)
            except StopIteration:
                return


def test_an_attack_that_mixes_its_batch_is_told() -> None:
    # The first that is found will do: nobody reads the smallest.
    @settings(deterministic, max_examples=30, phases=[Phase.generate], report_multiple_bugs=False)
    @given(situations("fgsm"))
    def holds(situation: Situation) -> None:
        mixing = dataclasses.replace(situation.attack, eps=0.1)
        check_alone_as_together(dataclasses.replace(situation, attack=Mean(inner=mixing)))

    with pytest.raises(AssertionError):
        holds()
