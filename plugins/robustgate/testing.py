"""Contracts as tests: what every attack, corruption and recipe must keep, ours or a third party's.

from robustgate.testing import AttackContract

class TestMine(AttackContract):
    @pytest.fixture
    def attack(self):
        return MyAttack(eps=0.03)
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgate.core.benchmark import SEVERITIES
from robustgate.core.budget import Budget
from robustgate.core.components import Attack, Corruption, Recipe, Samples
from robustgate.engine.arena import Arena, Batch
from robustgate.engine.course import Lesson, Pupil, train, unheard
from robustgate.engine.draws import SampleDraws
from robustgate.engine.ledger import Ledger
from robustgate.engine.subjects import CountedTarget, TorchSubject

COUNT, SIDE = 24, 16


def expect(condition: object, complaint: str) -> None:
    """Fail the test unless `condition` holds: a package's own asserts would be dropped by ``python -O``."""
    if not condition:
        pytest.fail(complaint, pytrace=False)


def pictures(count: int = COUNT, side: int = SIDE) -> Tensor:
    """Return random images (count, 3, side, side) on 8-bit levels, with structure at several scales."""
    generator = torch.Generator().manual_seed(0)
    levels = 0.3 * torch.rand(count, 3, side, side, generator=generator)
    for cells, weight in ((3, 0.35), (8, 0.2), (20, 0.15)):
        coarse = torch.rand(count, 3, cells, cells, generator=generator)
        levels += weight * nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return (levels * 255).round() / 255


class ComponentContract:
    """What every component must keep: its fields are its parameters, and they do not change."""

    def check(self, component: Any) -> None:
        """Fail unless the component is a frozen, keyword-only dataclass with a docstring."""
        kind = type(component)
        expect(dataclasses.is_dataclass(kind), f"{kind.__name__} is no dataclass")
        expect(kind.__dataclass_params__.frozen, f"{kind.__name__} is not frozen")
        loose = [field.name for field in dataclasses.fields(kind) if not field.kw_only]
        expect(not loose, f"{kind.__name__}: {loose} are not keyword-only")
        expect(kind.__doc__, f"{kind.__name__} has no docstring")


class AttackContract(ComponentContract):
    """Inherit, and override the fixture `attack`."""

    @pytest.fixture
    def attack(self) -> Attack:
        """The attack under test."""
        raise NotImplementedError("override the fixture 'attack'")

    def attacked(self, attack: Attack, *, size: int = COUNT) -> tuple[Tensor, Ledger, TorchSubject]:
        """Attack the pictures on a small convolutional network, `size` at once; return them and what was found."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 3))
            subject = TorchSubject(nn.Sequential(*layers), torch.device("cpu"))
        images, everyone = pictures(), torch.arange(COUNT)
        labels = subject.logits(images).argmax(dim=1)
        budget = Budget(attack.norm, attack.eps)
        found = Ledger(images, labels, budget, minimizes=attack.minimizes)
        batches = (
            Batch(numbers=rows, images=images[rows], labels=labels[rows], seeds=rows.tolist())
            for rows in torch.split(everyone, size)
        )

        def finished(batch: Batch, ledger: Ledger) -> None:
            found.points[batch.numbers], found.norms[batch.numbers] = ledger.points, ledger.norms
            found.predictions[batch.numbers] = ledger.predictions

        Arena(CountedTarget(subject, 3, type(attack).__name__), attack, size=2 * size).fight(batches, finished)
        return images, found, subject

    def test_component(self, attack: Attack) -> None:
        """It is a frozen, keyword-only dataclass with a norm and a budget."""
        self.check(attack)
        expect(attack.norm in ("linf", "l2", "l0"), f"norm must be 'linf', 'l2' or 'l0', it is {attack.norm!r}")
        for name in ("needs_gradient", "minimizes"):
            expect(isinstance(getattr(attack, name, None), bool), f"{name} must be True or False")

    def test_budget_and_range(self, attack: Attack) -> None:
        """What it finds is adversarial, in [0, 1], of the norm that is told and, under a fixed budget, within it."""
        images, found, subject = self.attacked(attack)
        sizes = Budget(attack.norm, attack.eps).size(found.points - images)
        has_one = found.norms.isfinite()
        expect(bool(has_one.any()), "it found nothing at all: give it a budget at which some of the pictures fall")
        expect(bool((sizes - found.norms)[has_one].abs().max() <= 1e-6), "a norm is not that of its point")
        if not attack.minimizes:
            largest = float(sizes.max())
            expect(largest <= attack.eps + 1e-6, f"a perturbation of {largest:g} exceeds eps {attack.eps:g}")
        expect(float(found.points.min()) >= 0 and float(found.points.max()) <= 1, "an image left [0, 1]")
        decided = subject.logits(found.points).argmax(dim=1)
        expect(bool((decided == found.predictions)[has_one].all()), "a point does not fool as it is told to")

    def test_batches(self, attack: Attack) -> None:
        """A sample's result does not depend on the batch that it is in."""
        _, whole, _ = self.attacked(attack)
        for size in (1, 7):
            _, parts, _ = self.attacked(attack, size=size)
            difference = float((parts.points - whole.points).abs().max())
            expect(difference <= 1e-5, f"batches of {size} and of {COUNT} differ by {difference:g}")

    def test_leaves_no_trace(self, attack: Attack) -> None:
        """The model's mode and gradients and the global random stream are as they were."""
        before = torch.random.get_rng_state()
        _, found, subject = self.attacked(attack)
        expect(torch.equal(torch.random.get_rng_state(), before), "the global random stream moved")
        expect(not found.points.requires_grad, "the result requires a gradient")
        expect(not subject.module.training, "the model was left in train mode")
        expect(all(one.grad is None for one in subject.module.parameters()), "parameters were left with gradients")


