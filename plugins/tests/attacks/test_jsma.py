"""JSMA against brute force, against linear networks whose order of values is known, and against its peer's faults."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from closed_forms import CPU, Ground, Linear, ground
from published import published
from torch import Tensor, nn

from robustgate.attacks.jsma import Jsma, most_salient
from robustgate.core.budget import Budget
from robustgate.engine.arena import Arena, Batch
from robustgate.engine.ledger import Ledger
from robustgate.engine.subjects import CountedTarget, TorchSubject

LOW = float("-inf")


class Mirrored(Linear):
    """The decision of a linear network by two logits, of which one rises as the other falls."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - super().forward(x).mean(dim=1, keepdim=True)


def attacked(network: nn.Module, images: Tensor, attack: Jsma, *, classes: int = 2) -> Ledger:
    """Attack images as they lie in memory, with the labels that the network gives them."""
    subject = TorchSubject(network, CPU)
    rows = torch.arange(len(images))
    batch = Batch(numbers=rows, images=images, labels=subject.logits(images).argmax(dim=1), seeds=rows.tolist())
    ledgers: list[Ledger] = []
    arena = Arena(CountedTarget(subject, classes, "case"), attack, size=len(images))
    arena.fight(iter([batch]), lambda _, ledger: ledgers.append(ledger))
    return ledgers[0]


def noise(count: int = 24) -> Tensor:
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def needed(network: Linear, images: Tensor, theta: float) -> np.ndarray:
    """Return how many values must go to their limit to change the decision, in order of their weight, or infinity."""
    weight, score = network.weight.detach().double(), network.score(images).detach()
    pull = -score.sign()[:, None] * weight * math.copysign(1, theta)
    flat = images.flatten(1).double()
    room = 1 - flat if theta > 0 else flat
    order = pull.where(room > 0, LOW).argsort(dim=1, descending=True)
    gains = (pull * room).gather(1, order).cumsum(dim=1)
    over = gains > score.abs()[:, None]
    return np.where(over.any(dim=1), over.int().argmax(dim=1) + 1, np.inf)


@pytest.mark.parametrize("kind", [Linear, Mirrored])
@pytest.mark.parametrize("theta", [1.0, -1.0])
def test_linear_networks_fall_after_as_many_values_as_they_must(kind: type[Linear], theta: float) -> None:
    # Of Linear's logits one is constant: no pair raises one and lowers the other, and the steepest are taken.
    images, network = noise(), kind(108)
    count = needed(network, images, theta)
    assert set(range(1, 5)) <= set(count.tolist())
    for allowed in range(1, 6):
        found = attacked(network, images, Jsma(eps=allowed / 108, theta=theta))
        # Two at a time, the last of an odd number alone.
        changed = np.minimum(2 * np.ceil(count / 2), allowed)
        np.testing.assert_array_equal(found.fallen.numpy(), count <= allowed)
        expected = np.where(count <= allowed, changed / 108, np.inf)
        np.testing.assert_allclose(found.norms.numpy(), expected, rtol=1e-6)


def every_pair(p: Tensor, q: Tensor, searched: Tensor, single: Tensor) -> Tensor:
    """Return the largest (p_i + p_j)(q_i + q_j) of each row by brute force; -inf where no pair has both signs."""
    rise, fall = p[:, :, None] + p[:, None], q[:, :, None] + q[:, None]
    same = torch.eye(p.shape[1], dtype=torch.bool)
    pairs = searched[:, :, None] & searched[:, None] & (same == single[:, None, None]) & (rise > 0) & (fall > 0)
    return (rise * fall).where(pairs, LOW).flatten(1).amax(dim=1)


def saliencies(p: Tensor, q: Tensor, pairs: Tensor) -> Tensor:
    at = pairs.clamp_min(0)
    return (p.gather(1, at).sum(dim=1) * q.gather(1, at).sum(dim=1)).where(pairs[:, 0] >= 0, LOW)


