"""JPEG at the published qualities."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from robustgate.corruptions.jpeg_compression import QUALITY, JpegCompression
from robustgate.engine.draws import SampleDraws


@pytest.mark.parametrize("severity", range(1, 6))
def test_a_grey_surface_survives(severity):
    flat = torch.full((1, 3, 32, 32), 128 / 255)
    assert torch.equal(JpegCompression().apply(flat, severity, SampleDraws([0])), flat)


def test_levels_are_changed_alike(engine_step):
    levels = torch.randint(256, (2, 3, 24, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for layout in (torch.contiguous_format, torch.channels_last):
        ours = JpegCompression().apply_to_levels(levels.contiguous(memory_format=layout), 3, SampleDraws(range(2)))
        assert np.array_equal(ours.permute(0, 2, 3, 1), engine_step(JpegCompression(), levels / 255, 3))


@pytest.mark.parametrize("severity", range(1, 6))
def test_large_images_equal_pillow(engine_step, severity):
    images = np.random.default_rng(1).integers(0, 256, (2, 100, 224, 3), np.uint8).cumsum(axis=2).astype(np.uint8)
    ours = engine_step(JpegCompression(), torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, severity)
    for before, after in zip(images, ours, strict=True):
        file = io.BytesIO()
        Image.fromarray(before).save(file, "JPEG", quality=QUALITY.imagenet[severity - 1])
        assert np.array_equal(after, np.asarray(Image.open(file)))


def test_colour_has_half_the_resolution():
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::2] = 1
    contrast = {}
    for name, channels in {"grey": [0, 1, 2], "blue": [2]}.items():
        image = torch.full((1, 3, 32, 32), 0.5)
        image[:, channels] = 0.25 + 0.5 * stripes[:, channels]
        result = JpegCompression().apply(image, 1, SampleDraws([0]))
        contrast[name] = (result[..., ::2] - result[..., 1::2])[:, channels].mean().item()
    assert contrast["grey"] == pytest.approx(0.5, abs=0.05)
    # Blue has a brightness of its own, 0.11, which keeps its resolution; its colour is averaged away.
    assert contrast["blue"] < 0.15


@pytest.mark.parametrize("severity", range(1, 6))
def test_equals_the_published_generator(reference, severity):
    # Exact with the libjpeg-turbo of Pillow's wheels; another build of libjpeg may round a few values differently.
    differences = reference.differences("jpeg_compression", severity)
    assert (differences == 0).mean() > 0.999
    assert abs(differences).max() <= 2
