"""What an attack says that it asks is never less than what it does; where nothing can end early, it is that."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from shelf_attacks import ATTACKS
from torch import Tensor, nn

from robustgate.config import load
from robustgate.core.catalog import shelf
from robustgate.core.components import Extent, Passes, Samples
from robustgate.core.records import Case
from robustgate.engine.adversarial import measure_adversarial
from robustgate.engine.cost import case_passes, data_of
from robustgate.engine.measure import measure_natural
from robustgate.engine.plan import Plan, make_plan
from robustgate.engine.stock import extents
from robustgate.engine.subjects import TorchSubject

NAME = "under_test"
SIDE, COUNT = 8, 48
LIBRARIES = {"foolbox", "torchattacks"}  # they cannot say what they ask
UNIONS = {"worst_case"}
OWN = sorted(set(ATTACKS) - LIBRARIES)
# What leaves nothing of a walk out: no sample falls at so small a budget, and PGD gives none up.
SPENT = {"fgsm": {}, "pgd": {"steps": 5, "restarts": 1, "give_up": float("inf")}, "jitter": {"steps": 5}}
MINUSCULE = 1e-7


class Counting(nn.Module):
    """A network that counts the samples that pass through it, in both directions.

    Its branch on a value keeps torch.fx from making a copy of it, whose passes would not be counted.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.forwards, self.backwards = inner, 0, 0

    def forward(self, images: Tensor) -> Tensor:
        if bool(images.isnan().any()):
            raise ValueError("NaN")
        logits = self.inner(images)
        self.forwards += len(images)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self._back(len(gradient)))
        return logits

    def _back(self, count: int) -> None:
        self.backwards += count

    @property
    def passes(self) -> Passes:
        return Passes(forward=self.forwards, backward=self.backwards)


def network(classes: int, sharp: float = 1.0) -> nn.Module:
    """A small network with random weights; the larger `sharp`, the nearer its boundaries are."""
    torch.manual_seed(3)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * SIDE * SIDE, classes)
    with torch.no_grad():
        layers[3].weight *= sharp
    return nn.Sequential(*layers)


def right_samples(inner: nn.Module, classes: int) -> Samples:
    """Random images, labelled as the network classifies them."""
    images = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    with torch.no_grad():
        logits = inner.eval()(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    names = tuple(map(str, range(COUNT)))
    return Samples(
        images=images, labels=logits.argmax(dim=1).numpy(), classes=tuple(map(str, range(classes))), names=names
    )


def table(name: str, parameters: dict[str, Any]) -> str:
    lines = [f"[attacks.{NAME}]", f'method = "{name}"']
    for parameter, value in parameters.items():
        lines.append(f"{parameter} = {'inf' if value == float('inf') else json.dumps(value)}")
    return "\n".join(lines) + "\n"


def planned(tiny, name: str, parameters: dict[str, Any]) -> tuple[Plan, Case]:
    tiny.configure(extra=table(name, parameters))
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    return plan, next(one for one in plan.cases if one.shift.name == NAME)


def attacked(
    tiny, name: str, parameters: dict[str, Any], classes: int = 4, sharp: float = 1.0
) -> tuple[Passes, Passes]:
    """Return what an attack on a network took, and what the plan says that it does at most."""
    plan, case = planned(tiny, name, parameters)
    inner = network(classes, sharp)
    subject = TorchSubject(Counting(inner), torch.device("cpu"))
    samples = right_samples(inner, classes)
    attack = plan.configuration.attacks[case.shift.name]
    subject.module.forwards = subject.module.backwards = 0
    measure_adversarial(subject, samples, case.name, lambda *_: None, attack, 0)
    said = case_passes(plan, case, {data_of(plan, case): Extent(samples=COUNT, values=3 * SIDE * SIDE)})
    assert said is not None
    return subject.module.passes, said


# The bound, attack by attack.


def test_every_attack_of_the_shelf_says_what_it_asks_but_those_of_libraries() -> None:
    assert {*OWN} | LIBRARIES | UNIONS == set(shelf("attacks").names)
    for name in shelf("attacks").names:
        assert hasattr(shelf("attacks").component(name), "passes") == (name not in LIBRARIES | UNIONS)


@pytest.mark.parametrize("sharp", [0.2, 1.0, 10.0])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", OWN)
def test_no_attack_takes_more_passes_than_the_plan_says(tiny, name: str, classes: int, sharp: float) -> None:
    took, said = attacked(tiny, name, ATTACKS[name], classes, sharp)
    assert took.forward <= said.forward
    assert took.backward <= said.backward
    assert took.forward > COUNT


@pytest.mark.parametrize("eps", [MINUSCULE, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("parameters", [{"steps": 1}, {"steps": 2, "restarts": 3}, {"steps": 8, "loss": "dlr"}])
def test_pgd_takes_no_more_whatever_share_falls(tiny, eps: float, parameters: dict[str, Any]) -> None:
    took, said = attacked(tiny, "pgd", {"eps": eps, **parameters})
    assert took.forward <= said.forward
    assert took.backward <= said.backward


@pytest.mark.parametrize("changes", [{"targeted": False}, {"restarts": 2}, {"refinements": 0, "rivals": 1}])
def test_a_variant_of_fab_takes_no_more(tiny, changes: dict[str, Any]) -> None:
    took, said = attacked(tiny, "fab", {**ATTACKS["fab"], **changes})
    assert took.forward <= said.forward
    assert took.backward <= said.backward


def test_jsma_takes_no_more_with_small_moves(tiny) -> None:
    took, said = attacked(tiny, "jsma", {"eps": 0.02, "theta": 0.3}, sharp=0.2)
    assert took.forward <= said.forward
    assert took.backward <= said.backward


@pytest.mark.parametrize("name", SPENT)
def test_where_nothing_ends_early_it_is_what_the_plan_says(tiny, name: str) -> None:
    took, said = attacked(tiny, name, {"eps": MINUSCULE, **SPENT[name]}, sharp=0.2)
    # The artifact would confirm what falls, once for each sample.
    assert took == said + Passes(forward=-COUNT)


def test_natural_cases_are_one_pass_forward_each(tiny) -> None:
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    known = extents(plan)
    inner = network(2)
    for case in plan.cases:
        if case.shift.kind == "adversarial":
            continue
        extent = known[data_of(plan, case)]
        assert extent.samples == (len(tiny.night) if case.shift.kind == "domain_shift" else len(tiny.day))
        subject = TorchSubject(Counting(inner), torch.device("cpu"))
        samples = right_samples(inner, 2)
        measure_natural(subject, samples, case.name, lambda *_: None)
        assert subject.module.passes == case_passes(plan, case, {data_of(plan, case): Extent(samples=COUNT)})
        assert case_passes(plan, case, known) == Passes(forward=extent.samples)
