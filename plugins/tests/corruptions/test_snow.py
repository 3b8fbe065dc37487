"""Snow is the published layer of flakes over a whitened image."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from robustgate.corruptions._motion import motion_blur
from robustgate.corruptions._zoom import centre
from robustgate.corruptions.snow import FALL, Snow, flakes
from robustgate.engine.draws import SampleDraws


def slowly(seed, height, width, fall):
    """Return one layer (height, width): the published way, step by step, from our random numbers."""
    draws = SampleDraws([seed])
    rows, columns = (centre(side, fall.zoom)[1] for side in (height, width))
    noise = draws.normal(rows, columns)[0].double().numpy() * fall.deviation + fall.mean
    layer = ndimage.zoom(noise, fall.zoom, order=1)
    down, right = ((got - side) // 2 for got, side in zip(layer.shape, (height, width), strict=True))
    layer = layer[down : down + height, right : right + width]
    layer[layer < fall.threshold] = 0
    angles = draws.uniform(1)[:, 0] * 90 - 135
    clipped = torch.from_numpy(np.clip(layer, 0, 1))[None, None].float()
    return np.round(motion_blur(clipped, angles, fall.radius, fall.sigma)[0, 0].numpy() * 255)


@pytest.mark.parametrize("table", ["cifar", "imagenet"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 48)])
@pytest.mark.parametrize("severity", range(1, 6))
def test_the_layer_equals_the_obvious_algorithm(table, height, width, severity):
    fall = FALL.at(severity, height, table)
    ours = flakes(SampleDraws([3, 4]), height, width, fall)[:, 0] * 255
    for seed, layer in zip((3, 4), ours.numpy(), strict=True):
        difference = np.abs(layer - slowly(seed, height, width, fall))
        assert difference.max() < 1.001
        assert (difference > 0.001).mean() < 0.01, "values that are rounded to another level"


def test_the_image_is_whitened_under_two_layers():
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fall = FALL.at(4, 32)
    layer = flakes(SampleDraws(range(3)), 32, 32, fall)
    grey = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
    paler = fall.kept * images + (1 - fall.kept) * torch.maximum(images, 1.5 * grey + 0.5)
    expected = paler + layer + layer.rot90(2, dims=(2, 3))
    assert torch.allclose(Snow().apply(images, 4, SampleDraws(range(3))), expected, atol=1e-6)


@pytest.mark.parametrize("severity", range(1, 6))
def test_agrees_with_the_published_generator(reference, engine_step, severity):
    def moments(images):
        shift = reference.shift(images)
        return np.array([shift.mean(), shift.var()])

    ours = np.stack([moments(engine_step(Snow(), reference.images, severity, seed)) for seed in range(60)])
    theirs = moments(reference.arrays["snow"][severity - 1])
    # The published arrays are one more draw: within 3.5 standard deviations of ours, and their mean within 3 %.
    assert (np.abs(theirs - ours.mean(axis=0)) < 3.5 * ours.std(axis=0)).all()
    assert ours[:, 0].mean() == pytest.approx(theirs[0], rel=0.03)
