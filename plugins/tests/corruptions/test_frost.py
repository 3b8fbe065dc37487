"""Frost is a piece of a drawn sheet over the image; the sheets have the photographs' statistics."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from robustgate.corruptions._ice import DARK, SHEETS, SIDE, blotches, sheets
from robustgate.corruptions.frost import LAYER, Frost
from robustgate.engine.draws import SampleDraws

# Of the five photographs at 0.2 of their size: each channel's mean and deviation, and the half mean square of the
# differences between pixels 1, 5 and 16 apart, in units of the grey's variance.
PHOTOGRAPHS = (
    ((77.5, 149.0, 165.7), (26.8, 16.4, 15.3), (0.317, 0.439, 0.642)),
    ((200.8, 205.4, 214.5), (21.4, 22.1, 22.6), (0.398, 0.519, 0.627)),
    ((200.8, 205.4, 214.5), (21.4, 22.1, 22.6), (0.398, 0.519, 0.627)),
    ((138.0, 153.2, 165.6), (29.0, 29.0, 30.2), (0.516, 0.595, 0.715)),
    ((112.3, 123.3, 134.7), (44.3, 43.2, 41.6), (0.418, 0.610, 0.671)),
)


def roughness(grey, distance):
    down, across = grey[distance:] - grey[:-distance], grey[:, distance:] - grey[:, :-distance]
    return (np.square(down).mean() + np.square(across).mean()) / 4 / grey.var()


@pytest.mark.parametrize("number", range(5))
def test_a_sheet_has_its_photographs_statistics(number):
    means, deviations, rough = PHOTOGRAPHS[number]
    small = sheets()[number, :, ::5, ::5].astype(float) * 255
    assert np.allclose(small.mean(axis=(1, 2)), means, rtol=0.02)
    assert np.allclose(small.std(axis=(1, 2)), deviations, rtol=0.1)
    ours = [roughness(small.mean(axis=0), distance) for distance in (1, 5, 16)]
    assert np.allclose(ours, rough, rtol=0.4)
    assert ours[0] == pytest.approx(rough[0], rel=0.1)


def test_the_sheets_differ_and_lie_on_8_bit_levels():
    drawn = sheets()
    assert drawn.shape == (len(SHEETS), 3, SIDE, SIDE)
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert np.allclose(drawn * 255, np.round(drawn * 255), atol=1e-4)
    grey = drawn.mean(axis=1).reshape(5, -1)
    assert np.abs(np.corrcoef(grey) - np.eye(5)).max() < 0.5


def test_every_process_draws_the_same_sheets():
    code = "import hashlib, robustgate.corruptions._ice as ice; print(hashlib.sha256(ice.sheets()).hexdigest())"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert told == hashlib.sha256(sheets()).hexdigest()


def test_the_blotches_have_the_spectrum_that_is_asked_for():
    power = np.abs(np.fft.fft2(blotches(np.random.default_rng(0), 2.0))) ** 2
    # Twice the frequency has a quarter of the power, but for the finest.
    assert power[0, 5] / power[0, 10] == pytest.approx(4, rel=0.01)


def test_half_of_a_sheet_is_darker_than_its_middle_level():
    grey = sheets()[4].mean(axis=0) * 255
    assert np.median(grey) == pytest.approx(DARK.levels[3], abs=1.5)
    assert np.quantile(grey, 0.9) == pytest.approx(DARK.levels[4], abs=1.5)


@pytest.mark.parametrize(("height", "width", "table"), [(32, 32, "cifar"), (40, 90, "imagenet"), (500, 30, "imagenet")])
@pytest.mark.parametrize("severity", [1, 5])
def test_a_piece_of_a_sheet_is_added(height, width, table, severity):
    kept, added, step = LAYER.at(severity, height, table)
    images = torch.rand(6, 3, height, width, generator=torch.Generator().manual_seed(0))
    frosted = Frost(table=table).apply(images, severity, SampleDraws(range(6)))
    numbers = SampleDraws(range(6)).uniform(3).numpy()
    side = SIDE // step
    for before, after, (which, top, left) in zip(images.numpy(), frosted.numpy(), numbers, strict=True):
        rows, columns = (int(top * side) + np.arange(height)) % side, (int(left * side) + np.arange(width)) % side
        piece = sheets()[int(which * 5)][:, ::step, ::step][:, rows][:, :, columns]
        assert np.allclose(after, kept * before + added * piece, atol=1e-6)


@pytest.mark.parametrize("severity", range(1, 6))
def test_agrees_with_the_published_generator(reference, engine_step, severity):
    def moments(images):
        shift = reference.shift(images)
        return np.array([shift.mean(), shift.var()])

    ours = np.stack([moments(engine_step(Frost(), reference.images, severity, seed)) for seed in range(100)])
    theirs = moments(reference.arrays["frost"][severity - 1])
    # The published arrays are one more draw: within 3.5 standard deviations of ours.
    assert (np.abs(theirs - ours.mean(axis=0)) < 3.5 * ours.std(axis=0)).all()
