"""Impulse noise: the published share of the values becomes 0 or 1, half each."""

import numpy as np
import pytest
import torch

from robustgate.corruptions.impulse_noise import ImpulseNoise
from robustgate.engine.draws import SampleDraws


@pytest.mark.parametrize(("side", "severity", "amount"), [(32, 1, 0.01), (32, 5, 0.07), (96, 1, 0.03), (96, 5, 0.27)])
def test_half_becomes_salt_and_half_pepper(side, severity, amount):
    images = torch.full((20, 3, side, side), 0.4)
    noisy = ImpulseNoise().apply(images, severity, SampleDraws(range(20)))
    # Values that are not hit do not change at all.
    assert torch.isin(noisy, torch.tensor([0.0, 0.4, 1.0])).all()
    margin = 5 * (amount / 2 / noisy.numel()) ** 0.5
    for value in (0.0, 1.0):
        assert abs((noisy == value).double().mean() - amount / 2) < margin + 0.002 * amount


def test_values_and_not_pixels_are_hit():
    noisy = ImpulseNoise().apply(torch.full((4, 3, 96, 96), 0.4), 5, SampleDraws(range(4)))
    hit = (noisy != 0.4).double()
    # Chances multiply: 0.27 squared, not 0.27.
    assert (hit[:, 0] * hit[:, 1]).mean() == pytest.approx(0.27**2, rel=0.1)


def test_the_chances_are_exact_over_all_numbers():
    class AllNumbers:
        def integers(self, *shape):
            return torch.arange(-(2**15), 2**15).to(torch.int16).view(1, *shape)

    noisy = ImpulseNoise(table="imagenet").apply(torch.full((1, 1, 256, 256), 0.4), 4, AllNumbers())
    lost = round(0.17 * 2**15)
    assert [(noisy == value).sum().item() for value in (0, 0.4, 1)] == [lost, 2**16 - 2 * lost, lost]


@pytest.mark.parametrize("severity", range(1, 6))
def test_agrees_with_the_published_generator(reference, engine_step, severity):
    theirs = reference.shift(reference.arrays["impulse_noise"][severity - 1])
    ours = np.stack([reference.shift(engine_step(ImpulseNoise(), reference.images, severity, k)) for k in range(40)])
    # One draw of 98,304 values, of which 1 % to 7 % change, varies by 5 % to 1.8 % in variance.
    for figure in (np.mean, np.var):
        each = [figure(one) for one in ours]
        assert abs(figure(theirs) - np.mean(each)) < 4 * np.std(each)
