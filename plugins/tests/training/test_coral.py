"""CORAL: the loss against NumPy's covariance and finite differences, its weights, its batches, its layers by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from bright_halves import SIZE, course_of, doubled, network, network_of, samples_of, sides
from torch import Tensor, nn
from torch.nn import functional

from robustgate.core.components import Samples
from robustgate.core.errors import CompressionError
from robustgate.training._coral import Aligning, Alignment, coral


def features(count: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Around different means: what is no covariance shows only there.
    return torch.randn(count, width, generator=generator, dtype=torch.float64) * 2 + 3 + seed


def by_hand(source: Tensor, target: Tensor) -> float:
    """The paper's eqs. 1 to 3: C = (D^T D - (1^T D)^T (1^T D) / n) / (n - 1)."""
    covariances = []
    for data in (source.numpy(), target.numpy()):
        sums = data.sum(axis=0, keepdims=True)
        covariances.append((data.T @ data - sums.T @ sums / len(data)) / (len(data) - 1))
        np.testing.assert_allclose(covariances[-1], np.cov(data.T).reshape(covariances[-1].shape), atol=1e-12)
    return float(np.sum((covariances[0] - covariances[1]) ** 2) / (4 * source.shape[1] ** 2))


def widely_copied(source: Tensor, target: Tensor) -> Tensor:
    """CORAL as a well-known port has it: mean^T mean in place of n mean^T mean."""
    covariances = []
    for data in (source, target):
        mean = data.mean(0, keepdim=True)
        covariances.append((data.T @ data - mean.T @ mean) / (len(data) - 1))
    return (covariances[0] - covariances[1]).square().sum() / (4 * source.shape[1] ** 2)


@pytest.mark.parametrize("width", [1, 2, 7])
@pytest.mark.parametrize(("ours", "theirs"), [(5, 5), (40, 9)])
def test_it_is_the_papers_of_numpys_covariances(width: int, ours: int, theirs: int) -> None:
    source, target = features(ours, width), features(theirs, width, 1)
    expected = by_hand(source, target)
    assert float(coral(source, target)) == pytest.approx(expected, rel=1e-10)
    assert float(coral(target, source)) == pytest.approx(expected, rel=1e-10)
    assert abs(float(widely_copied(source, target)) / expected - 1) > 0.05


def test_its_gradient_is_that_of_finite_differences() -> None:
    source, target = features(6, 3).requires_grad_(), features(5, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(coral, (source, target))


def test_it_does_not_see_means_nor_order_but_scale() -> None:
    source = features(20, 4)
    assert float(coral(source, source)) == 0
    shuffled = source[torch.randperm(20)] + torch.arange(4)
    assert float(coral(source, shuffled)) == pytest.approx(0, abs=1e-20)
    assert float(widely_copied(source, shuffled)) > 1
    assert float(coral(source, 2 * source)) == pytest.approx(9 * float(torch.cov(source.T).square().sum()) / 64)


def test_half_precision_is_computed_in_single() -> None:
    source, target = features(30, 4).bfloat16(), features(30, 4, 1).bfloat16()
    loss = coral(source, target)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(by_hand(source.double(), target.double()), rel=1e-4)


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(ValueError, match=r"a covariance needs two samples, got features \(1, 4\)"):
        coral(features(3, 4), features(1, 4))


# In a training.


@dataclass(frozen=True, kw_only=True)
class Recipe(Aligning):
    shift: int = 0


def run_of(module: nn.Module, source: Samples, target: Samples, **options) -> Alignment:
    recipe = Recipe(epochs=1, **{"batch_size": len(source), **options})
    return Alignment(recipe, network_of(module), course_of(source), source, target.images)


def dark(count: int = 64, seed: int = 5) -> Samples:
    images = np.random.default_rng(seed).integers(0, 60, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return samples_of(images, np.zeros(count))


def batch_of(samples: Samples) -> Tensor:
    return torch.from_numpy(samples.images).permute(0, 3, 1, 2).double() / 255


def test_each_layer_is_weighed_and_maps_are_averaged_over_space() -> None:
    module = doubled(network(dropout=0.0)).train()
    source, target = sides(32), dark(32)
    run = run_of(module, source, target, layers={"logits": 0.5, "0": 300.0, "5": 7.0})
    loss = run.loss(*next(run.shuffled()))
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}

    module.zero_grad()
    maps, logits = [], []
    for images in (batch_of(source), batch_of(target)):
        out = module[0](images)
        maps.append(out.mean(dim=(2, 3)))
        out = functional.batch_norm(out, None, None, module[1].weight, module[1].bias, training=True)
        logits.append(module[5](out.relu().flatten(1)))
    expected = functional.cross_entropy(logits[0], torch.from_numpy(source.labels))
    terms = [coral(*logits), coral(*maps)]
    assert min(float(term.detach()) for term in terms) > 0
    expected = expected + 7.5 * terms[0] + 300 * terms[1]
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-8)


