"""CIFAR ResNets: the paper's sizes, the published weights' accuracy, and a shortcut that can be pruned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from robustgate.core.errors import ModelError
from robustgate.zoo.cifar_resnet import PaddedShortcut, cifar_resnet

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# He et al. 2016, table 6, in millions.
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_parameter_counts_are_the_papers(depth: int, millions: float) -> None:
    module = cifar_resnet(depth=depth, num_classes=10)
    assert count(module) / 1e6 == pytest.approx(millions, abs=0.05 if depth == 110 else 0.005)
    # Every layer with weights, shortcuts having none: 6n + 1 convolutions and one linear layer.
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in module.modules()) == depth


def test_width_and_classes() -> None:
    module = cifar_resnet(depth=8, num_classes=3, width=4)
    assert [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)] == [4] * 3 + [8] * 2 + [
        16
    ] * 2
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    # No layer knows the size of the images.
    assert module(torch.zeros(1, 3, 45, 30)).shape == (1, 3)


@pytest.mark.parametrize("widths", [(5, 9, 14), [4, 4, 4], [4, 8, 16], (8, 6, 3), (1, 1, 1)])
def test_each_stage_has_the_width_that_is_asked(widths: tuple[int, int, int]) -> None:
    blocks = 2
    module = cifar_resnet(depth=6 * blocks + 2, num_classes=7, widths=widths)
    convolutions = [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert convolutions == [widths[0]] + [width for width in widths for _ in range(2 * blocks)]
    # 3x3 convolutions without biases, two numbers a normalised channel, one linear layer; shortcuts have none.
    first, second, third = widths
    kernels = 3 * first + 4 * first**2 + first * second + 3 * second**2 + second * third + 3 * third**2
    norms = 2 * (first + 2 * blocks * sum(widths))
    assert count(module) == 9 * kernels + norms + third * 7 + 7
    assert module(torch.rand(2, 3, 16, 16)).shape == (2, 7)


def test_widths_that_spell_out_the_default_give_the_same_network_to_the_last_bit() -> None:
    def state(**given: object) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return cifar_resnet(depth=8, num_classes=10, **given).state_dict()

    for one, other in (({}, {"width": 16}), ({}, {"widths": [16, 32, 64]}), ({"width": 4}, {"widths": (4, 8, 16)})):
        left, right = state(**one), state(**other)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)


def test_initial_weights_are_those_that_the_seed_has_always_drawn() -> None:
    # Of the network before stages had widths of their own: whatever was trained from a seed can be made again.
    torch.manual_seed(0)
    state = cifar_resnet(depth=8, num_classes=10, width=8).state_dict()
    sums = {key: value.double().sum().item() for key, value in state.items()}
    assert sums["conv1.weight"] == pytest.approx(1.76947, rel=1e-4)
    assert sums["layer3.0.conv2.weight"] == pytest.approx(1.17980, rel=1e-4)
    assert sums["linear.weight"] == pytest.approx(-0.351499, rel=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"widths": [16, 32]}, r"widths must be three counts of channels above 0, got \[16, 32\]"),
        ({"widths": (16, 0, 64)}, r"widths must be three counts of channels above 0, got \[16, 0, 64\]"),
        ({"width": 0}, r"widths must be three counts of channels above 0, got \[0, 0, 0\]"),
        ({"width": 16, "widths": [16, 32, 64]}, r"give either width or widths, got 16 and \[16, 32, 64\]"),
    ],
)
def test_other_widths_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        cifar_resnet(depth=8, num_classes=10, **given)


@pytest.mark.parametrize("depth", [0, 2, 7, 18, 49, -4])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(ModelError, match=rf"depth must be 6n\+2 \(8, 14, 20, 26, 32, \.\.\.\), got {depth}"):
        cifar_resnet(depth=depth, num_classes=10)


@pytest.mark.parametrize(("depth", "correct"), [(20, 1836), (56, 1851)])
def test_published_weights_reach_their_accuracy_to_the_last_image(real_data: Path, depth: int, correct: int) -> None:
    module = cifar_resnet(depth=depth, num_classes=10)
    state = load_file(real_data / "weights" / f"cifar10_resnet{depth}.safetensors")
    # The counters of batch normalisation are not among the published values; every other key is.
    counters = {key for key in module.state_dict() if key.endswith("num_batches_tracked")}
    assert module.state_dict().keys() - state.keys() <= counters
    module.load_state_dict({**{key: torch.tensor(0) for key in counters}, **state}, strict=True)
    module.eval()
    with np.load(real_data / "cifar" / "cifar10_test_2000.npz") as arrays, torch.no_grad():
        images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2) / 255
        guesses = torch.cat([module((batch - MEAN) / STD).argmax(1) for batch in images.split(250)])
        assert int((guesses.numpy() == arrays["labels"]).sum()) == correct


def option_a(x: Tensor, planes: int) -> Tensor:
    """The shortcut as it is widely written."""
    return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4), "constant", 0)


@pytest.mark.parametrize("size", [8, 7])
def test_the_shortcut_is_option_a(size: int) -> None:
    x = torch.randn(2, 6, size, size)
    shortcut = PaddedShortcut(6, 12, 2)
    assert torch.equal(shortcut(x), option_a(x, 12))
    assert shortcut.out_channels == 12
    assert not list(shortcut.parameters())
    # An odd number of new channels: the one more stands behind.
    assert [int(channel.any()) for channel in PaddedShortcut(2, 5, 1)(torch.ones(1, 2, 3, 3))[0]] == [0, 1, 1, 0, 0]


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 4), (5, 2), (3, 3), (4, 1)])
def test_a_shortcut_to_fewer_channels_passes_those_in_the_middle(inputs: int, outputs: int) -> None:
    x = torch.randn(2, inputs, 5, 5)
    first = -((outputs - inputs) // 2)
    assert torch.equal(PaddedShortcut(inputs, outputs, 2)(x), x[:, first : first + outputs, ::2, ::2])


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([0, 1, 2, 3], [3, 4, 5]),
        ([1, 3], list(range(8))),
        ([0, 2], [0, 3, 5]),
        ([3], [4, 2]),
        ([0], [6, 7]),
        ([1, 2], [4, 3]),
    ],
)
def test_a_pruned_shortcut_shows_what_the_whole_one_would(inputs: list[int], outputs: list[int]) -> None:
    x = torch.randn(2, 4, 4, 4)
    lost = [channel for channel in range(4) if channel not in inputs]
    expected = option_a(x.index_fill(1, torch.tensor(lost, dtype=torch.int64), 0.0), 8)[:, outputs]
    for first, second in (("inputs", "outputs"), ("outputs", "inputs")):
        shortcut = PaddedShortcut(4, 8, 2)
        for side in (first, second):
            shortcut.keep_inputs(inputs) if side == "inputs" else shortcut.keep_outputs(outputs)
        assert torch.equal(shortcut(x[:, inputs]), expected)
        assert (shortcut.in_channels, shortcut.out_channels) == (len(inputs), len(outputs))
