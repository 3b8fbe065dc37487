"""The faster copy computes the same function, and a network that cannot be copied runs as it is."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from robustgate.engine.networks import Normalized
from robustgate.engine.subjects.swift import swift
from robustgate.zoo import cifar_resnet

FACTORIES = {
    "cifar_resnet": lambda: cifar_resnet(depth=8, num_classes=10),
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=10),
}


def settled(network: nn.Module) -> nn.Module:
    """Give batch normalisation statistics that fold into something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def flow(module: nn.Module, images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(leaf).logsumexp(dim=1).sum(), leaf)
    return gradient


@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_the_copy_has_the_same_logits_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    module = Normalized(settled(FACTORIES[name]()), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)).eval().requires_grad_(False)
    images = torch.rand(4, 3, 32, 32)
    before, kept = module(images), images.clone()
    copy = swift(module, images)
    assert copy is not module
    assert not any(isinstance(part, nn.BatchNorm2d) for part in copy.modules())
    # In double precision, where rounding hides nothing.
    torch.testing.assert_close(flow(copy.double(), images.double()), flow(module.double(), images.double()))
    torch.testing.assert_close(copy(images.double()), module(images.double()))
    assert torch.equal(images, kept)
    torch.testing.assert_close(module.float()(images), before)


class Deciding(nn.Module):
    """The way through it depends on the data: it cannot be traced."""

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean((2, 3))
        return means if bool(means.sum() > 0) else -means


class Moody(nn.Module):
    """Tracing freezes what it does by the size of its input, so that its copy answers otherwise."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * (2.0 if torch.is_grad_enabled() else 1.0)


class Remembering(nn.Module):
    """Its activation's gradient needs what the ReLU would write over."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(torch.sigmoid(self.convolution(images)) - 0.5).mean((2, 3))


@pytest.mark.parametrize("network", [Deciding(), Moody()], ids=["deciding", "moody"])
def test_what_cannot_be_copied_faithfully_runs_as_it_is(network: nn.Module) -> None:
    network.eval()
    assert swift(network, torch.rand(2, 3, 8, 8)) is network


def test_nothing_is_written_over_that_a_gradient_needs() -> None:
    torch.manual_seed(0)
    network = Remembering().eval().requires_grad_(False)
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(flow(swift(network, images), images), flow(network, images))
