"""Zoom blur is the mean of an image and its zooms."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from robustgate.corruptions._zoom import centre, enlarging
from robustgate.corruptions.zoom_blur import FACTORS, ZoomBlur


@pytest.mark.parametrize("side", [8, 9, 32, 57, 224])
@pytest.mark.parametrize("factor", [1.0, 1.01, 1.05, 1.25, 1.75, 2.25, 3.0, 4.5])
def test_enlarging_is_scipys_linear_zoom_of_the_centre(side, factor):
    start, kept = centre(side, factor)
    line = np.random.default_rng(0).random(side)[start : start + kept]
    zoomed = ndimage.zoom(line, factor, order=1)
    surplus = (len(zoomed) - side) // 2
    assert np.allclose(enlarging(side, factor) @ line, zoomed[surplus : surplus + side], atol=1e-9)


def slowly(image, end, step):
    """Return the zoom blur of one image (3, H, W): the published way, zoom after zoom."""
    sides = image.shape[1:]
    total = image.copy()
    factors = np.arange(1, end, step)
    for factor in factors:
        middle = tuple(slice(start, start + kept) for start, kept in (centre(side, factor) for side in sides))
        zoomed = ndimage.zoom(image[:, *middle], (1, factor, factor), order=1)
        top, left = ((got - side) // 2 for got, side in zip(zoomed.shape[1:], sides, strict=True))
        total += zoomed[:, top : top + sides[0], left : left + sides[1]]
    return total / (len(factors) + 1)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 40), (90, 72)])
@pytest.mark.parametrize("severity", range(1, 6))
def test_equals_the_mean_of_the_zooms(height, width, severity):
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    ours = ZoomBlur().apply(images, severity, None).numpy()
    for before, after in zip(images.double().numpy(), ours, strict=True):
        assert np.allclose(after, slowly(before, *FACTORS.at(severity, min(height, width))), atol=1e-5)


@pytest.mark.parametrize("severity", range(1, 6))
def test_a_ramp_becomes_less_steep(severity):
    columns = torch.arange(100) / 100
    blurred = ZoomBlur().apply(columns.expand(1, 3, 80, -1), severity, None)
    factors = np.arange(1, *FACTORS.at(severity, 80))
    kept = np.ceil(100 / factors)
    slopes = (kept - 1) / (np.round(kept * factors) - 1)
    expected = (1 + slopes.sum()) / (len(factors) + 1) / 100
    assert torch.allclose(blurred.diff(dim=3), torch.tensor(expected).float(), atol=1e-6)
    assert blurred.diff(dim=2).abs().max() < 1e-6


@pytest.mark.parametrize("severity", range(1, 6))
def test_agrees_with_the_published_generator(reference, severity):
    differences = np.abs(reference.differences("zoom_blur", severity))
    assert differences.max() <= 1
    assert differences.mean(axis=(1, 2, 3)).max() < 0.05
    assert differences.mean() < 0.004
