"""Noise: how many samples it fells, against the exact probability on linear networks; what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import CPU, Ground, ground
from scipy import stats
from test_fab import check_settled_are_dropped
from torch import Tensor, nn

from robustgate.attacks.noise import Noise
from robustgate.core.components import Samples
from robustgate.engine.subjects import TorchSubject

SIDE, COUNT = 3, 600
VALUES = 3 * SIDE**2


class Sum(nn.Module):
    """Class 1 where the first `terms` values add up to more than half of them, and `margin`."""

    def __init__(self, terms: int, margin: float) -> None:
        super().__init__()
        self.weight = nn.Parameter((torch.arange(VALUES) < terms).double())
        self.bias = -0.5 * terms - margin

    def forward(self, x: Tensor) -> Tensor:
        score = (x.flatten(1).double() @ self.weight + self.bias).float()
        return torch.stack([torch.zeros_like(score), score], dim=1)


def grey(terms: int, margin: float) -> Ground:
    """Return the same grey image many times: the draws of each are its own."""
    pixels = np.full((COUNT, SIDE, SIDE, 3), 127, np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
    module = Sum(terms, margin - terms * (0.5 - 127 / 255))  # seen from the image that 8 bits allow
    samples = Samples(images=pixels, labels=np.zeros(COUNT, np.int64), classes=("no", "yes"), names=("",) * COUNT)
    return Ground(TorchSubject(module, CPU), samples, images)


def chance(norm: str, terms: int, share: float) -> float:
    """Return with what probability noise of size 1 moves the sum of `terms` values by `share` of the most it can."""
    if norm == "linf":  # a sum of uniform numbers
        return float(stats.irwinhall(terms).sf(terms * (1 + share) / 2))
    # The first coordinate c of a random direction: c² is beta distributed, and its sign a coin's.
    return float(stats.beta(0.5, (VALUES - 1) / 2).sf(share**2) / 2)


def falls(norm: str, terms: int, share: float, repeats: int) -> tuple[int, float]:
    """Return how many samples fell, and the probability that one does."""
    eps = 0.1
    reach = eps * (terms if norm == "linf" else terms**0.5)
    fallen = int((~grey(terms, share * reach).outcome(Noise(eps=eps, norm=norm, repeats=repeats)).correct).sum())
    return fallen, 1 - (1 - chance(norm, terms, share)) ** repeats


@pytest.mark.parametrize(
    ("norm", "terms", "share", "repeats"),
    [
        ("linf", 1, 0.3, 1),
        ("linf", 3, 0.4, 1),
        ("linf", 3, 0.7, 20),
        ("linf", 27, 0.1, 1),
        ("linf", 27, 0.3, 40),
        ("l2", 1, 0.1, 1),
        ("l2", 27, 0.2, 1),
        ("l2", 27, 0.4, 20),
    ],
)
def test_as_many_fall_as_the_probability_says(norm: str, terms: int, share: float, repeats: int) -> None:
    fallen, probability = falls(norm, terms, share, repeats)
    assert 0.05 < probability < 0.95
    low, high = stats.binom(COUNT, probability).interval(0.999)
    assert low <= fallen <= high


def test_noise_of_a_wrong_size_is_caught() -> None:
    # A tenth too large, as if eps were 0.11: the bounds above must see that.
    for norm, terms, share, repeats in (("linf", 27, 0.3, 40), ("l2", 27, 0.4, 20)):
        _, probability = falls(norm, terms, share, repeats)
        larger, _ = falls(norm, terms, share / 1.1, repeats)
        assert larger > stats.binom(COUNT, probability).interval(0.999)[1]


def test_noise_beyond_reach_fells_nothing() -> None:
    assert falls("linf", 3, 1.01, 30)[0] == 0
    assert falls("l2", 27, 1.01, 30)[0] == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_draw_is_one_query_and_what_fell_asks_no_more(norm: str) -> None:
    where = ground("linear", SIDE)
    eps = 6 * float(where.nearest(norm).median())
    result = where.outcome(Noise(eps=eps, norm=norm, repeats=15))
    assert (result.queries[result.correct] == 15).all()
    assert (result.queries[~result.correct] <= 15 + 1).all()  # what fell was confirmed
    assert result.queries[~result.correct].mean() < 10
    assert not result.gradients.any()
    check_settled_are_dropped(Noise(eps=eps, norm=norm, repeats=15), where)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 0.0}, "eps must be above 0"),
        ({"eps": float("nan")}, "eps must be above 0"),
        ({"eps": 8}, "eps is in .* got 8: divide by 255"),
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Noise(**{"eps": 0.1} | parameters)
