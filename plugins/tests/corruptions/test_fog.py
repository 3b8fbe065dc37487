"""Fog is a diamond-square cloud of the published roughness and weight."""

import numpy as np
import pytest
import torch

from robustgate.corruptions.fog import LAYER, Fog, plasma
from robustgate.engine.draws import SampleDraws


def diamond_square(numbers, side, decay):
    """Return one cloud, point by point: the slow and obvious way."""
    cloud, drawn, step, wibble = np.zeros((side, side)), iter(numbers), side, 100.0
    while step >= 2:
        half, starts = step // 2, range(0, side, step)
        for down, right, neighbours in (
            (half, half, ((-half, -half), (-half, half), (half, -half), (half, half))),
            (0, half, ((-half, 0), (half, 0), (0, -half), (0, half))),
            (half, 0, ((-half, 0), (half, 0), (0, -half), (0, half))),
        ):
            for y in starts:
                for x in starts:
                    row, column = y + down, x + right
                    around = [cloud[(row + i) % side, (column + j) % side] for i, j in neighbours]
                    cloud[row, column] = sum(around) / 4 + wibble * wibble * next(drawn)
        step, wibble = half, wibble / decay
    return (cloud - cloud.min()) / (cloud.max() - cloud.min())


@pytest.mark.parametrize(("side", "decay"), [(2, 3.0), (8, 2.0), (32, 1.75), (32, 3.0)])
def test_the_cloud_equals_the_obvious_algorithm(side, decay):
    ours = plasma(SampleDraws([3, 4]), side, decay).numpy()
    numbers = SampleDraws([3, 4]).integers(side * side - 1).double().numpy() / 2**15
    for cloud, drawn in zip(ours, numbers, strict=True):
        assert np.allclose(cloud, diamond_square(drawn, side, decay), atol=1e-5)


def test_one_pixel_has_no_fog():
    assert plasma(SampleDraws([0]), 1, 2.0).tolist() == [[[0.0]]]


def test_the_layer_is_grey_and_the_maximum_stays():
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.8
    foggy = Fog().apply(images, 4, SampleDraws(range(4)))
    brightest = images.amax(dim=(1, 2, 3), keepdim=True)
    assert (foggy <= brightest + 1e-6).all()
    layer = foggy * (brightest + 1) / brightest - images
    assert torch.allclose(layer[:, 0], layer[:, 1], atol=1e-5)
    assert torch.allclose(layer[:, 0], plasma(SampleDraws(range(4)), 32, 2.0), atol=1e-5)


def test_a_black_image_stays_black():
    assert not Fog().apply(torch.zeros(1, 3, 8, 8), 5, SampleDraws([0])).any()


def layer_statistics(reference, foggy, amount):
    """Return of a layer, averaged over 32 images: mean, spread, roughness, correlation at 2, 4, 8 pixels."""
    clean = reference.arrays["images"] / 255
    brightest = clean.max(axis=(1, 2, 3), keepdims=True)
    layer = (((foggy + 0.5) / 255 * (brightest + amount) / brightest - clean) / amount).mean(axis=3)
    spread = layer.std(axis=(1, 2), keepdims=True)
    unit = (layer - layer.mean(axis=(1, 2), keepdims=True)) / spread
    figures = [layer.mean(), spread.mean(), np.abs(np.diff(unit, axis=2)).mean(), np.abs(np.diff(unit, axis=1)).mean()]
    figures += [(unit[..., shift:] * unit[..., :-shift]).mean() for shift in (2, 4, 8)]
    return np.array(figures)


@pytest.mark.parametrize("severity", range(1, 6))
def test_agrees_with_the_published_generator(reference, engine_step, severity):
    amount = LAYER.at(severity, 32)[0]
    ours = np.stack(
        [
            layer_statistics(reference, engine_step(Fog(), reference.images, severity, seed), amount)
            for seed in range(60)
        ]
    )
    theirs = layer_statistics(reference, reference.arrays["fog"][severity - 1], amount)
    # The published arrays are one more draw: within 3.5 standard deviations of ours.
    assert (np.abs(theirs - ours.mean(axis=0)) < 3.5 * ours.std(axis=0)).all()
