"""The sharpness that the study tells, where it has a closed form: a linear network of two classes, one image."""

import math

import numpy as np
import pytest
import torch
from sharpness import RADIUS, sharpness
from torch import nn

from robustgate.core.components import Samples


@pytest.mark.parametrize("scale", [0.0, 1.0, -3.0])
def test_a_linear_network_s_loss_rises_along_the_image(scale: float) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    samples = Samples(images=images, labels=np.array([0]), classes=("a", "b"), names=("drawn",))
    flat = torch.from_numpy(images).permute(0, 3, 1, 2).flatten().double() / 255
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 2, bias=False))
    with torch.no_grad():
        module[1].weight.copy_(scale * torch.stack([flat, -flat]) / flat.square().sum())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    # The margin is (w_0 - w_1) x, and falls most where both rows move along x: by r sqrt(2) |x|.
    margin = 2 * scale
    worst = margin - RADIUS * math.sqrt(2) * float(flat.norm())
    expected = math.log1p(math.exp(-worst)) - math.log1p(math.exp(-margin))
    assert sharpness(module, samples, torch.device("cpu")) == pytest.approx(expected, rel=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
