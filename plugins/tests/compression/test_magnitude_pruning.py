"""Magnitude pruning: exactly the smallest weights go, in exact numbers, along the promised path."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from robustgate.compression.magnitude_pruning import MagnitudePruning
from robustgate.core.components import Architecture, Constraint, Network
from robustgate.core.errors import CompressionError
from robustgate.zoo import cifar_resnet

WORKSHOP = SimpleNamespace(seed=0)


def network_of(module: nn.Module, *constraints: Constraint) -> Network:
    architecture = Architecture(build="x:y", args={}, mean=(0,) * 3, std=(1,) * 3)
    return Network(module=module.eval(), architecture=architecture, constraints=constraints)


def pruned(module: nn.Module, **parameters) -> nn.Module:
    return MagnitudePruning(**parameters).apply(network_of(module), WORKSHOP).module


def linear(*weights: float) -> nn.Sequential:
    layer = nn.Linear(len(weights), 1)
    with torch.no_grad():
        layer.weight[0] = torch.tensor(weights)
    return nn.Sequential(layer)


def small() -> nn.Sequential:
    """Layers of 54, 72 and 80 weights, the second a hundred times larger than the others."""
    torch.manual_seed(1)
    layers = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ConvTranspose2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 5)
    )
    with torch.no_grad():
        layers[2].weight *= 100
    return layers


def zeros(weight: torch.Tensor) -> int:
    return int((weight == 0).sum())


def test_the_smallest_magnitudes_go_and_the_others_stay() -> None:
    module = pruned(linear(0.5, -0.1, 3.0, -2.0, 0.2, 0.05), sparsity=0.5)
    assert module[0].weight[0].tolist() == [0.5, 0.0, 3.0, -2.0, 0.0, 0.0]


def test_equal_magnitudes_go_in_order_until_the_number_is_met() -> None:
    module = pruned(linear(1.0, -1.0, 1.0, 1.0, -1.0), sparsity=0.5)
    assert module[0].weight[0].tolist() == [0.0, 0.0, 0.0, 1.0, -1.0]


@pytest.mark.parametrize("percent", [7, 14, 28, 29, 55, 56, 57, 70, 90])
def test_the_number_is_exact_in_decimals(percent: int) -> None:
    # As floats, 0.07 * 100, 0.14 * 100, 0.28 * 100, 0.55 * 100 and others lie above the whole number.
    module = pruned(linear(*np.linspace(1, 2, 100)), sparsity=percent / 100)
    assert zeros(module[0].weight) == percent


def test_each_layer_has_its_share_or_all_together() -> None:
    module = small()
    weights = ["0.weight", "2.weight", "4.weight"]
    each = pruned(module, sparsity=0.55).state_dict()
    assert [zeros(each[name]) for name in weights] == [30, 40, 44]  # ceil of 29.7, 39.6 and 44.0
    together = pruned(module, sparsity=0.6, scope="global").state_dict()
    counts = [zeros(together[name]) for name in weights]
    assert sum(counts) == 124  # ceil of 0.6 * 206
    assert counts[1] <= 3
    # An independent computation: all magnitudes in one sorted list.
    everything = torch.cat([module.state_dict()[name].flatten() for name in weights]).abs()
    bound = everything.sort().values[123]
    for name in weights:
        before = module.state_dict()[name]
        assert torch.equal(together[name], torch.where(before.abs() > bound, before, 0.0))


def test_nothing_but_weights_is_touched_and_the_original_is_left_alone() -> None:
    module = small()
    before = copy.deepcopy(module.state_dict())
    after = pruned(module, sparsity=0.9, scope="global").state_dict()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    others = before.keys() - {"0.weight", "2.weight", "4.weight"}
    assert len(others) == 8
    assert all(torch.equal(after[name], before[name]) for name in others)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_rounds_remove_the_same_share_of_what_is_left(scope: str) -> None:
    torch.manual_seed(0)
    network = network_of(nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 100)))
    step, path = MagnitudePruning(sparsity=0.9, scope=scope, rounds=4), []
    rounds: MagnitudePruning | None = step
    while rounds is not None:
        earlier = {name: value == 0 for name, value in network.module.state_dict().items()}
        network = rounds.apply(network, WORKSHOP)
        for name, value in network.module.state_dict().items():
            assert not value[earlier[name]].any(), "an earlier zero came back"
        with torch.no_grad():  # stands for fine-tuning: every weight that is left moves
            for layer in network.module:
                layer.weight += (layer.weight != 0) * 0.01 * torch.randn(100, 100)
        path.append(1 - sum(zeros(layer.weight) for layer in network.module) / 20_000)
        rounds = rounds.next_round()
    np.testing.assert_allclose(path, [0.1 ** (i / 4) for i in (1, 2, 3, 4)], atol=2e-4)
    assert sum(zeros(layer.weight) for layer in network.module) == 18_000
    assert network.constraints == (Constraint(kind="zeros", parameters=("0.weight", "1.weight")),)


def test_rounds_count_down() -> None:
    step = MagnitudePruning(sparsity=0.5, scope="global", rounds=2)
    assert step.next_round() == MagnitudePruning(sparsity=0.5, scope="global", rounds=1)
    assert MagnitudePruning(sparsity=0.5).next_round() is None


def test_what_is_sparser_already_stays() -> None:
    module = linear(0.0, 3.0, 0.0, -1.0, 0.0, 2.0)
    assert torch.equal(pruned(module, sparsity=0.2)[0].weight, module[0].weight)
    assert pruned(module, sparsity=0.6)[0].weight[0].tolist() == [0.0, 3.0, 0.0, 0.0, 0.0, 2.0]


def test_an_earlier_constraint_becomes_one_with_this() -> None:
    clusters = Constraint(kind="clusters", parameters=("0.weight",))
    network = network_of(linear(1.0, 2.0), Constraint(kind="zeros", parameters=("other", "0.weight")), clusters)
    result = MagnitudePruning(sparsity=0.5).apply(network, WORKSHOP)
    assert result.constraints == (clusters, Constraint(kind="zeros", parameters=("other", "0.weight")))
    assert set(result.constrained("zeros")) - {"other"} <= result.module.state_dict().keys()


def test_a_shared_weight_is_counted_once() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    result = MagnitudePruning(sparsity=0.5, scope="global").apply(network_of(module), WORKSHOP)
    assert result.constrained("zeros") == ("0.weight", "1.weight")
    assert zeros(result.module[0].weight) + zeros(result.module[1].weight) == 16
    assert result.module[2].weight is result.module[0].weight


def test_what_cannot_be_pruned_is_said() -> None:
    with pytest.raises(CompressionError, match="magnitude_pruning: expected convolutions or linear layers"):
        pruned(nn.Sequential(nn.BatchNorm2d(3)), sparsity=0.5)
    with pytest.raises(CompressionError, match=r"magnitude_pruning: 0.weight: .* got NaN or infinity"):
        pruned(linear(1.0, float("nan")), sparsity=0.5)
    computed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(CompressionError, match="magnitude_pruning: 0: expected a weight that is a parameter"):
        pruned(computed, sparsity=0.5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sparsity": 0}, "sparsity must be above 0 and below 1, got 0"),
        ({"sparsity": 1.0}, "sparsity must be above 0 and below 1, got 1"),
        ({"sparsity": 0.5, "scope": "all"}, "scope must be 'layer' or 'global', got 'all'"),
        ({"sparsity": 0.5, "rounds": 0}, "rounds must be at least 1, got 0"),
    ],
)
def test_bad_parameters_are_refused(parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MagnitudePruning(**parameters)


@pytest.mark.parametrize(("sparsity", "published"), [(0.5, 0.9007), (0.7, 0.7296)])
def test_the_published_resnet20_loses_what_another_implementation_lost(real_data, sparsity, published) -> None:
    # Reference figures of all 10,000 test images; these are 1,000 of them, whose standard error is the tolerance.
    module = cifar_resnet(depth=20, num_classes=10)
    module.load_state_dict(load_file(real_data / "weights" / "cifar10_resnet20.safetensors"), strict=False)
    module = pruned(module, sparsity=sparsity, scope="global")
    with np.load(real_data / "cifar" / "cifar10_test_2000.npz") as arrays:
        images, labels = arrays["images"][::2].astype(np.float32) / 255, torch.from_numpy(arrays["labels"][::2])
    images = (images - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    with torch.inference_mode():
        parts = torch.from_numpy(images).permute(0, 3, 1, 2).split(500)
        right = torch.cat([module(part) for part in parts]).argmax(1) == labels
    error = (published * (1 - published) / 1000) ** 0.5
    assert abs(float(right.float().mean()) - published) < 2.5 * error