class CorruptionContract(ComponentContract):
    """Inherit, and override the fixture `corruption`."""

    @pytest.fixture
    def corruption(self) -> Corruption:
        """The corruption under test."""
        raise NotImplementedError("override the fixture 'corruption'")

    @pytest.fixture(params=[32, 72])
    def images(self, request: pytest.FixtureRequest) -> Tensor:
        """Pictures of a small and of a large side."""
        return pictures(12, request.param)

    def test_component(self, corruption: Corruption) -> None:
        """It is a frozen, keyword-only dataclass."""
        self.check(corruption)

    @pytest.mark.parametrize("severity", SEVERITIES)
    def test_shape_type_and_input(self, corruption: Corruption, images: Tensor, severity: int) -> None:
        """It keeps shape and type, gives finite values, and does not write into its input."""
        before = images.clone()
        result = corruption.apply(images, severity, SampleDraws(range(len(images))))
        expect(
            result.shape == images.shape and result.dtype == images.dtype, f"it became {result.dtype}, {result.shape}"
        )
        expect(torch.isfinite(result).all(), "NaN or infinity")
        expect(torch.equal(images, before), "the input was written into")

    @pytest.mark.parametrize("severity", SEVERITIES)
    def test_batches(self, corruption: Corruption, images: Tensor, severity: int) -> None:
        """A sample's result does not depend on the batch that it is in."""
        whole = corruption.apply(images, severity, SampleDraws(range(len(images))))
        order = [7, 0, 3]
        part = corruption.apply(images[order], severity, SampleDraws(order))
        expect(torch.equal(part, whole[order]), "in another batch the result is another")

    @pytest.fixture
    def is_graded(self) -> bool:
        """Whether images move further with severity; of some published corruptions they do not."""
        return True

    def test_severities(self, corruption: Corruption, images: Tensor, is_graded: bool) -> None:
        """Images move further from the clean ones with severity; a step may change the kind, not fall back by 5 %."""
        distances = []
        for severity in SEVERITIES:
            result = corruption.apply(images, severity, SampleDraws(range(len(images)))).clamp(0, 1)
            distances.append(float((result - images).square().mean().sqrt()))
        grows = all(later > 0.95 * earlier for earlier, later in itertools.pairwise(distances))
        expect(min(distances) > 0, f"a severity that changes nothing: distances by severity: {distances}")
        expect(not is_graded or (grows and distances[0] < distances[-1]), f"distances by severity: {distances}")

    def test_leaves_no_trace(self, corruption: Corruption, images: Tensor) -> None:
        """The global random stream is as it was."""
        before = torch.random.get_rng_state()
        corruption.apply(images, 2, SampleDraws(range(len(images))))
        expect(torch.equal(torch.random.get_rng_state(), before), "the global random stream moved")


