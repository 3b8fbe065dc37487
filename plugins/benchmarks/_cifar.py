"""What attacks are measured on: the published ResNet-20 and CIFAR-10's test images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from robustgate.core.components import Attack, Samples
from robustgate.engine.adversarial import Terms, measure_adversarial
from robustgate.engine.measure import Outcome
from robustgate.engine.networks import Normalized
from robustgate.engine.subjects import TorchSubject
from robustgate.zoo import cifar_resnet

DATA = Path(os.environ.get("ROBUSTGATE_DATA", ""))


def network() -> TorchSubject:
    """Return the published ResNet-20."""
    module = cifar_resnet(depth=20, num_classes=10)
    module.load_state_dict(load_file(DATA / "weights" / "cifar10_resnet20.safetensors"))
    return TorchSubject(Normalized(module, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), torch.device("cpu"))


def pictures() -> Samples:
    """Return the 2,000 test images, the classes in turn: of any first n, each has its tenth."""
    with np.load(DATA / "cifar" / "cifar10_test_2000.npz", allow_pickle=False) as arrays:
        images, labels, classes = (arrays[key] for key in ("images", "labels", "classes"))
    rows = np.concatenate(list(zip(*(np.flatnonzero(labels == label) for label in range(10)), strict=False))).ravel()
    return part(Samples(images=images, labels=labels, classes=tuple(classes), names=("",) * len(labels)), rows)


def part(samples: Samples, rows: Any) -> Samples:
    """Return some of the samples."""
    images, labels = samples.images[rows], samples.labels[rows]
    return Samples(images=images, labels=labels, classes=samples.classes, names=("",) * len(labels))


def as_images(samples: Samples) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, H, W) in [0, 1], contiguous, and labels."""
    return torch.tensor(samples.images).permute(0, 3, 1, 2).contiguous().float() / 255, torch.tensor(samples.labels)


def attacked(subject: TorchSubject, samples: Samples, attack: Attack, terms: Terms | None = None) -> Outcome:
    """Attack with ours."""
    return measure_adversarial(subject, samples, "ours", lambda *_: None, attack, seed=7, terms=terms)
