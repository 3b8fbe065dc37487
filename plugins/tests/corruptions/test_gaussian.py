"""Smoothing equals SciPy's, whatever the side, the sigma and the border."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from robustgate.corruptions._gaussian import gaussian, weights


@pytest.mark.parametrize("mode", ["nearest", "reflect"])
@pytest.mark.parametrize("truncate", [3.0, 4.0])
@pytest.mark.parametrize(("height", "width"), [(1, 9), (8, 33), (32, 32), (70, 101)])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.0, 3.3, 11.0])
def test_equals_scipy(sigma, height, width, truncate, mode):
    images = np.random.default_rng(0).random((2, 3, height, width))
    theirs = ndimage.gaussian_filter(images, (0, 0, sigma, sigma), truncate=truncate, mode=mode)
    ours = gaussian(torch.from_numpy(images), sigma, truncate=truncate, mode=mode)
    assert np.allclose(ours, theirs, rtol=0, atol=1e-14)
    single = gaussian(torch.from_numpy(images).float(), sigma, truncate=truncate, mode=mode)
    assert single.dtype == torch.float32
    assert np.allclose(single, theirs, rtol=0, atol=1e-6)


def test_a_layer_without_channels_and_strided_memory():
    layers = torch.rand(4, 20, 30, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(gaussian(layers, 2.0)[1], gaussian(layers[1], 2.0), atol=1e-6)
    assert torch.allclose(gaussian(layers.transpose(1, 2), 2.0), gaussian(layers, 2.0).transpose(1, 2), atol=1e-6)


def test_the_weights_sum_to_one_and_fall_off():
    bell = weights(1.5, 4.0)
    assert len(bell) == 13
    assert bell.sum() == pytest.approx(1)
    assert bell[6] / bell[9] == pytest.approx(np.exp(2))
