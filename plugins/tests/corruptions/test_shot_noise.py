"""Shot noise counts photons: Poisson numbers of the published means."""

import numpy as np
import pytest
import torch
from scipy import stats

from robustgate.corruptions.shot_noise import PHOTONS, SHARES, ShotNoise, poisson_quantiles
from robustgate.engine.draws import SampleDraws


@pytest.mark.parametrize(("side", "severity", "photons"), [(32, 1, 500), (32, 5, 50), (72, 1, 60), (72, 5, 3)])
def test_values_are_whole_counts_of_poisson_numbers(side, severity, photons):
    level = 153
    images = torch.full((8, 3, side, side), level / 255)
    counts = ShotNoise().apply(images, severity, SampleDraws(range(8))).double() * photons
    assert (counts - counts.round()).abs().max() < 1e-3
    rate, size = level / 255 * photons, counts.numel()
    assert abs(counts.mean() - rate) < 5 * (rate / size) ** 0.5
    assert counts.var() == pytest.approx(rate, rel=5 * (2 / size + 1 / (rate * size)) ** 0.5)


@pytest.mark.parametrize("photons", sorted({*PHOTONS.cifar, *PHOTONS.imagenet}))
def test_the_table_is_the_distribution(photons):
    table = poisson_quantiles(photons).reshape(256, SHARES).astype(int)
    rates = np.arange(256) / 255 * photons
    for level in (0, 1, 15, 100, 255):
        counts = np.arange(table.max() + 1)
        chances = np.bincount(table[level], minlength=len(counts)).cumsum() / SHARES
        # Half a share, and what single shares are rounded by.
        assert np.abs(chances - stats.poisson.cdf(counts, rates[level])).max() <= 0.5 / SHARES + 1e-12
    assert np.abs(table.mean(axis=1)[15:] / rates[15:] - 1).max() < 0.0005
    assert np.abs(table.var(axis=1)[15:] / rates[15:] - 1).max() < 0.0025
    assert np.abs(table.var(axis=1)[1:] / rates[1:] - 1).max() < 0.016


def test_black_stays_black():
    assert not ShotNoise().apply(torch.zeros(2, 3, 8, 8), 5, SampleDraws(range(2))).any()


@pytest.mark.parametrize("severity", range(1, 6))
def test_agrees_with_the_published_generator(reference, engine_step, severity):
    theirs = reference.shift(reference.arrays["shot_noise"][severity - 1])
    ours = np.stack([reference.shift(engine_step(ShotNoise(), reference.images, severity, k)) for k in range(20)])
    # Twenty draws vary by 0.5 % in variance: so does the published one.
    assert theirs.var() == pytest.approx(ours.var(), rel=0.02)
    assert abs(theirs.mean() - ours.mean()) < 4 * ours.mean(axis=(1, 2, 3, 4)).std()