def drawn(correlation: float, *, values: int = 200, count: int = 64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    p, other = torch.randn(2, count, values, generator=generator)
    q = 3 * (correlation * p + (1 - correlation**2) ** 0.5 * other)
    searched = torch.rand(count, values, generator=generator) < 0.7
    searched[0], searched[-1, 2:] = False, False
    return p, q, searched, torch.rand(count, generator=generator) < 0.3


@pytest.mark.parametrize("correlation", [1.0, 0.9, 0.0, -0.9, -0.99, -1.0])
def test_the_pair_found_is_the_best_of_all(correlation: float) -> None:
    p, q, searched, single = drawn(correlation)
    pairs = most_salient(p, q, searched, single, 400)
    torch.testing.assert_close(saliencies(p, q, pairs), every_pair(p, q, searched, single))
    found = pairs[:, 0] >= 0
    assert searched.gather(1, pairs.clamp_min(0))[found].all()
    assert torch.equal((pairs[:, 0] == pairs[:, 1])[found], single[found])


def test_many_equal_values_are_no_trouble() -> None:
    # As in a network with dead channels: whole planes of the gradient are alike.
    p, q, searched, single = drawn(0.0)
    p, q = p.round(), q.round()
    pairs = most_salient(p, q, searched, single, 400)
    torch.testing.assert_close(saliencies(p, q, pairs), every_pair(p, q, searched, single))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20])
def test_tiny_and_huge_gradients_have_the_same_best_pair(scale: float) -> None:
    p, q, searched, single = drawn(0.5)
    pairs = most_salient(p, q, searched, single, 256)
    assert torch.equal(most_salient(scale * p, scale * q, searched, single, 256).sort().values, pairs.sort().values)


def test_few_candidates_give_nearly_the_best_pair_of_most() -> None:
    # What is left open: at a correlation of -0.9 a row has about 25 values that could be in the best pair.
    p, q, searched, single = drawn(-0.9)
    best = every_pair(p, q, searched, single)
    shares = saliencies(p, q, most_salient(p, q, searched, single, 24)) / best
    assert float((shares[best.isfinite()] > 0.9).float().mean()) > 0.95
    everything = most_salient(p, q, searched, single, 2 * p.shape[1])
    assert (saliencies(p, q, everything)[best.isfinite()] > 0.999 * best[best.isfinite()]).all()


