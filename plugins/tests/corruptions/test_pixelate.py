"""Pixelation is Pillow's box filter, down and up, to the last bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from robustgate.corruptions.pixelate import Pixelate, boxes, resize
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
    first, count, weight = boxes(8, 4)
    assert first.tolist() == [0, 2, 4, 6]
    assert count.tolist() == [2, 2, 2, 2]
    assert weight.tolist() == [0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("count", [2, 3, 6, 7, 10, 12, 22, 48, 101, 224])
def test_single_precision_rounds_as_whole_numbers_do(count):
    # Every sum of so many levels, an image each: as many white pixels as fit, and the rest in the next one.
    sums = torch.arange(255 * count + 1)
    lines = (sums[:, None] - 255 * torch.arange(count)).clamp(0, 255)
    fixed = (sums * int((1 << 22) / count + 0.5) + (1 << 21)) >> 22
    assert torch.equal(resize(lines[:, None, None].float(), 1, 1).flatten().long(), fixed)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_levels_are_changed_alike(engine_step, layout):
    levels = torch.randint(256, (2, 3, 32, 45), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for severity in range(1, 6):
        ours = Pixelate().apply_to_levels(levels.contiguous(memory_format=layout), severity, SampleDraws(range(2)))
        assert np.array_equal(ours.permute(0, 2, 3, 1), engine_step(Pixelate(), levels / 255, severity))


def test_a_tiny_image_survives():
    image = torch.rand(1, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(Pixelate().apply(image, 5, SampleDraws([0])), image, atol=0.5 / 255)


@pytest.mark.parametrize("severity", range(1, 6))
def test_equals_the_published_generator(reference, severity):
    assert not reference.differences("pixelate", severity).any()
