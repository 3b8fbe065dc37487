"""The attack without gradients: its parts, their order and their queries; and the l0 search against a closed form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from closed_forms import ground
from torch import Tensor, nn

from robustgate.attacks.gradient_free import GradientFree, _moved
from robustgate.attacks.hop_skip_jump import HopSkipJump
from robustgate.attacks.square import Square
from robustgate.engine.adversarial import measure_adversarial
from robustgate.engine.draws import SampleDraws
from robustgate.engine.subjects import TorchSubject


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.01), ("l2", 0.05)])
def test_it_fells_nothing_out_of_reach_and_most_that_is_near(norm: str, eps: float) -> None:
    field = ground("linear", side=4, count=48)
    nearest = field.nearest(norm).numpy()
    outcome = field.outcome(GradientFree(eps=eps, norm=norm, queries=600))
    assert outcome.correct[nearest > eps].all()
    assert not outcome.correct[nearest < 0.4 * eps].any()
    assert (nearest < 0.4 * eps).sum() > 5
    assert (nearest > eps).sum() > 5


class Stubborn(nn.Module):
    """A network that always says the same."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None] * 1e-3 + torch.tensor([1.0, 0.0])


@pytest.mark.parametrize("norm", ["linf", "l2", "l0"])
@pytest.mark.parametrize("queries", [2, 3, 50])
def test_no_sample_is_asked_about_more_often_than_allowed(norm: str, queries: int) -> None:
    field = ground("linear", side=5)
    samples = dataclasses.replace(field.samples, labels=np.zeros(len(field.samples), np.int64))
    subject = TorchSubject(Stubborn(), torch.device("cpu"))
    attack = GradientFree(eps=0.1, norm=norm, queries=queries)
    outcome = measure_adversarial(subject, samples, "case", lambda *_: None, attack, 0)
    assert outcome.correct.all()
    # The engine asks once more about a point outside the budget, projected to it.
    assert outcome.queries.min() > queries // 2 - 1
    assert outcome.queries.max() <= queries + 1
    assert outcome.gradients.sum() == 0


# Who attacks what.


class HalfFlat(nn.Module):
    """Dark images have flat logits, bright ones a margin that moves; both have a boundary."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        decided = nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).float()
        return torch.where(images[:, :1, 0, 0] < 0.5, decided, logits)


def test_square_attacks_all_and_hop_skip_jump_what_is_flat_with_the_queries_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[tuple[HopSkipJump, Tensor]] = []
    run = HopSkipJump.run

    def recorded(self: HopSkipJump, images: Tensor, *others):
        given.append((self, images))
        return run(self, images, *others)

    monkeypatch.setattr(HopSkipJump, "run", recorded)
    field = ground("linear", side=4, count=48)
    subject = TorchSubject(HalfFlat(field.subject.module), torch.device("cpu"))
    # The pixel that decides whether logits are flat is too far from one half to cross it.
    flat = field.images[:, 0, 0, 0] < 0.5
    assert float((field.images[:, 0, 0, 0] - 0.5).abs().min()) > 0.001
    attack = GradientFree(eps=0.001, queries=41)
    outcome = measure_adversarial(subject, field.samples, "case", lambda *_: None, attack, 0)
    assert all(jump == HopSkipJump(eps=0.001, norm="linf", queries=31) for jump, _ in given)
    handed = torch.cat([images for _, images in given])
    # Every sample with flat logits, but for those that Square's first points felled.
    standing = {tuple(image.flatten().tolist()) for image in field.images[flat]}
    fell = {tuple(image.flatten().tolist()) for image in field.images[torch.from_numpy(~outcome.correct)]}
    found = {tuple(image.flatten().tolist()) for image in handed}
    assert found <= standing
    assert standing - found <= fell
    assert len(found) > 15


# The l0 search.


@pytest.mark.parametrize("allowed", [1, 4])
def test_the_l0_search_finds_what_the_closed_form_allows(allowed: int) -> None:
    field = ground("linear", side=4, count=48)
    weight = field.subject.module.weight.detach().double()
    score = field.subject.module.score(field.images).detach()
    # Each value can move to 0 or to 1; the best are those that bring the score nearest to the other side.
    flat = field.images.flatten(1).double()
    sign = -score.sign()[:, None]
    gains = torch.maximum(sign * weight * (1 - flat), sign * weight * (0 - flat))
    best = gains.topk(allowed, dim=1).values.sum(dim=1)
    within = (best > score.abs()).numpy()
    outcome = field.outcome(GradientFree(eps=allowed / 48, norm="l0", queries=1500))
    assert outcome.correct[~within].all()
    surely = (0.8 * best > score.abs()).numpy()
    assert not outcome.correct[surely].any()
    assert surely.sum() > 5
    assert (outcome.norms[~outcome.correct] <= allowed / 48 + 1e-6).all()


def test_an_l0_budget_below_one_value_allows_nothing() -> None:
    outcome = ground("linear", side=4).outcome(GradientFree(eps=0.02, norm="l0"))
    assert outcome.correct.all()
    assert outcome.queries.sum() == 0


@pytest.mark.parametrize(("values", "allowed", "count"), [(48, 10, 3), (48, 47, 14), (48, 48, 14), (5, 1, 1)])
def test_a_move_keeps_the_number_of_values_and_goes_to_others(values: int, allowed: int, count: int) -> None:
    draws = SampleDraws(range(20))
    places = draws.uniform(values).topk(allowed, dim=1).indices
    levels = draws.uniform(allowed).round()
    moved, changed = _moved(places, levels, count, values, draws)
    free = min(count, values - allowed)
    for before, after, new in zip(places, moved, changed, strict=True):
        assert len(set(after.tolist())) == allowed
        assert len(set(after.tolist()) - set(before.tolist())) == free
        assert set(new.tolist()) <= {0.0, 1.0}


# Decisions alone.


class Decided(nn.Module):
    """A network whose logits are its decision and nothing else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).float()


def test_flat_logits_stop_square_but_not_what_comes_after_it() -> None:
    field = ground("linear", side=4, count=48)
    subject = TorchSubject(Decided(field.subject.module), torch.device("cpu"))
    eps, queries = 0.1, 1000

    def fallen(attack) -> np.ndarray:
        return ~measure_adversarial(subject, field.samples, "case", lambda *_: None, attack, 7).correct

    reachable = field.nearest("l2").numpy() < 0.8 * eps
    alone = fallen(Square(eps=eps, norm="l2", queries=queries))
    both = fallen(GradientFree(eps=eps, norm="l2", queries=queries))
    assert alone[reachable].mean() < 0.5
    assert both[reachable].mean() > 0.9


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"eps": 0.0}, "eps must be above 0"),
        ({"eps": 8.0}, r"eps is in \[0, 1\] units, got 8: divide by 255"),
        ({"eps": 3.0, "norm": "l0"}, "got 3: divide by the number of values"),
        ({"eps": 0.1, "queries": 1}, "queries must be at least 2, got 1"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        GradientFree(**parameters)
