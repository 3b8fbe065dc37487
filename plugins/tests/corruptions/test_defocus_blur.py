"""Defocus spreads a point into the published disk."""

import numpy as np
import pytest
import torch

from robustgate.corruptions.defocus_blur import DefocusBlur, disk
from robustgate.engine.draws import SampleDraws


def test_a_point_becomes_a_disk():
    image = torch.zeros(1, 3, 9, 9)
    image[..., 4, 4] = 0.9
    blurred = DefocusBlur().apply(image, 5, SampleDraws([0]))[0]
    # Radius 1.5 holds the nine pixels up to sqrt 2 away; a sigma of 0.1 smooths nothing.
    expected = torch.zeros(3, 9, 9)
    expected[:, 3:6, 3:6] = 0.1
    assert torch.allclose(blurred, expected, atol=1e-6)


def test_the_border_is_mirrored_about_its_outermost_pixel():
    image = torch.zeros(1, 3, 9, 9)
    image[..., 0] = 0.9
    # Three columns meet at the left border: the second, the first, and the second again.
    blurred = DefocusBlur().apply(image, 5, SampleDraws([0]))
    assert torch.allclose(blurred[..., 0], torch.tensor(0.3))
    assert torch.allclose(blurred[..., 1], torch.tensor(0.3))
    assert torch.allclose(blurred[..., 2], torch.tensor(0.0), atol=1e-6)


# Sums as OpenCV gives them: a disk that touches its grid's border gains weight there.
@pytest.mark.parametrize(
    ("radius", "sigma", "side", "total"),
    [
        (0.3, 0.4, 3, 1),
        (1.0, 0.2, 5, 1),
        (1.5, 0.1, 3, 1),
        (3.0, 0.1, 7, 1),
        (8.0, 0.5, 17, 1.0129755),
        (10.0, 0.5, 21, 1.0107858),
    ],
)
def test_the_kernel_is_round(radius, sigma, side, total):
    kernel = disk(radius, sigma)
    assert kernel.sum() == pytest.approx(total, abs=1e-6)
    assert np.allclose(kernel, kernel.T, atol=1e-8)
    assert np.allclose(kernel, kernel[::-1, ::-1], atol=1e-8)
    assert len(kernel) == side


@pytest.mark.parametrize("severity", range(1, 6))
def test_agrees_with_the_published_generator(reference, severity):
    differences = np.abs(reference.differences("defocus_blur", severity))
    # Measured: all equal at 1, 2 and 5, two values of 98,304 not at 3, and 1 % at 4 (see the class).
    assert differences.max() <= 1
    assert (differences == 0).mean() > (0.985 if severity == 4 else 0.9999)
