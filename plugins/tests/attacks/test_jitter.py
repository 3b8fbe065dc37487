"""Jitter: its loss against the paper's, exact falls on linear networks, and torchattacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import Ground, ground
from published import published
from settled import check_settled_are_dropped
from torch import Tensor

from robustgate.attacks.jitter import Jitter, jitter


def slope(loss: Any, logits: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf).sum(), leaf)[0]


class TestLoss:
    LOGITS = torch.tensor([[3.0, -1.0, 2.5, 0.1], [-4.0, -6.0, -5.0, -9.0], [0.2, 0.1, 0.3, -0.2]])
    LABELS = torch.tensor([0, 0, 2])
    NOISE = 0.1 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

    def test_it_climbs_as_the_papers_loss_does(self) -> None:
        def published(logits: Tensor) -> Tensor:
            scaled = torch.softmax(10 * logits / logits.norm(p=float("inf"), dim=1, keepdim=True), dim=1)
            return (scaled + self.NOISE - torch.eye(4)[self.LABELS]).norm(dim=1)

        theirs, ours = slope(published, self.LOGITS), slope(jitter(self.LABELS, self.NOISE, 10.0), self.LOGITS)
        torch.testing.assert_close(torch.cosine_similarity(theirs, ours), torch.ones(3))
        torch.testing.assert_close(jitter(self.LABELS, self.NOISE, 10.0)(self.LOGITS), published(self.LOGITS).square())

    @pytest.mark.parametrize("factor", [1e-6, 1e3, 1e8])
    def test_the_scale_of_the_logits_changes_nothing(self, factor: float) -> None:
        loss = jitter(self.LABELS, self.NOISE, 10.0)
        torch.testing.assert_close(loss(factor * self.LOGITS), loss(self.LOGITS))

    @pytest.mark.parametrize("logits", [[0.0, -2.0], [3.0, -3.0], [0.0, 0.0], [1.0, 0.999]])
    def test_two_classes_have_a_gradient(self, logits: list[float]) -> None:
        gradient = slope(jitter(torch.tensor([0]), torch.zeros(1, 2), 10.0), torch.tensor([logits]))
        assert gradient[0, 0] < 0 < gradient[0, 1]

    def test_logits_that_are_all_zero_give_no_nan(self) -> None:
        gradient = slope(jitter(torch.tensor([1]), torch.zeros(1, 5), 10.0), torch.zeros(1, 5))
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("relative_step", [None, 0.25])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_fells_exactly_those_within_reach(norm: str, relative_step: float | None, random_start: bool) -> None:
    where = ground("linear", 4, count=64)
    nearest = where.nearest(norm).numpy()
    eps = float(np.median(nearest))
    attack = Jitter(eps=eps, norm=norm, steps=40, relative_step=relative_step, random_start=random_start, std=0)
    outcome = where.outcome(attack)
    # From a start at random an l2 walk ends within 2 % of the steepest direction: see pgd.
    slack = 0.98 if norm == "l2" and random_start else 1 - 1e-5
    assert outcome.correct[nearest > eps * (1 + 1e-5)].all()
    assert not outcome.correct[nearest < eps * slack].any()
    assert 20 < outcome.correct.sum() < 44


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_its_noise_fells_nothing_out_of_reach(norm: str) -> None:
    where = ground("linear", 4, count=64)
    nearest = where.nearest(norm).numpy()
    eps = float(np.median(nearest))
    plain = where.outcome(Jitter(eps=eps, norm=norm, std=0))
    noisy = where.outcome(Jitter(eps=eps, norm=norm))
    assert noisy.correct[nearest > eps * (1 + 1e-5)].all()
    assert not noisy.correct[nearest < 0.5 * eps].any()
    # It is drawn, by sample and anew at each step: other walks than without it, the same ones again.
    assert (noisy.gradients != plain.gradients).any()
    np.testing.assert_array_equal(where.outcome(Jitter(eps=eps, norm=norm), size=8).gradients, noisy.gradients)
    assert (where.outcome(Jitter(eps=eps, norm=norm), seed=8).gradients != noisy.gradients).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_settled_samples_are_asked_about_no_more(norm: str) -> None:
    where = ground("linear", 4)
    check_settled_are_dropped(Jitter(eps=float(where.nearest(norm).median()), norm=norm, steps=6), where)


class TestAgainstTorchattacks:
    EPS, STEPS = 1 / 255, 10

    @pytest.fixture
    def resnet(self, real_data: Path) -> Ground:
        return published(real_data, 3)

    def theirs(self, where: Ground, **parameters: Any) -> np.ndarray:
        """Return which samples stand: theirs is the last point, and nothing within the budget is done with."""
        torchattacks = pytest.importorskip("torchattacks")
        labels = torch.tensor(where.samples.labels)
        attack = torchattacks.Jitter(
            where.subject.module, eps=self.EPS, alpha=self.EPS / 4, steps=self.STEPS, **parameters
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found = attack(where.images, labels)
        right = where.subject.logits(where.images).argmax(dim=1) == labels
        return ((where.subject.logits(found).argmax(dim=1) == labels) & right).numpy()

    def test_without_chance_none_stands_that_theirs_fells(self, resnet: Ground) -> None:
        theirs = self.theirs(resnet, std=0, random_start=False)
        attack = Jitter(eps=self.EPS, steps=self.STEPS, relative_step=0.25, std=0, random_start=False)
        ours = resnet.outcome(attack).correct
        assert 2 <= theirs.sum() <= 20
        assert (ours & ~theirs).sum() <= 1
        assert ours.sum() <= theirs.sum() + 1

    def test_as_it_is_by_default(self, resnet: Ground) -> None:
        theirs = self.theirs(resnet)
        ours = resnet.outcome(Jitter(eps=self.EPS, steps=self.STEPS)).correct
        assert 2 <= theirs.sum() <= 28
        assert ours.sum() <= theirs.sum() + 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 0.0}, "eps must be above 0"),
        ({"eps": float("nan")}, "eps must be above 0"),
        ({"eps": 8}, "eps is in .* got 8: divide by 255"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"relative_step": 0.01}, "relative_step 0.01 x 20 steps cannot reach eps"),
        ({"scale": 0.0}, "scale must be above 0 and finite, got 0"),
        ({"std": -0.1}, "std must be at least 0 and finite, got -0.1"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Jitter(**{"eps": 0.1} | parameters)
