"""Each mild transformation does to simple images what its name says."""

import pytest
import torch

from robustgate.engine.transformations import TRANSFORMATIONS, told, transformed
from robustgate.rules.stability import RANGES


def picture(height=6, width=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, height, width), generator=generator).float() / 255


def test_they_are_those_that_a_rule_may_name():
    assert list(TRANSFORMATIONS) == list(RANGES)
    assert all(TRANSFORMATIONS[name].step == one.step for name, one in RANGES.items())


def test_nothing_at_all_is_the_image():
    image = picture()
    assert torch.equal(transformed(image, {}), image)
    assert torch.equal(transformed(image, {"brightness": (0,), "shift": (0, 0), "rotation": (0,), "jpeg": (0,)}), image)


def test_brightness_adds_and_is_clipped():
    image = torch.tensor([0.2, 0.9]).expand(1, 3, 4, 2).clone()
    brighter = transformed(image, {"brightness": (20,)})
    assert torch.allclose(brighter[0, 0, 0], torch.tensor([0.4, 1.0]))


def test_contrast_scales_about_the_mean():
    image = torch.tensor([0.2, 0.6]).expand(1, 3, 4, 2).clone()
    assert torch.allclose(transformed(image, {"contrast": (50,)})[0, 0, 0], torch.tensor([0.1, 0.7]), atol=1 / 255)
    assert torch.allclose(transformed(image, {"contrast": (-50,)})[0, 0, 0], torch.tensor([0.3, 0.5]), atol=1 / 255)


def test_gamma_is_a_power():
    image = torch.full((1, 3, 2, 2), 0.5)
    assert transformed(image, {"gamma": (25,)})[0, 0, 0, 0].item() == pytest.approx(0.5**1.25, abs=0.5 / 255)


def test_shift_moves_whole_pixels_and_repeats_the_border():
    image = picture()
    moved = transformed(image, {"shift": (2, -1)})
    assert torch.equal(moved[:, :, :-1, 2:], image[:, :, 1:, :-2])
    assert torch.equal(moved[:, :, :-1, 0], image[:, :, 1:, 0])
    assert torch.equal(moved[:, :, -1, 2:], image[:, :, -1, :-2])


@pytest.mark.parametrize("side", [(6, 6), (7, 7)])
def test_a_quarter_turn_is_exact_and_counterclockwise(side):
    image = picture(*side)
    turned = transformed(image, {"rotation": (360,)})  # 360 steps of a quarter of a degree
    assert torch.allclose(turned, torch.rot90(image, 1, (2, 3)), atol=1 / 255)


def test_half_a_turn_of_a_picture_that_is_not_square():
    image = picture(6, 9)
    assert torch.allclose(transformed(image, {"rotation": (720,)}), image.flip((2, 3)), atol=1 / 255)


def test_a_small_turn_keeps_distances_in_a_picture_that_is_not_square():
    image = torch.zeros(1, 3, 21, 61)
    image[:, :, 10, 50] = 1  # 20 px to the right of the centre
    turned = transformed(image, {"rotation": (80,)})[0, 0]  # 20 degrees
    rows, columns = torch.meshgrid(torch.arange(21.0), torch.arange(61.0), indexing="ij")
    centre = ((turned * rows).sum() / turned.sum(), (turned * columns).sum() / turned.sum())
    assert float(centre[0]) == pytest.approx(10 - 20 * 0.3420, abs=0.15)
    assert float(centre[1]) == pytest.approx(30 + 20 * 0.9397, abs=0.15)


def test_jpeg_is_pillows_of_that_quality():
    import io

    import numpy as np
    from PIL import Image

    image = picture(16, 16)
    pixels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=60)
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    assert torch.equal(transformed(image, {"jpeg": (40,)})[0], expected)


def test_together_they_are_told_in_one_sentence():
    steps = {"rotation": (-8,), "brightness": (11,), "shift": (0, 2), "gamma": (0,), "jpeg": (30,)}
    assert (
        told(steps) == "brightness +0.11 with a shift by 2 px down with a rotation by 2° clockwise with JPEG quality 70"
    )
    assert told({"contrast": (-10,)}) == "contrast times 0.90"
    assert told({"shift": (-1, -2)}) == "a shift by 1 px left and 2 px up"
