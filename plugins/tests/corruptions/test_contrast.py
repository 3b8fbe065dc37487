"""Contrast pulls every value to its channel's mean, by the published share."""

import pytest
import torch

from robustgate.corruptions.contrast import Contrast
from robustgate.engine.draws import SampleDraws


def test_two_values_come_closer_and_channels_are_apart():
    image = torch.zeros(1, 3, 4, 4)
    image[:, 0, :2], image[:, 1] = 0.8, 0.3
    paler = Contrast().apply(image, 2, SampleDraws([0]))
    assert torch.allclose(paler[0, 0, :2], torch.tensor(0.6))
    assert torch.allclose(paler[0, 0, 2:], torch.tensor(0.2))
    assert torch.allclose(paler[0, 1], torch.tensor(0.3))


@pytest.mark.parametrize("severity", range(1, 6))
def test_equals_the_published_generator(reference, severity):
    assert not reference.differences("contrast", severity).any()
