"""Distillation: Hinton's loss to the last digit, a teacher that is left alone, a student that comes back."""

from __future__ import annotations

import copy
from datetime import date
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustgate.compression.distillation import Distillation
from robustgate.config import load
from robustgate.core.components import Architecture, Network, Objective
from robustgate.core.records import Variant
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.training.supervised import Supervised

ARCHITECTURE = Architecture(build="x:y", args={}, mean=(0.0,) * 3, std=(1.0,) * 3)
RECIPE = Supervised(epochs=1)
IMAGES = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
LOGITS = 3 * torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 3, 1, 1, 2])


def teacher() -> Network:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 4, dtype=torch.float32))
    return Network(module=module.eval(), architecture=ARCHITECTURE)


class Workshop:
    """As much of a workshop as a distillation needs; keeps what it is asked for."""

    def __init__(self) -> None:
        self.student = Network(module=nn.Flatten(), architecture=ARCHITECTURE)
        self.built: list[Any] = []
        self.trained: list[Any] = []

    def build(self, build: str, args: dict[str, Any]) -> Network:
        self.built.append((build, args))
        return self.student

    def train(self, network: Network, recipe: Supervised, objective: Objective) -> None:
        self.trained.append((network, recipe))
        self.objective = objective


def objective_of(network: Network, **parameters: float) -> Objective:
    workshop = Workshop()
    Distillation(build="a:b", args={}, training=RECIPE, **parameters).apply(network, workshop)
    return workshop.objective


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("temperature", "alpha"), [(4.0, 0.9), (1.0, 0.5), (20.0, 1.0), (0.5, 0.25)])
def test_the_loss_is_hintons(temperature: float, alpha: float) -> None:
    network = teacher()
    found = objective_of(network, temperature=temperature, alpha=alpha)(IMAGES, LOGITS, LABELS).item()
    with torch.no_grad():
        taught = network.module(IMAGES).double().numpy()
    student = LOGITS.double().numpy()
    cross_entropy = -np.log(softmax(student)[np.arange(5), LABELS]).mean()
    p, q = softmax(taught / temperature), softmax(student / temperature)
    divergence = (p * np.log(p / q)).sum(axis=1).mean()
    assert found == pytest.approx((1 - alpha) * cross_entropy + alpha * temperature**2 * divergence, rel=1e-4)


def test_without_alpha_it_is_cross_entropy_and_with_a_student_that_agrees_nothing_is_lost() -> None:
    network = teacher()
    plain = objective_of(network, alpha=0.0)(IMAGES, LOGITS, LABELS)
    torch.testing.assert_close(plain, functional.cross_entropy(LOGITS, LABELS))
    agreed = objective_of(network, alpha=1.0)(IMAGES, network.module(IMAGES), LABELS)
    assert agreed.item() == pytest.approx(0.0, abs=1e-5)


def test_the_teacher_gets_no_gradient_and_does_not_change() -> None:
    network = teacher()
    before = copy.deepcopy(network.module.state_dict())
    logits = LOGITS.clone().requires_grad_()
    objective = objective_of(network)
    objective(IMAGES, logits, LABELS).backward()
    assert logits.grad is not None
    assert all(parameter.grad is None for parameter in network.module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.module.state_dict().items())


def test_a_teacher_in_train_mode_teaches_as_it_answers() -> None:
    # Dropout and batch statistics would make the lesson another one each time.
    network = teacher()
    expected = objective_of(network)(IMAGES, LOGITS, LABELS)
    network.module.train()
    torch.testing.assert_close(objective_of(network)(IMAGES, LOGITS, LABELS), expected)


def test_the_student_is_built_and_trained_as_asked() -> None:
    workshop = Workshop()
    product = Distillation(build="a:b", args={"depth": 8}, training=RECIPE).apply(teacher(), workshop)
    assert product is workshop.student
    assert workshop.built == [("a:b", {"depth": 8})]
    assert workshop.trained == [(workshop.student, RECIPE)]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0"),
        ({"alpha": -0.1}, r"alpha must be in \[0, 1\], got -0.1"),
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distillation(build="a:b", args={}, training=RECIPE, **parameters)


STUDENT = """
from torch import nn

def student(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))
"""
CHAINS = """
[compressions.kd]
steps = [{ method = "distillation", build = "tiny_student:student", args = { width = 5 }, training = { epochs = 12, batch_size = 16 } }]
[compressions.kd_int8]
steps = [{ use = "kd" }, { method = "static_quantization", calibration_images = 144 }]
"""


def gate_of(tiny: Any) -> Gate:
    (tiny.folder / "tiny_student.py").write_text(STUDENT)
    path = tiny.configure(
        ('normalize = "inside"', "normalize = { mean = [0.4, 0.5, 0.6], std = [0.2, 0.3, 0.4] }"), extra=CHAINS
    )
    return Gate(make_plan(load(path)), today=date(2026, 1, 1))


def logits_of(gate: Gate, compression: str) -> Tensor:
    variant = Variant(model="tiny", source="day", compression=compression)
    images = gate.library.samples("day", "test").images
    return gate.subject(variant).logits(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)


def test_a_student_of_another_architecture_comes_back_from_its_description(tiny) -> None:
    gate = gate_of(tiny)
    record = gate.record(Variant(model="tiny", source="day", compression="kd"))
    assert record.parameters == 3 * 8 * 8 * 5 + 5 + 2 * 5 + 5 * 2 + 2
    logits = logits_of(gate, "kd")
    # It answers as its teacher does (not as the labels say), and the kept artifact is the very same network.
    taught, labels = logits_of(gate, "none").argmax(1), torch.from_numpy(gate.library.samples("day", "test").labels)
    assert (taught == labels).double().mean() < 0.9
    assert (logits.argmax(1) == taught).double().mean() > 0.9
    again = gate_of(tiny)
    assert torch.equal(logits_of(again, "kd"), logits)
    # A step that builds on it gets it with its normalisation.
    assert (logits_of(again, "kd_int8").argmax(1) == logits.argmax(1)).double().mean() > 0.95