def test_a_large_image_needs_no_matrix_of_all_pairs() -> None:
    # 150,528 values: all pairs would be 90 GB.
    p, q, _, _ = drawn(-0.5, values=3 * 224 * 224, count=2)
    searched, single = torch.ones_like(p, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    pairs = most_salient(p, q, searched, single, 256)
    # The largest thousand of p, of q, and of their sum, as shares: the best pair of these is known by brute force.
    keys = [p, q, p + q, p / p.std() + q / q.std(), p + 2 * q, 2 * p + q]
    some = torch.cat([key.topk(250, dim=1).indices for key in keys], dim=1)
    for row in range(2):
        at = some[row].unique()[None]
        best = every_pair(p[row].gather(0, at[0])[None], q[row].gather(0, at[0])[None], at >= 0, single[:1])
        assert float(saliencies(p, q, pairs)[row]) >= float(best) * (1 - 1e-6)


def small_network(classes: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = (nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 16, classes))
        return nn.Sequential(*layers).double()


class Wide(nn.Module):
    """A small network in double precision, so that no pair is nearly the best."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = small_network()

    def forward(self, images: Tensor) -> Tensor:
        return (10 * self.layers(images.double())).float()


def by_brute_force(network: nn.Module, image: Tensor, theta: float, allowed: int) -> tuple[Tensor, bool]:
    """The paper's algorithms 2 and 3 with its matrix of all pairs, towards the best other class, in plain steps."""
    label = int(network(image[None]).argmax())
    point = image.clone()
    while True:
        logits = network(point[None])[0]
        if int(logits.argmax()) != label:
            return point, True
        others = logits.clone()
        others[label] = LOW
        target = int(others.argmax())
        jacobian = torch.autograd.functional.jacobian(lambda x: network(x[None])[0], point).flatten(1)
        a, b = jacobian[target], jacobian.sum(dim=0) - jacobian[target]
        flat, before = point.flatten(), image.flatten()
        left = allowed - int((flat != before).sum())
        can = (flat < 1) if theta > 0 else (flat > 0)
        can &= (flat != before) | (left > 0)
        best, chosen = 0.0, None
        for i in range(len(flat)):
            for j in [i] if left == 1 else range(i + 1, len(flat)):
                rise, fall = float(a[i] + a[j]), float(b[i] + b[j])
                signs = rise > 0 > fall if theta > 0 else rise < 0 < fall
                if can[i] and can[j] and signs and abs(rise * fall) > best:
                    best, chosen = abs(rise * fall), (i, j)
        if chosen is None:
            return point, False
        for place in set(chosen):
            point.view(-1)[place] = float((flat[place] + theta).clamp(0, 1))


@pytest.mark.parametrize(("theta", "allowed"), [(1.0, 5), (-1.0, 4), (0.4, 4), (0.4, 3)])
def test_the_whole_walk_is_the_papers(theta: float, allowed: int) -> None:
    images = noise(4)
    network = Wide()
    found = attacked(network, images, Jsma(eps=allowed / 108, theta=theta), classes=4)
    expected = [by_brute_force(network, image, theta, allowed) for image in images]
    fell = torch.tensor([one for _, one in expected])
    assert torch.equal(found.fallen, fell)
    for row in fell.nonzero()[:, 0].tolist():
        torch.testing.assert_close(found.points[row], expected[row][0], rtol=0, atol=1e-6)
    if theta == 1.0:
        assert fell.any()


def test_images_need_not_lie_contiguously_in_memory() -> None:
    images = torch.rand(4, 6, 6, 3, generator=torch.Generator().manual_seed(1)).permute(0, 3, 1, 2)
    assert not images.is_contiguous()
    found, other = (attacked(Wide(), one, Jsma(eps=0.1), classes=4) for one in (images, images.contiguous()))
    assert other.fallen.any()
    assert torch.equal(found.points, other.points)


def test_a_walk_ends_when_no_value_may_change() -> None:
    # A budget of less than one value; images whose values all are at their limit.
    images, network = noise(), Mirrored(108)
    assert not attacked(network, images, Jsma(eps=0.009)).norms.isfinite().any()
    full = torch.ones(2, 3, 6, 6)
    assert attacked(network, full, Jsma(eps=1.0)).gradients.tolist() == [0, 0]
    # 4 values in two steps: the last point is only looked at.
    found = attacked(network, images, Jsma(eps=4 / 108))
    assert set(found.gradients[~found.fallen].tolist()) == {2}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 0.0}, "eps is the share of values that may change, above 0 and at most 1, got 0"),
        ({"eps": 8.0}, "eps is the share"),
        ({"theta": 0.0}, "theta must be a change"),
        ({"theta": -1.5}, "theta must be a change"),
        ({"candidates": 1}, "candidates must be at least 2, got 1"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Jsma(**{"eps": 0.1} | parameters)


class TestAgainstTorchattacks:
    """Its faults, and on CIFAR-10 and the published ResNet-20 a JSMA that is no weaker than theirs."""

    def test_its_faults(self) -> None:
        torchattacks = pytest.importorskip("torchattacks")
        images = ground("linear", 4).images
        network = TorchSubject(Mirrored(48), CPU).module
        labels = network(images).argmax(dim=1)
        with pytest.raises(IndexError):  # its target is (label + 1) % 10, and here are two classes
            torchattacks.JSMA(network, gamma=0.1)(images, labels)
        permuted = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        with pytest.raises(RuntimeError, match="view"):
            torchattacks.JSMA(network, gamma=0.1)(permuted, labels)
        assert attacked(network, permuted, Jsma(eps=0.1)).fallen.any()

    @pytest.fixture
    def resnet(self, real_data: Path) -> Ground:
        return published(real_data, 3)

    def robust(self, resnet: Ground, attack: Jsma) -> np.ndarray:
        outcome = resnet.outcome(attack)
        assert (outcome.norms[~outcome.correct] <= attack.eps).all()
        return outcome.correct

    # How many of these 30 stood, measured with torchattacks 3.5.1: it takes minutes for as many.
    @pytest.mark.parametrize(("eps", "reference"), [(0.002, 22), (0.004, 19), (0.01, 15)])
    def test_no_weaker_than_theirs_was(self, resnet, eps: float, reference: int) -> None:
        assert self.robust(resnet, Jsma(eps=eps)).sum() <= reference

    def test_downwards_it_is_as_strong(self, resnet) -> None:
        # Theirs gives the images back: it blanks out the wrong signs.
        assert self.robust(resnet, Jsma(eps=0.004, theta=-1.0)).sum() <= 19

    def test_no_weaker_than_theirs_is(self, resnet) -> None:
        torchattacks = pytest.importorskip("torchattacks")
        few = slice(None, None, 5)
        images, labels = resnet.images[few], torch.tensor(resnet.samples.labels[few])
        ours = self.robust(resnet, Jsma(eps=0.004))[few].mean()
        found = torchattacks.JSMA(resnet.subject.module, gamma=0.004)(images, labels)
        assert ours <= float((resnet.subject.logits(found).argmax(dim=1) == labels).float().mean())
        # It spends the last pair although only 12 of 3,072 values may change.
        assert float(Budget("l0", 0.004).size(found - images).max()) > 0.004
