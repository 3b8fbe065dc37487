"""Between images and a file: layouts, ranges, integers and batches, each against a computation by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustgate.core.components import Reading
from robustgate.core.errors import MeasurementError
from robustgate.engine.subjects.reading import Encoding, Passage, in_batches, prepare

CAFFE = Reading(layout="nhwc", channels="bgr", high=255.0, mean=(104.0, 117.0, 123.0), std=(1.0, 2.0, 4.0))


def test_the_default_reading_changes_no_bit() -> None:
    images = torch.rand(3, 3, 4, 5)
    assert torch.equal(prepare(images, Reading()), images)


def test_a_reading_equals_a_computation_by_hand() -> None:
    # One image of two pixels: (red, green, blue) = (0, 0.2, 1) and (0.4, 0.6, 0.8).
    images = torch.tensor([[[[0.0, 0.4]], [[0.2, 0.6]], [[1.0, 0.8]]]])
    # Blue, green, red of each pixel, in 0..255, less 104, 117, 123, over 1, 2, 4.
    expected = torch.tensor(
        [[[[255 - 104.0, (51 - 117) / 2, -123 / 4], [204 - 104.0, (153 - 117) / 2, (102 - 123) / 4]]]]
    )
    torch.testing.assert_close(prepare(images, CAFFE), expected)


def test_a_range_is_what_black_and_white_become() -> None:
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 1, 1)
    got = prepare(images, Reading(low=-1.0, high=1.0))
    assert got[:, :, 0, 0].tolist() == [[-1.0] * 3, [0.0] * 3, [1.0] * 3]


def test_leading_outputs_that_are_no_class_are_dropped() -> None:
    passage = Passage(reading=Reading(skip_outputs=1), shape=None, name="net")
    logits = passage.through(
        lambda inputs: torch.tensor([[9.0, 1.0, 2.0]]).expand(len(inputs), 3), torch.rand(2, 3, 4, 4)
    )
    assert logits.tolist() == [[1.0, 2.0], [1.0, 2.0]]


def test_batches_are_all_of_one_size_and_the_filling_is_taken_off() -> None:
    sizes = []

    def run(part: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        return part * 2

    inputs = torch.arange(7.0)[:, None]
    assert torch.equal(in_batches(run, inputs, 3), inputs * 2)
    assert sizes == [3, 3, 3]
    assert torch.equal(in_batches(run, inputs[:6], 3), inputs[:6] * 2)
    assert sizes == [3, 3, 3, 3, 3]


def test_images_of_another_size_are_one_clear_error() -> None:
    passage = Passage(reading=Reading(layout="nhwc"), shape=(1, 32, 32, 3), name="net-vendor-amazon")
    with pytest.raises(MeasurementError) as caught:
        passage.through(lambda inputs: inputs, torch.rand(1, 3, 28, 28))
    assert str(caught.value) == (
        "net-vendor-amazon: the file takes inputs of (32, 32, 3), and the images are (28, 28, 3) in the layout 'nhwc' "
        "that its input table names"
    )
    free = Passage(reading=Reading(), shape=(None, 3, None, None), name="net")
    assert free.through(lambda inputs: inputs, torch.rand(2, 3, 5, 6)).shape == (2, 3, 5, 6)


def test_integers_are_rounded_clipped_and_read_back_by_the_files_own_scale() -> None:
    # What MobileNet's uint8 files say: (pixel - 128) / 128 is stored as the pixel itself.
    uint8 = Encoding(dtype=np.dtype("uint8"), scale=0.0078125, zero_point=128)
    assert uint8.encode(torch.tensor([-1.0, 0.0, 0.004, 0.9921875, 7.0, -7.0])).tolist() == [0, 128, 129, 255, 255, 0]
    assert uint8.decode(np.array([0, 128, 255], dtype=np.uint8)).tolist() == [-1.0, 0.0, 0.9921875]
    # Every pixel of 8 bits survives the way through [0, 1], as int8 too: what is stored is the pixel less 128.
    pixels = torch.arange(256) / 255
    int8 = Encoding(dtype=np.dtype("int8"), scale=1.0, zero_point=-128)
    assert int8.encode(prepare(pixels.view(-1, 1, 1, 1).expand(-1, 3, 1, 1), Reading(high=255.0)))[
        :, 0, 0, 0
    ].tolist() == [*range(-128, 128)]
    plain = Encoding(dtype=np.dtype("float16"))
    assert plain.encode(torch.tensor([0.25])).dtype == np.float16
    assert plain.decode(np.array([0.25], dtype=np.float16)).dtype == torch.float32
