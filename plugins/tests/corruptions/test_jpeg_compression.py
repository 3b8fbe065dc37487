"""JPEG at the published qualities."""

import pytest
import torch

from robustgate.corruptions.jpeg_compression import JpegCompression
from robustgate.engine.draws import SampleDraws


@pytest.mark.parametrize("severity", range(1, 6))
def test_a_grey_surface_survives(severity):
    flat = torch.full((1, 3, 32, 32), 128 / 255)
    assert torch.equal(JpegCompression().apply(flat, severity, SampleDraws([0])), flat)


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