def test_a_layer_is_taken_as_it_was_given_whatever_the_next_one_writes_over_it() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4), nn.ReLU(), nn.Linear(4, 2))
    inplace = nn.Sequential(*plain)
    inplace[2] = nn.ReLU(inplace=True)
    losses = []
    for module in (plain, inplace):
        run = run_of(module, sides(32), dark(32), layers={"1": 1.0})
        losses.append(float(run.loss(*next(run.shuffled())).detach()))
    assert losses[0] == losses[1]


def test_running_statistics_are_of_the_target() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3, momentum=0.25), nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2)).train()
    run = run_of(module, sides(32), dark(32))
    for _ in range(3):
        run.loss(*next(run.shuffled()))
    mean = batch_of(dark(32)).mean(dim=(0, 2, 3)).float()
    torch.testing.assert_close(module[0].running_mean, (1 - 0.75**3) * mean)


def test_every_target_image_comes_once_before_any_comes_again() -> None:
    samples = dark(10)
    run = run_of(network(), sides(8), samples)
    seen = torch.cat([run._next(4) for _ in range(15)]).numpy()
    expected = sorted(image.tobytes() for image in samples.images)
    orders = [[image.tobytes() for image in seen[start : start + 10]] for start in range(0, 60, 10)]
    assert all(sorted(order) == expected for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    # A batch may be larger than the target.
    assert len(run._next(64)) == 64


class Wrapping(nn.Module):
    """As the engine wraps a network to normalise its images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.network = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images * 2 - 1)
        return logits


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer4 = nn.Conv2d(3, 4, 3)
        self.unused = nn.Linear(2, 2)
        self.pair = nn.Identity()
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.layer4(images)
        self.pair((maps, maps))
        logits: Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


def test_a_module_of_the_users_network_is_found_under_its_own_name() -> None:
    torch.manual_seed(0)
    net = Net()
    losses = []
    for module, name in ((net, "layer4"), (Wrapping(net), "layer4"), (Wrapping(net), "network.layer4")):
        run = run_of(module, sides(32), dark(32), layers={name: 100.0})
        assert run._modules[name] is net.layer4
        losses.append(float(run.loss(*next(run.shuffled())).detach()))
    assert losses[1] == losses[2]
    assert not net.layer4._forward_hooks


@pytest.mark.parametrize("wrap", [False, True])
def test_a_layer_that_there_is_not_is_named_with_the_nearest(wrap: bool) -> None:
    module = Wrapping(Net()) if wrap else Net()
    message = r"the network has no module 'layer5' \(did you mean 'layer4'\?\); known: head, layer4, logits, pair, unu"
    with pytest.raises(CompressionError, match=message):
        run_of(module, sides(32), dark(32), layers={"layer5": 1.0})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unused", "layers: the module 'unused' is there, but the network does not call it"),
        ("pair", r"layers.pair: expected an output \(N, d\) or \(N, C, H, W\), got tuple"),
    ],
)
def test_a_layer_without_features_is_refused(name: str, message: str) -> None:
    run = run_of(Net(), sides(32), dark(32), layers={"logits": 1.0, name: 1.0})
    with pytest.raises(CompressionError, match=message):
        run.loss(*next(run.shuffled()))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({}, 'layers must name at least one layer, "logits" or a module of the network, got none'),
        ({"logits": -1.0}, "layers.logits must be a weight of at least 0, got -1"),
        ({"layer4": float("nan")}, "layers.layer4 must be a weight of at least 0, got nan"),
    ],
)
def test_weights_that_make_no_sense_are_refused(layers, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(epochs=1, layers=layers)
