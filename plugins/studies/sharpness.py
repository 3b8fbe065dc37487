"""How steep the loss is around a network's weights: the figure that sharpness-aware training is to lower."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustgate.core.components import Samples
from robustgate.engine.data import as_tensor

RADIUS, STEPS, IMAGES = 0.05, 5, 500


def sharpness(module: nn.Module, samples: Samples, device: torch.device) -> float:
    """Return how much the mean cross-entropy rises at most within RADIUS of the weights (l2, all together).

    By projected ascent, the first step of which is SAM's. The network is in eval mode: batch normalisation does not
    follow. The papers leave radius and search open.
    """
    network = copy.deepcopy(module).to(device).eval().requires_grad_(True)
    rows = slice(0, IMAGES)
    images, labels = as_tensor(samples, rows, device)
    weights = [one for one in network.parameters() if one.requires_grad]
    start = [one.detach().clone() for one in weights]
    rises = [0.0]
    calm = float(_loss(network, images, labels).detach())
    for _ in range(STEPS):
        gradients = torch.autograd.grad(_loss(network, images, labels), weights, allow_unused=True)
        moves = [torch.zeros_like(one) if flow is None else flow for one, flow in zip(weights, gradients, strict=True)]
        with torch.no_grad():
            ahead = [
                one - was + RADIUS * _unit(moves) * move for one, was, move in zip(weights, start, moves, strict=True)
            ]
            shrink = min(1.0, RADIUS * float(_unit(ahead)))
            for one, was, step in zip(weights, start, ahead, strict=True):
                one.copy_(was + shrink * step)
            rises.append(float(_loss(network, images, labels)) - calm)
    return max(rises)


def _loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(network(images), labels)


def _unit(values: list[Tensor]) -> Tensor:
    """Return what makes values of the length one."""
    norm: Tensor = torch.stack([one.norm() for one in values]).norm()
    return 1 / norm.clamp_min(1e-12)
