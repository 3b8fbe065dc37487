"""Networks to quantize, a workshop that is just enough for it, and what files and modules answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robustgate.compression.static_quantization import StaticQuantization
from robustgate.core.components import Architecture, Constraint, Network, Samples
from robustgate.twin.graph import Twin
from robustgate.zoo.cifar_resnet import cifar_resnet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalizing(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


@dataclass
class Bench:
    """As much of a workshop as a quantizer needs."""

    images: np.ndarray
    folder: Path

    @property
    def example(self) -> Tensor:
        return as_tensor(self.images[:2])

    def samples(self, split: str) -> Samples:
        assert split == "calibration"
        count = len(self.images)
        return Samples(
            images=self.images, labels=np.zeros(count, np.int64), classes=("one", "two"), names=("drawn",) * count
        )


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)


def network_of(module: nn.Module) -> Network:
    return Network(module=module.eval(), architecture=Architecture(build="a:b", args={}, mean=MEAN, std=STD))


def noisy_images(count: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def small_network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return network_of(Normalizing(cifar_resnet(depth=8, num_classes=5, width=8)))


def quantize(network: Network, folder: Path, images: np.ndarray | None = None, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    images = noisy_images(24) if images is None else images
    options.setdefault("calibration_images", len(images))
    return StaticQuantization(**options).apply(network, Bench(images, folder)).path


def logits_of_file(path: Path, images: Tensor, batch: int = 100) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (entry.name for entry in session.get_inputs())
    return np.concatenate([session.run(None, {name: part.numpy()})[0] for part in images.split(batch)])


def logits_of_module(module: nn.Module, images: Tensor) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([module(part) for part in images.split(100)]).numpy()


def resnet20(real_data: Path) -> Network:
    """The published CIFAR-10 ResNet-20."""
    module = cifar_resnet(depth=20, num_classes=10)
    module.load_state_dict(load_file(real_data / "weights" / "cifar10_resnet20.safetensors"), strict=False)
    return network_of(Normalizing(module))


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {value.name: onnx.numpy_helper.to_array(value) for value in onnx.load(path).graph.initializer}


def agreement(path: Path, images: Tensor) -> tuple[float, float]:
    """The share of images on which file and twin agree, and the largest difference of a logit."""
    found, twin = logits_of_file(path, images), logits_of_module(Twin.from_file(path), images)
    return float(np.mean(found.argmax(1) == twin.argmax(1))), float(np.abs(found - twin).max())


def weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in module.named_parameters() if weight.dim() > 1}


@torch.no_grad()
def pruned(network: Network, share: float) -> Network:
    """Make the smallest weights of each layer zero, as a step would that leaves the constraint."""
    weights = weights_of(network.module)
    for weight in weights.values():
        weight[weight.abs() <= weight.abs().quantile(share)] = 0
    return replace(network, constraints=(*network.constraints, Constraint(kind="zeros", parameters=tuple(weights))))


@torch.no_grad()
def round_to_clusters(network: Network, count: int) -> Network:
    """Give each layer `count` values, evenly spaced and different from layer to layer; zero is among odd counts."""
    weights = weights_of(network.module)
    for weight in weights.values():
        values = torch.linspace(-1, 1, count) * weight.abs().quantile(0.97)
        weight.copy_(values[(weight[..., None] - values).abs().argmin(-1)])
    return replace(network, constraints=(*network.constraints, Constraint(kind="clusters", parameters=tuple(weights))))


@torch.no_grad()
def with_factors_of_either_sign(network: Network) -> Network:
    torch.manual_seed(1)
    for layer in network.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.copy_(torch.where(torch.rand(len(layer.weight)) < 0.3, -1, 1) * layer.weight.uniform_(0.5, 2))
            layer.bias.normal_()
            layer.running_var.uniform_(0.5, 2)
    return network