class KilledError(BaseException):
    """Ends a training as a signal does: nothing catches it."""


class RecipeContract(ComponentContract):
    """Inherit, and override the fixture `recipe`: give it two epochs at least, and batches of at most eight."""

    @pytest.fixture
    def recipe(self) -> Recipe:
        """The recipe under test."""
        raise NotImplementedError("override the fixture 'recipe'")

    @pytest.fixture
    def domain(self) -> str | None:
        """The other domain at whose images it looks, if any."""
        return None

    def trained(
        self,
        recipe: Recipe,
        domain: str | None,
        *,
        seed: int = 0,
        shaken: bool = False,
        folder: Path | None = None,
        pupil: Pupil = unheard,
    ) -> nn.Module:
        """Train a small network with dropout and batch normalisation on the pictures, and return it.

        The global random stream is elsewhere when training begins if it is `shaken`; a recipe must leave it there.
        """
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(4))
        module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 3)).eval()
        levels = (pictures() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        named = {"classes": ("a", "b", "c"), "names": ("drawn",) * COUNT}
        samples = Samples(images=levels, labels=np.arange(COUNT) % 3, **named)
        others = {domain: Samples(images=255 - levels, labels=np.arange(COUNT) % 3, **named)} if domain else {}
        teachers: dict[str | None, nn.Module] = {None: nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3))}
        torch.manual_seed(99 if shaken else 0)
        before = torch.random.get_rng_state()
        trained = train(
            module, recipe, samples, seed=seed, unlabelled=others, teachers=teachers, folder=folder, pupil=pupil
        )
        expect(torch.equal(torch.random.get_rng_state(), before), "the global random stream moved")
        return trained

    def test_component(self, recipe: Recipe) -> None:
        """It is a frozen, keyword-only dataclass."""
        self.check(recipe)

    def test_trains(self, recipe: Recipe, domain: str | None) -> None:
        """The network is another afterwards, in eval mode, finite, and keeps no gradients."""
        lessons: list[Lesson] = []
        module = self.trained(recipe, domain, pupil=lessons.append)
        expect(any(lesson.epoch for lesson in lessons), "no epoch was told: it does not go through `course.epochs`")
        torch.manual_seed(0)
        expect(not torch.equal(next(module.parameters()), nn.Conv2d(3, 8, 3).weight), "the weights are as they were")
        expect(not any(part.training for part in module.modules()), "the network was left in train mode")
        expect(all(one.grad is None for one in module.parameters()), "parameters were left with gradients")
        expect(all(bool(value.isfinite().all()) for value in module.state_dict().values()), "NaN or infinity")

    def test_seed(self, recipe: Recipe, domain: str | None) -> None:
        """Its seed decides everything; the global random stream decides nothing, and is left as it was."""
        first, moved = (self.trained(recipe, domain, seed=1, shaken=shaken) for shaken in (False, True))
        expect(_same(first, moved), "the same seed gave other weights")
        expect(not _same(first, self.trained(recipe, domain, seed=2)), "another seed gave the same weights")

    def test_killed(self, recipe: Recipe, domain: str | None, tmp_path: Path) -> None:
        """Killed in its second epoch and called again, it ends at the same weights as one that was left alone."""

        def killing(lesson: Lesson) -> None:
            if lesson.epoch == 2:
                raise KilledError

        alone = self.trained(recipe, domain)
        with pytest.raises(KilledError):
            self.trained(recipe, domain, folder=tmp_path, pupil=killing)
        resumed: list[int] = []
        again = self.trained(recipe, domain, folder=tmp_path, pupil=lambda lesson: resumed.append(lesson.epoch))
        expect(1 not in resumed, "the first epoch, which was kept, was trained again")
        expect(_same(alone, again), "it ends at other weights than one that was left alone")


def _same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())
