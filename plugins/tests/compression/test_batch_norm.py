"""Folding batch normalisation: the network computes the same, and each factor is gamma / sqrt(variance + eps)."""

from __future__ import annotations

import copy

import pytest
import torch
from quantized_files import as_tensor, noisy_images
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from robustgate.compression._batch_norm import fold
from robustgate.core.errors import CompressionError

IMAGES = as_tensor(noisy_images(4))


def drawn(module: nn.Module) -> nn.Module:
    """Give every batch normalisation statistics and factors of its own, some of them negative."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            if layer.affine:
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
    return module.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in module.modules())


class Shared(nn.Module):
    """One convolution, read by two batch normalisations at once or one after the other."""

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.twice = twice

    def forward(self, images: Tensor) -> Tensor:
        found = self.conv(images)
        return self.second(self.conv(self.first(found)) if self.twice else found + self.first(found)).mean((2, 3))


CASES = {
    "convolution": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 0),
    "without bias": (nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6)), 0),
    "without gamma": (nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4, affine=False)), 0),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(768, 4), nn.BatchNorm1d(4)), 0),
    "before": (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)), 1),
    "behind a ReLU": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 1),
    "on another axis": (nn.Sequential(nn.Flatten(2), nn.Linear(256, 4), nn.BatchNorm1d(3)), 1),
    "of the batch": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), 1),
    "read twice": (Shared(twice=False), 2),
    "used twice": (Shared(twice=True), 2),
}


@pytest.mark.parametrize(("module", "left"), CASES.values(), ids=CASES)
def test_a_folded_network_computes_the_same(module: nn.Module, left: int):
    if any(getattr(layer, "track_running_stats", True) is False for layer in module.modules()):
        module = module.eval()
    else:
        module = drawn(module)
    before = copy.deepcopy(module.state_dict())
    folded = fold(module, IMAGES[:2], method="mine")
    torch.testing.assert_close(folded.module(IMAGES), module(IMAGES), atol=1e-5, rtol=1e-4)
    assert norms(folded.module) == left
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert len(folded.factors) == (left == 0)


def test_a_factor_is_gamma_over_the_deviation_and_never_quite_zero():
    module = drawn(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    with torch.no_grad():
        module[1].weight[0] = 0
        module[1].weight[1] = -2
    folded = fold(module, IMAGES[:2], method="mine")
    assert folded.weights == ("0.weight",)
    factor = folded.factors["0.weight"]
    expected = module[1].weight / (module[1].running_var + module[1].eps).sqrt()
    torch.testing.assert_close(factor[1:], expected[1:])
    assert factor[0] == pytest.approx(1e-12)
    torch.testing.assert_close(folded.module[0].weight, module[0].weight * factor[:, None, None, None])


def test_weights_are_listed_once_and_only_where_they_are_used():
    module = Shared(twice=True)
    module.spare = nn.Conv2d(3, 3, 1)
    assert fold(module.eval(), IMAGES[:2], method="mine").weights == ("conv.weight",)


def test_a_computed_weight_is_refused():
    module = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3))).eval()
    with pytest.raises(CompressionError, match="mine: expected weights that are parameters, got one that is computed"):
        fold(module, IMAGES[:2], method="mine")


def test_a_network_that_cannot_be_traced_is_refused_in_one_line():
    class Branching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    with pytest.raises(CompressionError, match="mine: the network cannot be exported: ") as caught:
        fold(Branching(), IMAGES[:2], method="mine")
    assert "\n" not in str(caught.value)
