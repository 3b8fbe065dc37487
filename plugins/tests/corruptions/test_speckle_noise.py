"""Speckle noise has the published strength, in proportion to the light."""

import numpy as np
import pytest
import torch

from robustgate.corruptions.speckle_noise import SpeckleNoise
from robustgate.engine.draws import SampleDraws


@pytest.mark.parametrize(("side", "severity", "sigma"), [(32, 1, 0.06), (32, 5, 0.20), (224, 1, 0.15), (224, 5, 0.60)])
def test_is_the_image_times_the_draws(side, severity, sigma):
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    noisy = SpeckleNoise().apply(images, severity, SampleDraws([1, 2]))
    expected = images + images * sigma * SampleDraws([1, 2]).normal(3, side, side)
    assert torch.allclose(noisy, expected, atol=1e-6)


@pytest.mark.parametrize("severity", range(1, 6))
def test_agrees_with_the_published_generator(reference, engine_step, severity):
    theirs = reference.shift(reference.arrays["speckle_noise"][severity - 1])
    ours = np.stack([reference.shift(engine_step(SpeckleNoise(), reference.images, severity, k)) for k in range(20)])
    # Twenty draws vary by 0.5 % in variance: so does the published one.
    assert theirs.var() == pytest.approx(ours.var(), rel=0.02)
    assert abs(theirs.mean() - ours.mean()) < 4 * ours.mean(axis=(1, 2, 3, 4)).std()
