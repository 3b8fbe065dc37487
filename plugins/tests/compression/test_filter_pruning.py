"""Filter pruning: the right filters go, they go for good, and the same network comes back from its description."""

from __future__ import annotations

import copy
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from robustgate.compression.filter_pruning import FilterPruning
from robustgate.core.components import Architecture, Constraint, Edit, Network, Samples
from robustgate.core.counts import count_macs, read_count
from robustgate.core.errors import CompressionError
from robustgate.zoo import cifar_resnet

EXAMPLE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LARGER = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network_of(module: nn.Module) -> Network:
    return Network(module=module.eval(), architecture=Architecture(build="x:y", args={}, mean=(0,) * 3, std=(1,) * 3))


def pruned(module: nn.Module, example: Tensor = EXAMPLE, seed: int = 0, **parameters) -> Network:
    workshop = SimpleNamespace(example=example, seed=seed)
    return FilterPruning(**parameters).apply(network_of(module), workshop)


def in_rounds(module: nn.Module, **parameters) -> list[Network]:
    """The network after each round, the untouched one first; nothing is fine-tuned between them."""
    networks, step = [network_of(module)], FilterPruning(**parameters)
    while step is not None:
        networks.append(step.apply(networks[-1], SimpleNamespace(example=EXAMPLE, seed=0)))
        step = step.next_round()
    return networks


