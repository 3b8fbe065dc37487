"""Brightness raises the value of HSV by the published amount, at the same hue and saturation."""

import colorsys

import numpy as np
import pytest
import torch

from robustgate.corruptions.brightness import Brightness
from robustgate.engine.draws import SampleDraws

COLOURS = torch.cartesian_prod(*(torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0]),) * 3)


@pytest.mark.parametrize(
    ("table", "severity", "added"), [("cifar", 1, 0.05), ("imagenet", 1, 0.1), ("imagenet", 5, 0.5)]
)
def test_equals_hsv_colour_by_colour(table, severity, added):
    brighter = Brightness(table=table).apply(COLOURS.view(1, 25, 5, 3).permute(0, 3, 1, 2), severity, SampleDraws([0]))
    for before, after in zip(COLOURS.tolist(), brighter[0].permute(1, 2, 0).reshape(-1, 3).tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(1, value + added)), abs=1e-6)


@pytest.mark.parametrize("severity", range(1, 6))
def test_agrees_with_the_published_generator(reference, severity):
    differences = np.abs(reference.differences("brightness", severity))
    # Measured: 3.6 % at severity 4, which adds 51 whole levels, so that doubles fall beside a level by chance.
    assert differences.max() <= 1
    assert (differences > 0).mean() < (0.04 if severity == 4 else 0.007)
