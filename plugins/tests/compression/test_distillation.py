"""Distillation: Hinton's loss to the last digit, a teacher that is left alone, a student that comes back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from robustgate.compression.distillation import Distillation
from robustgate.config import load
from robustgate.core.components import Architecture, Constraint, Network, Objective
from robustgate.core.errors import CompressionError
from robustgate.core.losses import softened
from robustgate.core.records import Variant
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.training.supervised import Supervised

KINDS = frozenset({"zeros", "clusters", "quantizers"})
ARCHITECTURE = Architecture(build="x:y", args={}, mean=(0.0,) * 3, std=(1.0,) * 3)
RECIPE = Supervised(epochs=1)
IMAGES = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
LOGITS = 3 * torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 3, 1, 1, 2])


def teacher() -> Network:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 4, dtype=torch.float32))
    return Network(module=module.eval(), architecture=ARCHITECTURE)


def linear(seed: int, classes: int = 4, constraints: tuple[Constraint, ...] = ()) -> Network:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
    return Network(module=module.eval(), architecture=ARCHITECTURE, constraints=constraints)


class Workshop:
    """As much of a workshop as a distillation needs; keeps what it is asked for."""

    example = IMAGES[:2]
    model = "resnet"

    def __init__(self, **configured: Network) -> None:
        self.networks = configured
        self.student = linear(5)
        self.built: list[Any] = []
        self.trained: list[Any] = []

    def build(self, build: str, args: Mapping[str, Any]) -> Network:
        self.built.append((build, args))
        return self.student

    def configured(self, model: str) -> Network:
        return self.networks[model]

    def train(self, network: Network, recipe: Supervised, objective: Objective) -> Network:
        self.trained.append((network, recipe))
        self.objective = objective
        with torch.no_grad():
            for parameter in network.module.parameters():
                parameter.add_(1.0)
        return network


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


def test_a_teacher_whose_word_does_not_count_is_not_asked() -> None:
    def refuse(_: Tensor) -> Tensor:
        raise AssertionError("the teacher was asked")

    found = softened(refuse, 4.0, 0.0)(IMAGES, LOGITS, LABELS)
    torch.testing.assert_close(found, functional.cross_entropy(LOGITS, LABELS))
    with pytest.raises(AssertionError, match="was asked"):
        softened(refuse, 4.0, 0.1)(IMAGES, LOGITS, LABELS)


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


def state_of(network: Network) -> dict[str, Tensor]:
    return copy.deepcopy(network.module.state_dict())


def is_as_before(network: Network, before: Mapping[str, Tensor]) -> bool:
    after = network.module.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(("temperature", "alpha"), [(4.0, 1.0), (1.0, 1.0), (4.0, 0.0), (3.0, 0.6)])
def test_the_gradient_is_the_softmaxes_difference(temperature: float, alpha: float) -> None:
    # d KL / d z_s = (q - p) / T, so T^2 KL pulls by T (q - p): the same strength whatever T, as Hinton et al. ask.
    network = teacher()
    logits = LOGITS.clone().requires_grad_()
    objective_of(network, temperature=temperature, alpha=alpha)(IMAGES, logits, LABELS).backward()
    with torch.no_grad():
        taught = network.module(IMAGES).double().numpy()
    student = LOGITS.double().numpy()
    soft = temperature * (softmax(student / temperature) - softmax(taught / temperature)) / 5
    hard = (softmax(student) - np.eye(4)[LABELS]) / 5
    np.testing.assert_allclose(logits.grad, alpha * soft + (1 - alpha) * hard, rtol=1e-4, atol=1e-6)


def test_the_strength_of_a_warm_lesson_is_the_logits_difference() -> None:
    # Hinton et al., section 2.1: at a high temperature the gradient is (z_s - z_t) / classes, of logits without mean.
    network = teacher()
    logits = LOGITS.clone().double().requires_grad_()
    objective_of(network, temperature=1e4, alpha=1.0)(IMAGES, logits, LABELS).backward()
    with torch.no_grad():
        taught = network.module(IMAGES).double()
    centred = [one - one.mean(dim=1, keepdim=True) for one in (LOGITS.double(), taught)]
    torch.testing.assert_close(logits.grad, (centred[0] - centred[1]) / 4 / 5, rtol=5e-3, atol=1e-4)


def test_a_configured_model_teaches_the_chains_network_which_keeps_what_it_is() -> None:
    constraint = Constraint(kind="zeros", parameters=("1.weight",))
    chain = linear(1, constraints=(constraint,))
    chain = replace(chain, architecture=replace(ARCHITECTURE, args={"pruned": 1}))
    workshop = Workshop(big=teacher())
    before, taught = state_of(chain), state_of(workshop.networks["big"])
    product = Distillation(teacher="big", training=RECIPE).apply(chain, workshop)
    assert product.constraints == (constraint,)
    assert product.architecture == chain.architecture
    assert workshop.trained == [(product, RECIPE)]
    assert workshop.built == []
    # It starts from the chain's weights; the chain's network itself and the teacher are left alone.
    assert is_as_before(product, {key: value + 1 for key, value in before.items()})
    assert is_as_before(chain, before)
    assert is_as_before(workshop.networks["big"], taught)


def test_the_configured_teacher_is_the_one_that_teaches() -> None:
    workshop = Workshop(big=linear(7))
    Distillation(teacher="big", training=RECIPE, alpha=1.0).apply(linear(1), workshop)
    agreed = workshop.objective(IMAGES, linear(7).module(IMAGES), LABELS)
    assert agreed.item() == pytest.approx(0.0, abs=1e-5)
    assert workshop.objective(IMAGES, linear(1).module(IMAGES), LABELS).item() > 0.01


@pytest.mark.parametrize("teacher_name", [None, "big"])
def test_a_configured_student_goes_on_from_its_own_weights(teacher_name: str | None) -> None:
    workshop = Workshop(big=linear(7), small=linear(8))
    before = state_of(workshop.networks["small"])
    product = Distillation(teacher=teacher_name, student="small", training=RECIPE).apply(linear(1), workshop)
    assert is_as_before(product, {key: value + 1 for key, value in before.items()})
    assert is_as_before(workshop.networks["small"], before), "the configured model itself was trained"
    teaching = linear(1 if teacher_name is None else 7)
    assert workshop.objective(IMAGES, teaching.module(IMAGES), LABELS).item() < 0.9 * workshop.objective(
        IMAGES, linear(8).module(IMAGES), LABELS
    )


def test_a_configured_teacher_teaches_a_fresh_student() -> None:
    workshop = Workshop(big=linear(7))
    product = Distillation(teacher="big", build="a:b", args={"depth": 8}, training=RECIPE).apply(linear(1), workshop)
    assert product is workshop.student
    assert workshop.built == [("a:b", {"depth": 8})]


@pytest.mark.parametrize(
    ("parameters", "models", "keeps"),
    [
        ({"build": "a:b"}, (), frozenset()),
        ({"build": "a:b", "teacher": "big"}, ("big",), frozenset()),
        ({"student": "small"}, ("small",), frozenset()),
        ({"student": "small", "teacher": "big"}, ("big", "small"), frozenset()),
        ({"teacher": "big"}, ("big",), KINDS),
    ],
)
def test_it_tells_what_it_borrows_and_what_it_keeps(parameters: dict, models: tuple, keeps: frozenset) -> None:
    step = Distillation(training=RECIPE, **parameters)
    assert step.models == models
    assert step.keeps == keeps
    assert step.makes == frozenset()


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (
            {"teacher": "big"},
            r"the teacher \(big\) has 6 classes, the student \(resnet as the chain has made it\) has 4",
        ),
        (
            {"student": "big"},
            r"the teacher \(resnet as the chain has made it\) has 4 classes, the student \(big\) has 6",
        ),
        ({"teacher": "big", "build": "a:b"}, r"the teacher \(big\) has 6 classes, the student \(a:b\) has 4"),
    ],
)
def test_other_classes_are_refused_before_anything_is_trained(parameters: dict[str, str], told: str) -> None:
    workshop = Workshop(big=linear(7, classes=6))
    with pytest.raises(CompressionError, match=told):
        Distillation(training=RECIPE, **parameters).apply(linear(1), workshop)
    assert workshop.trained == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "the chain's network cannot teach itself: give teacher, student or build"),
        ({"student": "small", "build": "a:b"}, "give either student or build, got student 'small' and build 'a:b'"),
        ({"student": "big", "teacher": "big"}, "teacher and student must be two models, got 'big' twice"),
        ({"student": "small", "args": {"depth": 8}}, "args are the arguments of build, which is not given"),
        ({"teacher": "big", "args": {"depth": 8}}, "args are the arguments of build, which is not given"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distillation(training=RECIPE, **parameters)


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


# Two models of the configuration: one with a threshold of its own, and the tiny one, which is pruned and learns it.
BORROWED = """
[models.other]
build = "tiny_student:student"
args = { width = 7 }
normalize = { mean = [0.4, 0.5, 0.6], std = [0.2, 0.3, 0.4] }
weights = { day = "other.safetensors" }
[compressions.taught]
steps = [
    { method = "filter_pruning", ratio = 0.25 },
    { method = "distillation", teacher = "other", alpha = 1.0, temperature = 1.0, training = { epochs = 80, batch_size = 16, lr = 0.01, weight_decay = 0 } },
]
[compressions.untaught]
steps = [{ method = "filter_pruning", ratio = 0.25 }]
"""


def logits_of(gate: Gate, compression: str) -> Tensor:
    variant = Variant(model="tiny", source="day", compression=compression)
    images = gate.library.samples("day", "test").images[:]
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
    # (0.13 deviations off for its 8 bits; without the normalisation it would be 0.58.)
    assert (logits_of(again, "kd_int8") - logits).abs().mean() < 0.3 * logits.std()


def test_a_pruned_network_learns_from_another_model_of_the_configuration(tiny) -> None:
    (tiny.folder / "tiny_student.py").write_text(STUDENT)
    # A teacher that calls everything brighter than another threshold bright: what is learned is its answers.
    width, threshold, steepness = 7, 0.6, 40.0
    state = {
        "1.weight": torch.zeros(width, 192),
        "1.bias": torch.zeros(width),
        "2.weight": torch.ones(width),
        "2.bias": torch.zeros(width),
        "2.running_mean": torch.zeros(width),
        "2.running_var": torch.ones(width),
        "2.num_batches_tracked": torch.tensor(0),
        "4.weight": torch.zeros(2, width),
        "4.bias": torch.tensor([0.0, -steepness * threshold]),
    }
    # Normalised pixels are (x - mean) / std: weight them by std, and add the means again.
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    state["1.weight"][0] = (std / 3 / 64)[:, None].expand(3, 64).flatten()
    state["1.bias"][0] = mean.mean()
    state["4.weight"][1, 0] = steepness
    save_file(state, tiny.folder / "other.safetensors")
    gate = Gate(make_plan(load(tiny.configure(extra=BORROWED))), today=date(2026, 1, 1))
    bright = torch.from_numpy(gate.library.samples("day", "test").images[:]).double().mean((1, 2, 3)) / 255 > threshold
    taught, untaught = (logits_of(gate, name).argmax(1).bool() for name in ("taught", "untaught"))
    assert (untaught == bright).double().mean() < 0.85
    assert (taught == bright).double().mean() > 0.95
    # Still the pruned network: three filters of four, and what reads them.
    record = gate.record(Variant(model="tiny", source="day", compression="taught"))
    assert record.parameters == 3 * 3 + 3 * 2 + 2
