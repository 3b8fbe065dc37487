"""What the tests of this shelf share: the published generator's arrays, and the engine's last step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from robustgate.core.catalog import shelf
from robustgate.engine.draws import SampleDraws


def truncate(images):
    """Clip and truncate to 8 bits as the engine does: (N, 3, H, W) in [0, 1] to uint8 (N, H, W, 3)."""
    return (images.clamp(0, 1) * 255).floor().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def corrupt(component, images, severity, seed=0):
    """Return what the engine shows to a model, uint8 (N, H, W, 3)."""
    seeds = range(seed * len(images), (seed + 1) * len(images))
    return truncate(component.apply(images, severity, SampleDraws(seeds)))


@dataclass(frozen=True)
class Reference:
    """32 images and what the published generator made of them; `images` is (32, 3, 32, 32) in [0, 1]."""

    arrays: Any
    images: Any

    def differences(self, name, severity):
        """Return ours minus theirs in grey levels, int (32, 32, 32, 3)."""
        ours = corrupt(shelf("corruptions").component(name)(), self.images, severity)
        return ours.astype(int) - self.arrays[name][severity - 1]

    def shift(self, corrupted):
        """Return what a corruption did, in grey levels, float (32, 32, 32, 3)."""
        return corrupted.astype(float) - self.arrays["images"]


@pytest.fixture(scope="session")
def reference(real_data):
    arrays = dict(np.load(real_data / "cifar10c_reference_32.npz"))
    images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).float() / 255
    return Reference(arrays=arrays, images=images)


@pytest.fixture(scope="session")
def engine_step():
    return corrupt
