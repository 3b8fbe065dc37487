"""Motion blur is ImageMagick's one-sided Gaussian along a line."""

import math

import numpy as np
import pytest
import torch

from robustgate.corruptions._motion import motion_blur, offsets, weights
from robustgate.corruptions.motion_blur import BELL, MotionBlur
from robustgate.engine.draws import SampleDraws


def slowly(image, angle, radius, sigma):
    """Return one image (3, H, W) blurred, tap by tap, its border going on."""
    bell = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    height, width = image.shape[1:]
    total = np.zeros_like(image)
    for tap, weight in enumerate(bell / bell.sum()):
        down = math.ceil(tap * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(tap * math.cos(math.radians(angle)) - 0.5)
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        columns = np.clip(np.arange(width) + right, 0, width - 1)
        total += weight * image[:, rows][:, :, columns]
    return total


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 50), (70, 9)])
@pytest.mark.parametrize(("radius", "sigma"), [(6, 1.0), (9, 2.5), (20, 15.0)])
def test_equals_the_sum_tap_by_tap(height, width, radius, sigma):
    images = torch.rand(9, 3, height, width, generator=torch.Generator().manual_seed(0))
    angles = torch.tensor([0.0, 44.9, -44.9, 13.0, -29.5, -90.1, -134.0, 100.0, 179.0])
    ours = motion_blur(images, angles, radius, sigma).numpy()
    for before, angle, after in zip(images.double().numpy(), angles.tolist(), ours, strict=True):
        assert np.allclose(after, slowly(before, angle, radius, sigma), atol=1e-5)


def test_a_point_becomes_the_bell_along_a_row():
    images = torch.zeros(1, 3, 32, 32)
    images[..., 16, 20] = 1
    bell = torch.tensor(weights(6, 2.0))
    row = motion_blur(images, torch.zeros(1), 6, 2.0)[0, 0, 16]
    assert torch.allclose(row[20 - len(bell) + 1 : 21].flip(0), bell)
    assert row.sum() == pytest.approx(1, abs=1e-5)


def test_offsets_follow_the_angle():
    down, right = offsets(torch.tensor([0.0, 90.0, -90.0, 30.0]), 4)
    assert right.tolist() == [[0, 1, 2, 3], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 2, 3]]
    assert down.tolist() == [[0, 0, 0, 0], [0, 1, 2, 3], [0, -1, -2, -3], [0, 0, 1, 1]]


@pytest.mark.parametrize("table", ["cifar", "imagenet"])
@pytest.mark.parametrize("severity", range(1, 6))
def test_a_flat_image_keeps_its_level(table, severity, engine_step):
    levels = torch.arange(256)
    flat = (levels / 255).float()[:, None, None, None].expand(-1, 3, 8, 8)
    blurred = engine_step(MotionBlur(table=table), flat, severity)
    assert (torch.from_numpy(blurred) == levels[:, None, None, None]).all()


@pytest.mark.parametrize("severity", range(1, 6))
def test_each_published_image_is_ours_at_some_angle(reference, severity):
    angles = torch.linspace(-45, 45, 721)
    found = []
    for image, theirs in zip(reference.images[::4], reference.arrays["motion_blur"][severity - 1, ::4], strict=True):
        blurred = motion_blur(image.expand(len(angles), -1, -1, -1), angles, *BELL.at(severity, 32))
        levels = blurred.mul(255).floor().permute(0, 2, 3, 1).numpy()
        found.append(np.abs(levels - theirs).mean(axis=(1, 2, 3)).min())
    assert max(found) < 0.02, "grey levels"


@pytest.mark.parametrize("severity", range(1, 6))
def test_agrees_with_the_published_generator(reference, engine_step, severity):
    def moments(images):
        shift = reference.shift(images)
        return np.array([shift.mean(), shift.var()])

    ours = np.stack([moments(engine_step(MotionBlur(), reference.images, severity, seed)) for seed in range(60)])
    theirs = moments(reference.arrays["motion_blur"][severity - 1])
    # The published arrays are one more draw: within 3.5 standard deviations of ours.
    assert (np.abs(theirs - ours.mean(axis=0)) < 3.5 * ours.std(axis=0)).all()


def test_the_angles_are_uniform_within_45_degrees():
    """A point's blur tells its angle: the furthest of the taps."""
    count = 1000
    images = torch.zeros(count, 3, 64, 64)
    images[..., 32, 40] = 1
    blurred = MotionBlur(table="imagenet").apply(images, 5, SampleDraws(range(count)))[:, 0]
    rows = blurred.sum(dim=2)
    lowest = (rows > 0).float().argmax(dim=1)
    highest = 63 - (rows.flip(1) > 0).float().argmax(dim=1)
    heights = torch.where(lowest < 32, lowest - 32, highest - 32).double() / 40
    # Of the sine of an angle uniform in +-45 degrees: mean 0, mean square 1/2 - 1/pi.
    assert heights.mean().abs() < 0.05
    assert heights.square().mean() == pytest.approx(0.5 - 1 / math.pi, rel=0.1)