def widths(module: nn.Module) -> list[int]:
    return [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def removed(network: Network) -> dict[str, list[int]]:
    """The channels that the last edit took, by layer."""
    return {name: indices for name, _, indices in network.architecture.edits[-1].payload["history"]}


def head(channels: int) -> list[nn.Module]:
    return [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]


def scaled(layer: nn.Conv2d, norms: list[float]) -> None:
    """Give each filter the L1 norm asked for, all its weights equal."""
    with torch.no_grad():
        layer.weight[:] = torch.tensor(norms).view(-1, 1, 1, 1) / layer.weight[0].numel()


def chain(*norms: list[float]) -> nn.Sequential:
    """Convolutions one after the other, with filters of these L1 norms."""
    torch.manual_seed(0)
    inputs = [3, *(len(one) for one in norms)]
    layers = [nn.Conv2d(before, after, 3) for before, after in itertools.pairwise(inputs)]
    for layer, one in zip(layers, norms, strict=True):
        scaled(layer, one)
    return nn.Sequential(*layers, *head(inputs[-1])).eval()


def silenced(module: nn.Sequential, gone: dict[str, list[int]]) -> nn.Module:
    """A copy of a network without biases in which these filters are zero: what it computes without them."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        for name, indices in gone.items():
            module.get_submodule(name).weight[indices] = 0.0
    return module


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


@pytest.mark.parametrize(("criterion", "gone"), [("l1", [1, 3]), ("l2", [3, 4])])
def test_l1_and_l2_rank_by_hand(criterion: str, gone: list[int]) -> None:
    module = chain([1.0] * 5)
    # L1 norms 27, 2.7, 9, 2, 3; L2 norms sqrt(27) = 5.2, 2.7, sqrt(27) / 3 = 1.7, 2 / sqrt(2) = 1.4, 0.58.
    with torch.no_grad():
        module[0].weight[:] = 0.0
        module[0].weight[0] = 1.0
        module[0].weight[1, 0, 0, 0] = -2.7
        module[0].weight[2] = 1 / 3
        module[0].weight[3, :2, 0, 0] = 1.0
        module[0].weight[4] = 1 / 9
    assert removed(pruned(module, ratio=0.4, criterion=criterion)) == {"0": gone}


def test_what_a_residual_sum_ties_is_ranked_by_the_mean() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
            self.last = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last((x + self.second(x)).mean(dim=(2, 3)))

    module = Residual().eval()
    scaled(module.first, [1.0, 5.0, 4.0])
    scaled(module.second, [5.0, 2.0, 1.0])  # the means are 3, 3.5 and 2.5
    (gone,) = removed(pruned(module, ratio=1 / 3)).values()
    assert gone == [2]
    (gone,) = removed(pruned(module, ratio=2 / 3)).values()
    assert gone == [0, 2]


def labelled(count: int, seed: int) -> Samples:
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Samples(images=images, labels=draw.integers(0, 4, count), classes=tuple("abcd"), names=("",) * count)


def taylor_workshop(samples: Samples) -> SimpleNamespace:
    return SimpleNamespace(example=torch.rand(2, 3, 8, 8), seed=0, samples={"train": samples}.__getitem__)


def taylor_by_hand(module: nn.Sequential, samples: Samples, rows: list[int]) -> dict[str, Tensor]:
    """Sum of g w by convolution: each filter gets a factor of one, and the mean loss is differentiated by it."""
    x = torch.from_numpy(samples.images[rows]).permute(0, 3, 1, 2).double() / 255
    factors = {}
    for name, layer in copy.deepcopy(module).double().named_children():
        if isinstance(layer, nn.Conv2d):
            factors[name] = torch.ones(layer.out_channels, dtype=torch.float64, requires_grad=True)
            x = functional.conv2d(x, layer.weight * factors[name].view(-1, 1, 1, 1), layer.bias)
        else:
            x = layer(x)
    functional.cross_entropy(x, torch.from_numpy(samples.labels[rows])).backward()
    return {name: factor.grad for name, factor in factors.items()}


def ranked(scores: Tensor) -> list[int]:
    return scores.argsort().tolist()


def test_taylor_ranks_by_the_loss_of_images_spread_over_the_split() -> None:
    torch.manual_seed(3)
    # Dropout would change the gradients, and batch normalisation too if it took the batch's statistics.
    normal, dropout = nn.BatchNorm2d(8), nn.Dropout(0.5)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), normal, dropout, *head(8))
    nn.init.uniform_(normal.running_mean, -0.5, 0.5)
    samples, network = labelled(281, 0), network_of(module)
    rows = [i * 281 // 70 for i in range(70)]  # every fourth, and more than go through the network at once
    assert (rows[:3], rows[-1]) == ([0, 4, 8], 276)
    order = ranked(taylor_by_hand(network.module, samples, rows)["0"] ** 2)
    assert order != ranked(network.module[0].weight.detach().abs().sum(dim=(1, 2, 3)))
    assert order != ranked(taylor_by_hand(network.module, samples, list(range(70)))["0"] ** 2)
    before = copy.deepcopy(network.module.state_dict())
    for gone in range(1, 8):
        step = FilterPruning(ratio=gone / 8, criterion="taylor", taylor_images=70)
        result = step.apply(network, taylor_workshop(samples))
        assert removed(result) == {"0": sorted(order[:gone])}
        assert all(one.grad is None for one in [*network.module.parameters(), *result.module.parameters()])
    assert all(torch.equal(value, before[key]) for key, value in network.module.state_dict().items())


def test_taylor_compares_layers_by_squares_of_one_mean_gradient() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), *head(8)).eval()
    samples, rows = labelled(66, 1), list(range(66))
    gradient = taylor_by_hand(module, samples, rows)

    def order(scores: dict[str, Tensor]) -> list[int]:
        return ranked(torch.cat([one / one.mean() for one in scores.values()]))

    expected = order({name: one**2 for name, one in gradient.items()})
    # What it is not: unsquared, or the last batch of two images weighing as much as the 64 before it.
    first, last = (taylor_by_hand(module, samples, batch) for batch in (rows[:64], rows[64:]))
    assert expected != order({name: one.abs() for name, one in gradient.items()})
    assert expected != order({name: (first[name] + last[name]) ** 2 for name in first})
    for gone in range(1, 13):
        step = FilterPruning(ratio=gone / 16, criterion="taylor", scope="global", keep=0.0)
        found = removed(step.apply(network_of(module), taylor_workshop(samples)))
        places = [8 * (name == "2") + channel for name, channels in found.items() for channel in channels]
        assert sorted(places) == sorted(expected[:gone])


def test_taylor_removes_what_the_loss_does_not_depend_on() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3), *head(6)).eval()
    with torch.no_grad():
        module[0].weight[2] *= 100  # the strongest by its norm
        module[-1].weight[:, 2] = 0.0
    network, samples = network_of(module), labelled(20, 1)
    result = FilterPruning(ratio=1 / 6, criterion="taylor").apply(network, taylor_workshop(samples))
    assert removed(result) == {"0": [2]}
    images = torch.from_numpy(samples.images).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(result.module(images), module(images))


def test_random_is_the_seeds() -> None:
    module = randomized()
    stream = torch.get_rng_state()
    taken = [removed(pruned(module, ratio=0.5, criterion="random", seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), stream)
    assert taken[0] == taken[1]
    assert all(taken[0][name] != taken[2][name] for name in taken[0])
    # And it is no norm in disguise: over many seeds every filter of eight goes about half of the time.
    small = chain([float(norm) for norm in range(1, 9)])
    counts = np.zeros(8)
    for seed in range(100):
        counts[removed(pruned(small, ratio=0.5, criterion="random", seed=seed))["0"]] += 1
    assert counts.sum() == 400
    assert counts.min() > 30
    assert counts.max() < 70  # four standard deviations, 5 each


def test_global_scope_takes_the_filters_that_are_weakest_for_their_layer() -> None:
    # Divided by the layers' means, 10 and 1: 1.2, 0.1, 1.3, 1.4 and 1.1, 0.5, 0.8, 1.6. As they are, all of the
    # second layer's would go before any of the first one's but one.
    module = chain([12.0, 1.0, 13.0, 14.0], [1.1, 0.5, 0.8, 1.6])
    expected = [{"0": [1]}, {"0": [1], "1": [1]}, {"0": [1], "1": [1, 2]}, {"0": [1], "1": [0, 1, 2]}]
    for gone, channels in enumerate(expected, start=1):
        assert removed(pruned(module, ratio=gone / 8, scope="global", keep=0.0)) == channels
    assert removed(pruned(module, ratio=5 / 8, scope="global", keep=0.0)) == {"0": [0, 1], "1": [0, 1, 2]}
    # Within each layer, the same share of each goes.
    assert removed(pruned(module, ratio=0.25)) == {"0": [1], "1": [1]}


def test_global_scope_leaves_of_each_layer_what_is_to_be_kept() -> None:
    weak = [100.0] + [1.0 + 0.01 * i for i in range(9)]
    even = [1.0 + 0.01 * i for i in range(10)]
    module = chain(weak, even)
    alone = removed(pruned(module, ratio=0.4, scope="global", keep=0.0))
    assert alone == {"0": [1, 2, 3, 4, 5, 6, 7, 8]}
    floored = removed(pruned(module, ratio=0.4, scope="global", keep=0.45))  # 4.5 of 10 filters: five stay
    assert floored == {"0": [1, 2, 3, 4, 5], "1": [0, 1, 2]}
    assert removed(pruned(module, ratio=0.9, scope="global"))  # the default keeps a tenth: exactly that
    with pytest.raises(CompressionError, match=r"ratio 0\.6 is 12 of 20 filters, but keep = 0\.45 lets only 10 go"):
        pruned(module, ratio=0.6, scope="global", keep=0.45)
    # A layer of zeros has no mean to be divided by: it goes first, down to its floor.
    assert removed(pruned(chain([0.0] * 4, even), ratio=3 / 14, scope="global")) == {"0": [0, 1, 2]}


def test_zeros_stay_zero_and_constraints_are_carried() -> None:
    module = randomized(8)
    names = tuple(key for key, value in module.state_dict().items() if value.dim() == 4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in names:
            weight = module.get_parameter(name)
            weight *= torch.rand(weight.shape, generator=generator) < 0.5
    constraints = (Constraint(kind="zeros", parameters=names), Constraint(kind="clusters", parameters=names[:2]))
    network = Network(module=module, architecture=network_of(module).architecture, constraints=constraints)
    result = FilterPruning(ratio=0.5).apply(network, SimpleNamespace(example=EXAMPLE))
    assert result.constraints == constraints
    # The same filters taken from a network that holds 1 where this one holds 0.
    marks = copy.deepcopy(module)
    with torch.no_grad():
        for name in names:
            marks.get_parameter(name).copy_(module.get_parameter(name) == 0)
    marks = FilterPruning.redo(marks, result.architecture.edits[0], EXAMPLE)
    for name in names:
        zero = result.module.get_parameter(name) == 0
        assert torch.equal(zero, marks.get_parameter(name) == 1)
        assert 0.3 < zero.float().mean() < 0.7


def test_a_round_knows_the_next() -> None:
    step = FilterPruning(ratio=0.875, rounds=3, criterion="l2")
    second = step.next_round()
    assert second == FilterPruning(ratio=second.ratio, rounds=2, criterion="l2")
    third = second.next_round()
    assert (second.ratio, third.ratio) == pytest.approx((0.75, 0.5))
    assert third.rounds == 1
    assert third.next_round() is None
    assert FilterPruning(macs="1M", rounds=2).next_round() == FilterPruning(macs="1M")
    floored = FilterPruning(parameters="1M", rounds=3, scope="global", keep=0.125).next_round()
    assert floored.keep == pytest.approx(0.25)  # of what the first round leaves, which is at least half


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.6, 0.9])
def test_rounds_end_where_one_round_does(ratio: float) -> None:
    module = randomized(8)
    start, first, second, third = in_rounds(module, ratio=ratio, rounds=3)
    assert len(third.architecture.edits) == 3
    assert widths(third.module) == widths(pruned(module, ratio=ratio).module)
    share = (1 - ratio) ** (1 / 3)
    for before, after in itertools.pairwise([start, first, second, third]):
        for old, new in zip(widths(before.module), widths(after.module), strict=True):
            assert new == pytest.approx(share * old, abs=1.01)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(("key", "target"), [("parameters", "30k"), ("macs", "4M")])
def test_rounds_reach_a_target_in_equal_shares(key: str, target: str, scope: str) -> None:
    counted = count if key == "parameters" else lambda module: count_macs(module, EXAMPLE)
    counts = [counted(one.module) for one in in_rounds(randomized(8), rounds=3, scope=scope, **{key: target})]
    goal = read_count(target, key)
    for place, found in enumerate(counts):
        expected = counts[0] * (goal / counts[0]) ** (place / 3)
        assert 0.98 * expected <= found <= expected + 1
    assert 0.98 * goal <= counts[-1] <= goal


@pytest.mark.parametrize(("key", "target"), [("parameters", "70k"), ("parameters", "74k"), ("macs", "10M")])
def test_more_rounds_than_there_are_filters_to_remove_still_end_at_the_target(key: str, target: str) -> None:
    # Each round takes a filter at least, until another one would lead past the target: that one is the last round's.
    counted = count if key == "parameters" else lambda module: count_macs(module, EXAMPLE)
    networks = in_rounds(randomized(8), rounds=40, scope="global", **{key: target})
    counts, goal = [counted(one.module) for one in networks], read_count(target, key)
    assert len(networks) == 41
    assert min(counts[:-1]) > goal >= counts[-1]
    assert counts == sorted(counts, reverse=True)
    edits = [len(one.architecture.edits) for one in networks]
    shrank = [after < before for before, after in itertools.pairwise(counts)]
    assert [after > before for before, after in itertools.pairwise(edits)] == shrank, "an edit that changes nothing"


def test_rounds_together_leave_what_is_to_be_kept() -> None:
    module = chain([100.0] + [1.0 + 0.01 * i for i in range(63)], [1.0 + 0.01 * i for i in range(64)])
    final = in_rounds(module, ratio=0.5, rounds=3, scope="global", keep=0.25)[-1]
    assert sum(widths(final.module)) == 64
    assert min(widths(final.module)) >= 16


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("target", ["200k", "70k", "20k"])
def test_parameter_targets_are_met_within_two_percent(target: str, scope: str) -> None:
    found = count(pruned(cifar20(), parameters=target, scope=scope).module)
    assert 0.98 * read_count(target, "") <= found <= read_count(target, "")


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("target", ["20M", "5M"])
def test_mac_targets_are_met_within_two_percent(target: str, scope: str) -> None:
    module = pruned(cifar20(), macs=target, scope=scope).module
    # By hand: every output pixel of a convolution costs its inputs x 9, the classifier its weights.
    pixels = {"conv1": 1024, "layer1": 1024, "layer2": 256, "layer3": 64}
    found = module.linear.weight.numel() + sum(
        layer.weight.numel() * pixels[name.split(".")[0]]
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d)
    )
    assert 0.98 * read_count(target, "") <= found <= read_count(target, "")


def cifar20() -> nn.Module:
    torch.manual_seed(0)
    return cifar_resnet(depth=20, num_classes=10)


def test_no_filter_goes_that_a_target_does_not_ask_for() -> None:
    def cost(a: int, b: int) -> int:
        return 28 * a + (9 * a + 1) * b + 4 * b + 4

    module = chain([1.0 + i for i in range(12)], [1.0 + i for i in range(12)])
    assert count(module) == cost(12, 12)
    for target in (1600, 1234, 1000, 700, 400, 250, 100):
        a, b = widths(pruned(module, parameters=target).module)
        assert abs(a - b) <= 1
        assert cost(a, b) <= target
        assert cost(a, b) >= 0.99 * target or (cost(a + 1, b) > target and cost(a, b + 1) > target)
    assert widths(pruned(module, parameters=cost(7, 7)).module) == [7, 7]


def test_a_target_that_a_residual_stream_oversteps_is_still_met_closely() -> None:
    # One channel of the first stage's stream is 4.5 % of this network's multiplications.
    for target in ("10M", "4M"):
        found = count_macs(pruned(cifar20(), macs=target).module, EXAMPLE)
        assert 0.98 * read_count(target, "") <= found <= read_count(target, "")


@pytest.fixture(scope="module")
def resnet50() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet50(weights=None, num_classes=31)


@pytest.mark.parametrize("target", ["21.30M", "11.19M", "4.51M"])
def test_resnet50_gets_the_sizes_of_smaller_resnets(resnet50: nn.Module, target: str) -> None:
    assert round(count(resnet50) / 1e6, 2) == 23.57
    module = pruned(resnet50, LARGER, parameters=target).module
    assert 0.98 * read_count(target, "") <= count(module) <= read_count(target, "")
    assert module(LARGER).shape == (2, 31)
    assert module.fc.out_features == 31


def test_mobilenet_v2_at_half_width() -> None:
    build = torchvision.models.MobileNetV2
    result = pruned(build(num_classes=10), LARGER, ratio=0.5)
    # Its own width multiplier halves all but the last 1280 channels (each 160 inputs, 2 of the norm, 10 classes).
    assert count(result.module) == count(build(num_classes=10, width_mult=0.5, round_nearest=2)) - 640 * (160 + 2 + 10)
    depthwise = [one for one in result.module.modules() if isinstance(one, nn.Conv2d) and one.groups > 1]
    assert len(depthwise) == 17
    assert all(one.groups == one.in_channels == one.out_channels for one in depthwise)
    again = FilterPruning.redo(build(num_classes=10).eval(), result.architecture.edits[0], LARGER)
    again.load_state_dict(result.module.state_dict())
    assert torch.equal(again(LARGER), result.module(LARGER))
    smaller = pruned(build(num_classes=10), LARGER, parameters="1M").module
    assert 0.98e6 <= count(smaller) <= 1e6


def test_a_flattened_channel_goes_with_all_its_pixels() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 3, bias=False)
    pooled = [nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    linear = [nn.Linear(16, 6, bias=False), nn.ReLU(), nn.Linear(6, 4)]
    module = nn.Sequential(convolution, *pooled, *linear).eval()
    scaled(convolution, [3.0, 1.0, 4.0, 2.0])
    result = pruned(module, ratio=0.5)
    gone = removed(result)
    assert gone["0"] == [1, 3]
    assert result.module[4].in_features == 8
    torch.testing.assert_close(result.module(EXAMPLE), silenced(module, gone)(EXAMPLE))


def test_grouped_convolutions_keep_equal_blocks() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 12, 3, bias=False), nn.Conv2d(12, 12, 3, groups=2, bias=False)]
    module = nn.Sequential(*layers, *head(12)).eval()
    # Places 0 to 5 of both blocks: the means are 3.5, 2.5, 3.6, 2, 9, 9.
    scaled(layers[0], [6.0, 1.0, 5.0, 2.0, 9.0, 9.0, 1.0, 4.0, 2.2, 2.0, 9.0, 9.0])
    result = pruned(module, ratio=0.5)
    gone = removed(result)
    assert gone["0"] == [0, 1, 3, 6, 7, 9]
    assert sorted(i % 6 for i in gone["1"]) == sorted([i for i in gone["1"] if i < 6] * 2)
    assert (result.module[1].groups, result.module[1].in_channels, result.module[1].out_channels) == (2, 6, 6)
    torch.testing.assert_close(result.module(EXAMPLE), silenced(module, gone)(EXAMPLE))
    # A block of one would be taken for a depthwise convolution by the next step: two stay.
    assert widths(pruned(module, ratio=0.95).module) == [4, 4]


def test_transposed_convolutions_are_ranked_by_their_outputs() -> None:
    layer = nn.ConvTranspose2d(3, 4, 2, bias=False)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([2.0, 1.0, 4.0, 3.0]).view(1, 4, 1, 1)
    result = pruned(nn.Sequential(layer, *head(4)).eval(), ratio=0.5)
    assert removed(result) == {"0": [0, 1]}
    assert result.module[0].out_channels == 2


def test_the_original_is_left_alone() -> None:
    module = randomized()
    before = copy.deepcopy(module.state_dict())
    pruned(module, ratio=0.5)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"parameters": "9M"}, r"parameters = '9M', but the network has only \d+,\d+"),
        ({"macs": "9G"}, r"macs = '9G', but the network has only \d+,\d+,\d+"),
        ({"parameters": 12}, r"even ratio 0\.99 leaves more than 12 parameters"),
        ({"macs": 12, "scope": "global"}, r"even keep = 0\.1 of each layer leaves more than 12 macs"),
    ],
)
def test_what_cannot_be_done_is_said(parameters, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        pruned(randomized(8), **parameters)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_network_without_filters_is_refused(scope: str) -> None:
    with pytest.raises(CompressionError, match=r"ratio 0\.5 removes no filter"):
        pruned(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), ratio=0.5, scope=scope)


def test_a_network_whose_outputs_would_go_is_refused() -> None:
    class Misleading(nn.Module):
        """Its last layer by name is not the one that gives the classes."""

        def __init__(self) -> None:
            super().__init__()
            self.classes, self.first = nn.Linear(6, 4), nn.Conv2d(3, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.classes(self.first(x).mean(dim=(2, 3)))

    with pytest.raises(CompressionError, match=r"output's shape changed from \(2, 4\) to \(2, 2\)"):
        pruned(Misleading().eval(), ratio=0.5)


def test_a_network_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(CompressionError, match="Torch-Pruning cannot follow this network"):
        pruned(torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=4), LARGER, ratio=0.5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"give exactly one of ratio, parameters and macs, got \(none\)"),
        ({"ratio": 0.5, "parameters": 5}, "give exactly one of ratio, parameters and macs, got parameters, ratio"),
        ({"macs": 5, "parameters": 5}, "give exactly one of"),
        ({"ratio": 1.0}, "ratio must be above 0 and below 1, got 1"),
        ({"parameters": "4.51 MB"}, "parameters must be a count"),
        ({"macs": "many"}, "macs must be a count"),
        ({"ratio": 0.5, "criterion": "l3"}, "criterion must be l1, l2, taylor or random, got 'l3'"),
        ({"ratio": 0.5, "scope": "block"}, "scope must be layer or global, got 'block'"),
        ({"ratio": 0.5, "rounds": 0}, "rounds must be at least 1, got 0"),
        ({"ratio": 0.5, "keep": 1.0}, r"keep must be a share in \[0, 1\), got 1"),
        ({"ratio": 0.5, "taylor_images": 0}, "taylor_images must be at least 1, got 0"),
    ],
)
def test_bad_parameters_are_refused(parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FilterPruning(**parameters)
