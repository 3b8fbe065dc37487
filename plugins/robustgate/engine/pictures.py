"""Pictures of what fooled an artifact, small enough to travel in a report."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustgate.core.components import Samples
from robustgate.core.records import Picture
from robustgate.engine.measure import Outcome
from robustgate.engine.measured import Measured

# Pictures of one case, and the pixels of their longer side.
MOST = 3
SIDE = 112
# The value of a pixel that has not changed, in a picture of the difference.
GREY = 127.5


def pictures(measured: Measured, samples: Samples, numbers: NDArray[np.int64]) -> tuple[Picture, ...]:
    """Return pictures of the first samples that fell, in the order in which they were measured.

    `samples` are the split, `numbers` (N,) the places in it of those that were attacked.
    """
    rows = np.flatnonzero(measured.has_example)[:MOST]
    if not len(rows):
        return ()
    perturbed = measured.points(rows).numpy().transpose(0, 2, 3, 1)
    return tuple(
        _picture(int(row), int(numbers[row]), one, measured.outcome, samples)
        for row, one in zip(rows, perturbed, strict=True)
    )


def _picture(row: int, number: int, perturbed: NDArray[np.float32], outcome: Outcome, samples: Samples) -> Picture:
    original = samples.images[number].astype(np.float32) / np.float32(255)
    difference = _strongest(perturbed - original)
    magnification = magnified(float(np.abs(difference).max()))
    return Picture(
        # A file's name may hold bytes that are no text; a report cannot.
        name=samples.names[number].encode(errors="replace").decode(),
        label=samples.classes[outcome.labels[row]],
        prediction=samples.classes[outcome.predictions[row]],
        norm=None if outcome.norms is None else float(outcome.norms[row]),
        original=_png(255 * _mean(original)),
        perturbed=_png(255 * _mean(perturbed)),
        difference=_png(GREY + 255 * magnification * difference),
        magnification=magnification,
    )


def magnified(largest: float) -> float:
    """Return the largest power of two by which differences up to `largest` can be shown around mid grey."""
    return 2.0 ** math.floor(math.log2(0.5 / largest)) if largest > 0 else 1.0


def _blocks(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut an image (H, W, 3) into (h, w, k * k, 3) blocks, k as small as leaves at most SIDE of them in a row."""
    height, width, channels = image.shape
    k = math.ceil(max(height, width) / SIDE)
    h, w = max(1, height // k), max(1, width // k)
    blocks = image[: h * k, : w * k].reshape(h, min(k, height), w, min(k, width), channels)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(h, w, -1, channels)


def _mean(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale an image down."""
    mean: NDArray[np.float32] = _blocks(image).mean(axis=2)
    return mean


def _strongest(difference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a difference down to the strongest change of each block: the mean of an attack's noise is nothing."""
    blocks = _blocks(difference)
    return np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2, keepdims=True), axis=2)[:, :, 0]


def _png(values: NDArray[Any]) -> str:
    """Return values (H, W, 3) in [0, 255] as the base64 text of a PNG."""
    stream = io.BytesIO()
    Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8)).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")
