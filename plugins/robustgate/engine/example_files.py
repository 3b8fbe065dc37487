"""An attacked case's adversarial examples as a file for others: plain arrays, read and written batch by batch."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from robustgate.core.components import Samples
from robustgate.core.files import whole
from robustgate.engine.measure import BATCH
from robustgate.engine.measured import Measured


def export(measured: Measured, samples: Samples, numbers: NDArray[np.int64], path: Path) -> None:
    """Write what is kept of an attack on N samples into `path`, an .npz of plain arrays, whole or not at all.

    `samples` are the split, `numbers` (N,) the places in it of those that were attacked.

    Of the n samples that fell, in their order: `images` uint8 (n, H, W, 3) before, `perturbed` float32 (n, 3, H, W)
    after, `index` in the split, `name`, `label` (which was the artifact's answer before), `prediction` after, `norm`.
    Of all N samples: `numbers`, `labels`, `predictions`, `norms` (infinite where none fell, zero where the answer was
    wrong before), `queries`, `gradients`. `classes` are the names of the labels. Where attacks of several norms are
    joined, there is neither `norm` nor `norms`. Raises MeasurementError where no examples were kept.
    """
    outcome, fell = measured.outcome, np.flatnonzero(measured.has_example)
    index = numbers[fell]
    arrays: dict[str, NDArray[Any] | None] = {
        "index": index,
        "name": np.array([samples.names[number] for number in index], dtype=np.str_),
        "label": outcome.labels[fell],
        "prediction": outcome.predictions[fell],
        "norm": None if outcome.norms is None else outcome.norms[fell],
        "numbers": numbers,
        **{name: getattr(outcome, name) for name in ("labels", "predictions", "norms", "queries", "gradients")},
        "classes": np.array(samples.classes, dtype=np.str_),
    }
    parts = [fell[start : start + BATCH] for start in range(0, len(fell), BATCH)]
    height, width, channels = samples.images.shape[1:]
    with whole(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            if array is not None:
                with archive.open(f"{name}.npy", "w") as entry:
                    npy.write_array(entry, array, allow_pickle=False)
        before = (samples.images[numbers[rows]] for rows in parts)
        _stream(archive, "images", (len(index), height, width, channels), before)
        found = (measured.points(rows).numpy() for rows in parts)
        _stream(archive, "perturbed", (len(index), channels, height, width), found)


def _stream(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], parts: Iterator[NDArray[Any]]) -> None:
    """Write an array of a known shape, uint8 for images and float32 for what was made of them, part by part."""
    descr = "|u1" if name == "images" else "<f4"
    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
        npy.write_array_header_1_0(entry, {"descr": descr, "fortran_order": False, "shape": shape})
        for part in parts:
            entry.write(part.astype(descr).tobytes())
