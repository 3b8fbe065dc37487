"""Pixelation is Pillow's box filter, down and up, to the last bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from robustgate.corruptions.pixelate import Pixelate, box_weights, resize
from robustgate.engine.draws import SampleDraws


def with_pillow(image, *sizes):
    picture = Image.fromarray(image)
    for height, width in sizes:
        picture = picture.resize((width, height), Image.Resampling.BOX)
    return np.asarray(picture)


@pytest.mark.parametrize("size", [(1, 1), (7, 31), (20, 24), (30, 17), (32, 32), (33, 64), (57, 101)])
def test_resize_equals_pillow(size):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 45, 3), np.uint8)
    ours = resize(torch.from_numpy(images).permute(0, 3, 1, 2).double(), *size)
    theirs = np.stack([with_pillow(image, size) for image in images])
    assert np.array_equal(ours.permute(0, 2, 3, 1).numpy(), theirs)


@pytest.mark.parametrize(("severity", "small"), [(1, 134), (3, 89), (5, 56)])
def test_large_images_equal_pillow(engine_step, severity, small):
    images = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), np.uint8)
    ours = engine_step(Pixelate(), torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, severity)
    theirs = np.stack([with_pillow(image, (small, small), (224, 224)) for image in images])
    assert np.array_equal(ours, theirs)


def test_halving_averages_pairs():
    weights = box_weights(8, 4) / (1 << 22)
    assert np.array_equal(weights, np.kron(np.eye(4), [[0.5, 0.5]]))


def test_a_tiny_image_survives():
    image = torch.rand(1, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(Pixelate().apply(image, 5, SampleDraws([0])), image, atol=0.5 / 255)


@pytest.mark.parametrize("severity", range(1, 6))
def test_equals_the_published_generator(reference, severity):
    assert not reference.differences("pixelate", severity).any()
