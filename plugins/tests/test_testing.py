"""The contracts catch what they are for: each planted fault fails its test."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch

from robustgate.attacks.fgsm import Fgsm
from robustgate.core.components import Query
from robustgate.core.losses import cross_entropy
from robustgate.corruptions.contrast import Contrast
from robustgate.testing import AttackContract, CorruptionContract, RecipeContract, pictures
from robustgate.training._descent import Descent, Run
from robustgate.training.supervised import Supervised

FAILED = pytest.fail.Exception


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faulty:
    """An attack that does what its `fault` says."""

    needs_gradient: ClassVar[bool] = False
    minimizes: ClassVar[bool] = False
    norm: str = "linf"
    eps: float = 0.01
    fault: str = ""

    def run(self, images, labels, draws, target):
        if self.fault == "nothing":
            return
        if self.fault == "stream":
            torch.rand(1)
        if self.fault == "mode":
            target.subject.module.train()
        rows = torch.arange(len(images))
        answer = yield Query(rows, images, cross_entropy(labels))
        if self.fault == "gradient":
            with torch.enable_grad():
                next(target.subject.module.parameters()).requires_grad_()
                target.subject.module(images).sum().backward()
        push = answer.gradient.mean(dim=0, keepdim=True) if self.fault == "batch" else answer.gradient
        yield Query(rows, images + self.eps * push.sign())


@pytest.mark.parametrize(
    ("fault", "test", "complaint"),
    [
        ("nothing", "test_budget_and_range", "found nothing"),
        ("batch", "test_batches", "batches of 1 and of 24 differ"),
        ("stream", "test_leaves_no_trace", "random stream moved"),
        ("mode", "test_leaves_no_trace", "left in train mode"),
        ("gradient", "test_leaves_no_trace", "left with gradients"),
    ],
)
def test_a_faulty_attack_breaks_the_contract(fault: str, test: str, complaint: str) -> None:
    with pytest.raises(FAILED, match=complaint):
        getattr(AttackContract(), test)(Faulty(fault=fault))
    getattr(AttackContract(), test)(Fgsm(eps=0.01))


class Thawed:
    """Neither frozen nor a dataclass."""

    norm = "linf"


def test_a_component_must_be_a_frozen_dataclass() -> None:
    with pytest.raises(FAILED, match="is no dataclass"):
        AttackContract().test_component(Thawed())
    with pytest.raises(FAILED, match="is not frozen"):
        AttackContract().test_component(dataclasses.dataclass(kw_only=True)(type("Soft", (), {"__doc__": "x"}))())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spoiled(Contrast):
    """A corruption with one fault."""

    fault: str = ""

    def apply(self, images, severity, draws):
        if self.fault == "input":
            images.mul_(0.5)
        if self.fault == "stream":
            torch.rand(1)
        if self.fault == "severity":
            severity = 6 - severity
        result = super().apply(images, severity, draws)
        return result + images.mean() if self.fault == "batch" else result


@pytest.mark.parametrize(
    ("fault", "test", "arguments", "complaint"),
    [
        ("input", "test_shape_type_and_input", [3], "written into"),
        ("batch", "test_batches", [3], "in another batch"),
        ("severity", "test_severities", [True], "distances by severity"),
        ("stream", "test_leaves_no_trace", [], "random stream moved"),
    ],
)
def test_a_faulty_corruption_breaks_the_contract(fault: str, test: str, arguments: list[int], complaint: str) -> None:
    with pytest.raises(FAILED, match=complaint):
        getattr(CorruptionContract(), test)(Spoiled(fault=fault), pictures(12, 32), *arguments)
    getattr(CorruptionContract(), test)(Contrast(), pictures(12, 32), *arguments)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Careless(Descent):
    """A recipe that does what its `fault` says."""

    fault: str = ""

    def train(self, network, course):
        if self.fault == "idle":
            return network
        if self.fault == "stream":
            torch.rand(1)
        trained = super().train(network, course)
        if self.fault == "mode":
            trained.module.train()
        if self.fault == "gradient":
            trained.module(torch.full((2, 3, 16, 16), 0.5)).sum().backward()
        return trained

    def begin(self, network, course):
        run = Forgetful(self, network, course, course.samples("train")) if self.fault == "momentum" else None
        return run or super().begin(network, course)

    def gradients(self, run, images, labels):
        if self.fault == "seedless":
            images = images + torch.rand(1, generator=torch.Generator().manual_seed(id(object()) % 2**31))
        return super().gradients(run, images, labels)


class Forgetful(Run):
    """Its momenta are lost when the process is killed."""

    def load_state_dict(self, state):
        super().load_state_dict({**state, "optimizer": self.optimizer.state_dict()})


@pytest.mark.parametrize(
    ("fault", "test", "complaint"),
    [
        ("idle", "test_trains", "no epoch was told"),
        ("mode", "test_trains", "left in train mode"),
        ("gradient", "test_trains", "left with gradients"),
        ("stream", "test_seed", "random stream moved"),
        ("seedless", "test_seed", "the same seed gave other weights"),
        ("momentum", "test_killed", "other weights than one that was left alone"),
    ],
)
def test_a_careless_recipe_breaks_the_contract(fault: str, test: str, complaint: str, tmp_path) -> None:
    folder = {"tmp_path": tmp_path} if test == "test_killed" else {}
    with pytest.raises(FAILED, match=complaint):
        getattr(RecipeContract(), test)(Careless(epochs=2, batch_size=8, fault=fault), None, **folder)
    sound = {"tmp_path": tmp_path / "sound"} if folder else {}
    getattr(RecipeContract(), test)(Supervised(epochs=2, batch_size=8), None, **sound)
