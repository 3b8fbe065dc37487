"""A published network loses on our corruptions what it loses on the published generator's.

30 cells of 1,000 images: half a minute on one core.
"""

import csv

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from robustgate.core.catalog import shelf
from robustgate.zoo import cifar_resnet

# Measured: equal, but for 0.2 points in one cell of defocus_blur. Half a point leaves room for another CPU's sums.
EXACT = 0.005
# Measured: up to 0.9, and 2.1 in fog at severity 4. Twelve draws of ours, and of the algorithm written anew, spread by
# 0.4 points there about 84.7 %: the published cell, 83.2 %, is itself a rare draw.
DRAWN = 0.025
RANDOM = {"gaussian_noise", "fog"}


@pytest.fixture(scope="module")
def samples(real_data):
    arrays = np.load(real_data / "cifar" / "cifar10_test_2000.npz")
    rows = np.concatenate([np.flatnonzero(arrays["labels"] == label)[:100] for label in range(10)])
    images = torch.from_numpy(arrays["images"][rows]).permute(0, 3, 1, 2).float() / 255
    return images, torch.from_numpy(arrays["labels"][rows])


@pytest.fixture(scope="module")
def accuracy(real_data, samples):
    """A function from uint8 images (1000, 32, 32, 3) to the published ResNet-20's accuracy."""
    network = cifar_resnet(depth=20, num_classes=10)
    network.load_state_dict(load_file(real_data / "weights" / "cifar10_resnet20.safetensors"))
    network.eval()
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]

    @torch.inference_mode()
    def measure(levels):
        batches = torch.from_numpy(levels).permute(0, 3, 1, 2).float().div(255).sub(mean).div(std).split(50)
        predicted = torch.cat([network(batch).argmax(dim=1) for batch in batches])
        return (predicted == samples[1]).double().mean().item()

    return measure


@pytest.fixture(scope="module")
def published(real_data):
    with (real_data / "cifar10c_reference_accuracy_resnet20.csv").open(newline="") as file:
        return {(row["corruption"], int(row["severity"])): float(row["accuracy"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", shelf("corruptions").names)
def test_accuracy_agrees_with_the_published_generator(name, samples, accuracy, published, engine_step):
    if (name, 1) not in published:
        pytest.skip(f"{name} is not among the published corruptions")
    component = shelf("corruptions").component(name)()
    tolerance = DRAWN if name in RANDOM else EXACT
    for severity in range(1, 6):
        measured = accuracy(engine_step(component, samples[0], severity, seed=severity))
        assert measured == pytest.approx(published[name, severity], abs=tolerance), f"{name} at severity {severity}"
