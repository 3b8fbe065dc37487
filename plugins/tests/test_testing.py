"""The contracts catch what they are for: each planted fault fails its test."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch

from robustgate.attacks.fgsm import Fgsm
from robustgate.corruptions.contrast import Contrast
from robustgate.testing import AttackContract, CorruptionContract, pictures

FAILED = pytest.fail.Exception


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faulty:
    """An attack that does what its `fault` says."""

    needs_gradient: ClassVar[bool] = False
    norm: str = "linf"
    eps: float = 0.01
    fault: str = ""

    def run(self, target, images, labels, draws):
        if self.fault == "budget":
            return (images + 2 * self.eps).clamp(0, 1)
        if self.fault == "batch":
            return images + self.eps * images.mean() / 2
        if self.fault == "stream":
            torch.rand(1)
        if self.fault == "mode":
            target.subject.module.train()
        return images.requires_grad_() if self.fault == "gradient" else images


@pytest.mark.parametrize(
    ("fault", "test", "complaint"),
    [
        ("budget", "test_budget_and_range", "exceeds eps"),
        ("batch", "test_batches", "batches of 7 and of 24 differ"),
        ("stream", "test_leaves_no_trace", "random stream moved"),
        ("mode", "test_leaves_no_trace", "left in train mode"),
        ("gradient", "test_leaves_no_trace", "requires a gradient"),
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
        ("severity", "test_severities", [], "distances by severity"),
        ("stream", "test_leaves_no_trace", [], "random stream moved"),
    ],
)
def test_a_faulty_corruption_breaks_the_contract(fault: str, test: str, arguments: list[int], complaint: str) -> None:
    with pytest.raises(FAILED, match=complaint):
        getattr(CorruptionContract(), test)(Spoiled(fault=fault), pictures(12, 32), *arguments)
    getattr(CorruptionContract(), test)(Contrast(), pictures(12, 32), *arguments)
