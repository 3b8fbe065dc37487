"""The published ResNet-20 of CIFAR-10, and test images to attack it on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from closed_forms import CPU, Ground
from safetensors.torch import load_file

from robustgate.core.components import Samples
from robustgate.engine.networks import Normalized
from robustgate.engine.subjects import TorchSubject
from robustgate.zoo import cifar_resnet


def resnet20(real_data: Path) -> Normalized:
    """Return the network, which maps images in [0, 1] to logits."""
    network = cifar_resnet(depth=20, num_classes=10)
    network.load_state_dict(load_file(real_data / "weights" / "cifar10_resnet20.safetensors"))
    return Normalized(network, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@cache
def published(real_data: Path, per_class: int) -> Ground:
    """Return the network with the first `per_class` test images of each class."""
    with np.load(real_data / "cifar" / "cifar10_test_2000.npz") as arrays:
        rows = np.concatenate([np.flatnonzero(arrays["labels"] == label)[:per_class] for label in range(10)])
        samples = Samples(
            images=arrays["images"][rows],
            labels=arrays["labels"][rows],
            classes=tuple(arrays["classes"]),
            names=tuple(map(str, rows)),
        )
    # torchattacks reshapes by view: it needs contiguous images.
    images = torch.tensor(samples.images).permute(0, 3, 1, 2).contiguous().float() / 255
    return Ground(TorchSubject(resnet20(real_data), CPU), samples, images)
