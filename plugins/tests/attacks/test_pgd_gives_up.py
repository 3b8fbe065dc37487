"""PGD spends its steps where they can matter: on straight networks it is known which samples that are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgate.attacks.pgd import Pgd
from robustgate.core.components import Samples
from robustgate.engine.adversarial import measure_adversarial
from robustgate.engine.measure import Outcome
from robustgate.engine.subjects import TorchSubject

GREY, SIDE, STEPS = 128, 4, 10
VALUES = 3 * SIDE * SIDE
# How far, in grey levels, each image is below the brightness where the decision changes.
LEVELS = np.array([1, 3, 5, 11, 13, 40, 100])


class Bend(nn.Module):
    """Class 1 where the mean is above the middle; `curve` bends the distance to it into the difference of logits."""

    def __init__(self, curve: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.curve = curve

    def forward(self, images: Tensor) -> Tensor:
        score = self.curve(images.double().mean((1, 2, 3)) - GREY / 255 - 1e-4).float()
        return torch.stack([-score, score], dim=1)


def straight(distance: Tensor) -> Tensor:
    return 50 * distance


def attack(curve: Callable[[Tensor], Tensor], norm: str, give_up: float, *, random_start: bool = False) -> Outcome:
    """Attack with a budget of four grey levels, which fells the first two images."""
    images = np.repeat(GREY - LEVELS, VALUES).reshape(-1, SIDE, SIDE, 3).astype(np.uint8)
    labels = np.zeros(len(LEVELS), np.int64)
    samples = Samples(images=images, labels=labels, classes=("dark", "light"), names=("",) * len(LEVELS))
    eps = 4.5 / 255 * (1 if norm == "linf" else np.sqrt(VALUES))
    pgd = Pgd(eps=float(eps), norm=norm, steps=STEPS, random_start=random_start, give_up=give_up)  # type: ignore[arg-type]
    return measure_adversarial(TorchSubject(Bend(curve), torch.device("cpu")), samples, "case", lambda *_: None, pgd, 7)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("give_up", "spared"), [(2.0, 4), (2.8, 3), (10.0, 1)])
def test_what_is_farther_than_so_many_budgets_costs_one_gradient(norm: str, give_up: float, spared: int) -> None:
    outcome = attack(straight, norm, give_up)
    assert outcome.gradients is not None
    assert outcome.correct.tolist() == [False, False, *[True] * 5]
    # The first step goes to the edge of the ball, where nothing more is to be gained: no later step would move.
    assert outcome.gradients.tolist()[2:] == [2] * (5 - spared) + [1] * spared


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_infinity_takes_every_step(norm: str) -> None:
    outcome = attack(straight, norm, float("inf"))
    assert outcome.gradients is not None
    assert outcome.correct.tolist() == [False, False, *[True] * 5]
    assert outcome.gradients.tolist()[2:] == [STEPS] * 5


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("random_start", [False, True])
def test_a_convex_loss_needs_the_factor(norm: str, *, random_start: bool) -> None:
    # Two levels around the boundary the difference of logits is five times as steep as farther out: what is three levels
    # away falls, though at its slope out there 2 * 5 + 1 = 11 levels are missing, of a budget of 4.5.
    def bent(distance: Tensor) -> Tensor:
        near = distance.clamp_min(-2 / 255)
        return 50 * near + 10 * (distance - near)

    assert not attack(bent, norm, float("inf"), random_start=random_start).correct[:2].any()
    assert not attack(bent, norm, 3.0, random_start=random_start).correct[:2].any()
    assert attack(bent, norm, 1.0).correct[1]


def test_a_factor_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"give_up must be at least 1, got 0\.5; inf takes every step"):
        Pgd(eps=0.1, give_up=0.5)
