"""Filter pruning: the right filters go, they go for good, and the same network comes back from its description."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from robustgate.compression.filter_pruning import FilterPruning
from robustgate.core.components import Architecture, Edit, Network
from robustgate.core.errors import CompressionError
from robustgate.zoo import cifar_resnet

EXAMPLE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def network_of(module: nn.Module) -> Network:
    return Network(module=module.eval(), architecture=Architecture(build="x:y", args={}, mean=(0,) * 3, std=(1,) * 3))


def pruned(module: nn.Module, **parameters) -> Network:
    return FilterPruning(**parameters).apply(network_of(module), SimpleNamespace(example=EXAMPLE))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def randomized(depth: int = 14) -> nn.Module:
    """A ResNet whose batch normalisation is not the identity."""
    torch.manual_seed(depth)
    module = cifar_resnet(depth=depth, num_classes=10)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    return module.eval()


def test_the_filters_of_smallest_l1_norm_go() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    # Filter 4 has few large weights, filter 1 many small ones: L1 and L2 rank them differently.
    with torch.no_grad():
        module[0].weight[:] = 1.0
        module[0].weight[4] = 0.0
        module[0].weight[4, 0, 0, 0] = 3.0
        module[0].weight[1] = 0.2
    smaller = pruned(module, ratio=2 / 6).module
    assert smaller[0].out_channels == 4
    torch.testing.assert_close(smaller[0].weight, module[0].weight[[0, 2, 3, 5]])
    torch.testing.assert_close(smaller[4].weight, module[4].weight[:, [0, 2, 3, 5]])


def test_removal_equals_silencing_the_filters() -> None:
    # A removed channel must act as one that is zero everywhere: also through the shortcuts that pad with zeros.
    module = randomized()
    result = pruned(module, ratio=0.5)
    history = result.architecture.edits[0].payload["history"]
    silenced = copy.deepcopy(module)
    blocks = {1: "layer1", 2: "layer2", 3: "layer3"}
    with torch.no_grad():
        for name, _, indices in history:
            prefix, _, leaf = name.rpartition(".")
            norms = [f"{prefix + '.' if prefix else ''}bn{leaf.removeprefix('conv')}"]
            if leaf == "conv2" or name == "conv1":  # a residual stream: every layer that writes into it
                stage = blocks[1] if name == "conv1" else prefix.split(".")[0]
                norms = [key for key, _ in silenced.named_modules() if key.startswith(stage) and key.endswith("bn2")]
                norms += ["bn1"] if name == "conv1" else []
            for key in norms:
                layer = silenced.get_submodule(key)
                layer.weight[indices] = 0.0
                layer.bias[indices] = 0.0
        # What a wider stage gets from a removed channel of the narrower one is zero already; what it removes itself
        # must be silenced after the sum, which no single layer does: mask the stream.
        for name, _, indices in history:
            if name.endswith("conv2"):
                stage = silenced.get_submodule(name.split(".")[0])
                for block in stage:
                    block.register_forward_hook(
                        lambda _m, _i, out, kept=indices: out.index_fill(1, torch.tensor(kept), 0)
                    )
        expected = silenced(EXAMPLE)
    torch.testing.assert_close(result.module(EXAMPLE), expected, rtol=1e-4, atol=1e-4)
    assert count(result.module) < 0.3 * count(module)


@pytest.mark.parametrize("depth", [8, 20])
def test_the_same_network_comes_back_from_json(depth: int) -> None:
    result = pruned(randomized(depth), ratio=0.4)
    edit = json.loads(json.dumps({"method": "filter_pruning", "payload": dict(result.architecture.edits[0].payload)}))
    again = FilterPruning.redo(cifar_resnet(depth=depth, num_classes=10).eval(), Edit(**edit), EXAMPLE)
    again.load_state_dict(result.module.state_dict())
    assert torch.equal(again(EXAMPLE), result.module(EXAMPLE))


def test_a_pruned_network_can_be_pruned_again() -> None:
    once = pruned(randomized(), ratio=0.25)
    twice = FilterPruning(ratio=0.25).apply(once, SimpleNamespace(example=EXAMPLE))
    assert len(twice.architecture.edits) == 2
    again = cifar_resnet(depth=14, num_classes=10).eval()
    for edit in twice.architecture.edits:
        again = FilterPruning.redo(again, edit, EXAMPLE)
    again.load_state_dict(twice.module.state_dict())
    assert torch.equal(again(EXAMPLE), twice.module(EXAMPLE))


def test_a_parameter_target_is_met_and_hardly_undercut() -> None:
    module = torchvision.models.resnet18(num_classes=31)
    assert round(count(module) / 1e6, 2) == 11.19
    example = torch.rand(2, 3, 64, 64)
    result = FilterPruning(parameters="4.51M").apply(network_of(module), SimpleNamespace(example=example)).module
    assert 0.97 * 4.51e6 <= count(result) <= 4.51e6
    assert result(example).shape == (2, 31)
    assert result.fc.out_features == 31


def test_the_original_is_left_alone() -> None:
    module = randomized()
    before = copy.deepcopy(module.state_dict())
    pruned(module, ratio=0.5)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"parameters": "9M"}, "the network has only"),
        ({"parameters": 12}, "even ratio 0.99 leaves more"),
    ],
)
def test_what_cannot_be_done_is_said(parameters, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        pruned(randomized(), **parameters)


def test_a_network_without_filters_is_refused() -> None:
    with pytest.raises(CompressionError, match="removes no filter"):
        pruned(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), ratio=0.5)


@pytest.mark.parametrize("parameters", [{}, {"ratio": 0.5, "parameters": 5}, {"ratio": 1.0}, {"parameters": "4.51 MB"}])
def test_bad_parameters_are_refused(parameters) -> None:
    with pytest.raises(ValueError, match=r"ratio|parameters"):
        FilterPruning(**parameters)
