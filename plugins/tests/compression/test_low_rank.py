"""Low-rank factorisation: the nearest matrix of that rank, exactly, in fewer parameters."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from robustgate.compression.low_rank import LowRank
from robustgate.core.components import Architecture, Edit, Network
from robustgate.core.counts import count_parameters
from robustgate.core.errors import CompressionError
from robustgate.zoo import cifar_resnet

ALMOST_ALL = 1 - 1e-9


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def apply(module: nn.Module, example: Tensor, **parameters) -> Network:
    architecture = Architecture(build="x:y", args={}, mean=(0,) * 3, std=(1,) * 3)
    network = Network(module=module.eval(), architecture=architecture)
    return LowRank(**parameters).apply(network, SimpleNamespace(example=example, seed=0))


def of_rank(layer: nn.Module, rank: int) -> nn.Module:
    """Give a layer random weights whose matrix has this rank."""
    rows, columns = layer.weight.flatten(1).shape
    with torch.no_grad():
        layer.weight.copy_(
            (draw(rows, rank, seed=1) @ draw(rank, columns, seed=2)).view_as(layer.weight) / columns**0.5
        )
    return layer


def ranks(network: Network) -> dict[str, int]:
    (edit,) = network.architecture.edits
    assert edit.method == "low_rank"
    return dict(edit.payload["ranks"])


def product(pair: nn.Sequential) -> Tensor:
    """Return the matrix that two factors stand for."""
    return (pair[1].weight.flatten(1) @ pair[0].weight.flatten(1)).detach()


CONVOLUTIONS = {
    "plain": nn.Conv2d(12, 20, 3),
    "tall": nn.Conv2d(4, 60, 3, padding=1, bias=False),
    "strided": nn.Conv2d(12, 20, (5, 3), stride=(2, 3), padding=(2, 1)),
    "dilated": nn.Conv2d(12, 20, 3, padding="same", dilation=2),
    "reflected": nn.Conv2d(12, 20, 3, padding=2, padding_mode="reflect"),
    "pointwise": nn.Conv2d(40, 30, 1),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("wish", [{"energy": ALMOST_ALL}, {"ratio": 0.2}])
def test_a_convolution_of_low_rank_is_reproduced(kind: str, wish: dict[str, float]) -> None:
    layer = of_rank(copy.deepcopy(CONVOLUTIONS[kind]), 3)
    full = min(layer.weight.flatten(1).shape)
    images = draw(2, layer.in_channels, 11, 13)
    result = apply(nn.Sequential(layer), images, **wish)
    assert ranks(result) == {"0": 3 if "energy" in wish else round(0.2 * full)}
    torch.testing.assert_close(result.module(images), layer(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(40, 25), (25, 40)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_low_rank_is_reproduced(inputs: int, outputs: int, bias: bool) -> None:
    layer = of_rank(nn.Linear(inputs, outputs, bias=bias), 4)
    rows = draw(7, inputs)
    result = apply(nn.Sequential(layer), rows, energy=ALMOST_ALL)
    assert ranks(result) == {"0": 4}
    torch.testing.assert_close(result.module(rows), layer(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(60, 30), nn.Linear(30, 60), nn.Conv2d(6, 40, 3), nn.Conv2d(9, 8, 3)])
def test_the_error_is_the_discarded_singular_values(layer: nn.Module) -> None:
    # Eckart and Young: no matrix of that rank is nearer, and its distance is the norm of what was cut off.
    matrix = layer.weight.detach().flatten(1)
    values = torch.linalg.svdvals(matrix.double())
    result = apply(nn.Sequential(layer), draw(2, *layer.weight.shape[1:]), ratio=0.25)
    rank = ranks(result)["0"]
    assert rank == round(0.25 * min(matrix.shape))
    error = float((product(result.module[0]).double() - matrix).norm())
    assert error == pytest.approx(float(values[rank:].norm()), rel=1e-5)
    # Both factors carry the roots of the singular values.
    first, second = (part.weight.detach().flatten(1) for part in result.module[0])
    torch.testing.assert_close(first.norm(dim=1).double(), values[:rank].sqrt(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(second.norm(dim=0).double(), values[:rank].sqrt(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("energy", "rank"), [(0.5, 1), (0.63, 1), (0.65, 2), (0.95, 3), (0.98, 3), (0.99, 4)])
def test_the_rank_is_the_smallest_that_reaches_the_energy(energy: float, rank: int) -> None:
    # Squared singular values 16, 6, 2.6, 0.4: 64, 88, 98.4 and 100 % of 25.
    layer = nn.Linear(24, 24)
    squares = torch.zeros(24)
    squares[:4] = torch.tensor([16, 6, 2.6, 0.4])
    left, right = (torch.linalg.qr(draw(24, 24, seed=seed)).Q for seed in (1, 2))
    with torch.no_grad():
        layer.weight.copy_(left @ torch.diag(squares.sqrt()) @ right)
    assert ranks(apply(nn.Sequential(layer), draw(1, 24), energy=energy)) == {"0": rank}


def test_the_parameters_saved_are_those_counted_by_hand() -> None:
    module = nn.Sequential(
        nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=4), nn.Flatten(), nn.Linear(32, 10)
    )
    images = draw(2, 16, 5, 5)
    result = apply(module, images, ratio=0.25)
    assert ranks(result) == {"0": 8, "4": 2}
    assert count_parameters(module) == (16 * 9 * 32 + 32) + (8 * 9 * 32 + 32) + (32 * 10 + 10)
    assert count_parameters(result.module) == (16 * 9 * 8 + 8 * 32 + 32) + (8 * 9 * 32 + 32) + (32 * 2 + 2 * 10 + 10)
    assert result.module(images).shape == (2, 10)


def test_only_layers_that_become_smaller_are_replaced() -> None:
    # At half of its rank a square layer holds as many weights as before: not fewer, so it stays.
    module = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 120))
    result = apply(module, draw(2, 40), ratio=0.5)
    assert ranks(result) == {"1": 20}
    assert isinstance(result.module[0], nn.Linear)
    with pytest.raises(
        CompressionError, match=r"low_rank: expected a layer that becomes smaller at ratio 0.5, found none"
    ):
        apply(module[:1], draw(2, 40), ratio=0.5)
    with pytest.raises(CompressionError, match=r"smaller at energy 0.999, found none"):
        apply(module[:1], draw(2, 40), energy=0.999)


def test_depthwise_convolutions_and_subclasses_are_left_alone() -> None:
    module = nn.Sequential(nn.Conv2d(32, 32, 3, groups=32), nn.Conv2d(32, 32, 1))
    result = apply(module, draw(2, 32, 5, 5), ratio=0.1)
    assert ranks(result) == {"1": 3}
    assert torch.equal(result.module[0].weight, module[0].weight)

    class Attended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)  # it reads the weight of its own last layer
            self.head = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x)[0])

    assert ranks(apply(Attended(), draw(2, 5, 16), ratio=0.1)) == {"head": 2}


def test_a_network_that_reads_its_layers_weights_is_refused() -> None:
    class Reads(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 3)
            self.inner = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.inner.weight

    with pytest.raises(CompressionError, match="low_rank: the network does not run with layers replaced"):
        apply(nn.Sequential(Reads()), draw(2, 16), ratio=0.1)


@pytest.mark.parametrize("wish", [{"energy": 0.9}, {"ratio": 0.3}])
def test_the_same_network_comes_back_from_json(wish: dict[str, float]) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    module = cifar_resnet(depth=20, num_classes=10)
    before = copy.deepcopy(module.state_dict())
    result = apply(module, images, **wish)
    assert count_parameters(result.module) < count_parameters(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    payload = json.loads(json.dumps(dict(result.architecture.edits[0].payload)))
    stream = torch.random.get_rng_state()
    fresh = cifar_resnet(depth=20, num_classes=10).eval()
    moved = torch.random.get_rng_state()
    assert not torch.equal(stream, moved)
    again = LowRank.redo(fresh, Edit(method="low_rank", payload=payload), images)
    assert torch.equal(torch.random.get_rng_state(), moved)
    again.load_state_dict(result.module.state_dict())
    assert torch.equal(again(images), result.module(images))


def test_zero_weights_give_zero_and_no_nan() -> None:
    layer = nn.Linear(20, 20)
    nn.init.zeros_(layer.weight)
    for wish in ({"energy": 0.9}, {"ratio": 0.3}):
        result = apply(nn.Sequential(layer), draw(2, 20), **wish)
        assert torch.equal(result.module(draw(2, 20)), layer(draw(2, 20)))


def test_redo_refuses_another_kind_of_layer() -> None:
    edit = Edit(method="low_rank", payload={"ranks": {"0": 2}})
    with pytest.raises(CompressionError, match="expected a linear layer or a convolution, got ReLU"):
        LowRank.redo(nn.Sequential(nn.ReLU()), edit, draw(2, 3))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "give either energy or ratio"),
        ({"energy": 0.9, "ratio": 0.5}, "give either energy or ratio"),
        ({"energy": 1.0}, "energy must be above 0 and below 1, got 1"),
        ({"ratio": 0.0}, "ratio must be above 0 and below 1, got 0"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LowRank(**parameters)
