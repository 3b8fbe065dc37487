"""Adversarial examples on their way to disk and back: no more than a batch of them is ever held."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from robustgate.core.components import Samples
from robustgate.core.errors import MeasurementError
from robustgate.core.files import whole
from robustgate.engine.measure import BATCH

if TYPE_CHECKING:
    from robustgate.engine.measured import Measured

EXAMPLES = "examples.npy"


class Examples:
    """Writes the adversarial examples of N samples into a folder, as they are found.

    examples.npy is float32 (fallen, 3, H, W); `places` (N,) says where in it a sample's is, -1 where it has none. A
    context manager: what is left with an error leaves no file.
    """

    def __init__(self, folder: Path, count: int, shape: tuple[int, ...]) -> None:
        self.file = folder / EXAMPLES
        self.places = np.full(count, -1, np.int64)
        self._shape = shape
        self._written = 0
        self._stream = self.file.open("wb")
        self._head()
        self._begins = self._stream.tell()

    def __enter__(self) -> Examples:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._stream.close()
            self.file.unlink()

    def add(self, rows: NDArray[np.int64], points: Tensor) -> None:
        """Append the examples (n, 3, H, W) of samples `rows` (n,)."""
        self._stream.write(points.cpu().numpy().astype("<f4").tobytes())
        self.places[rows] = np.arange(self._written, self._written + len(rows))
        self._written += len(rows)

    def close(self) -> None:
        """Finish the file: its header needs the number of examples, which is known only now."""
        with self._stream:
            self._stream.seek(0)
            self._head()
            ends = self._stream.tell()
        # NumPy leaves room in a header for the first axis to grow; without it the examples would be overwritten.
        if ends != self._begins:
            raise MeasurementError(f"{self.file}: NumPy's header grew: expected {self._begins} bytes, got {ends}")

    def _head(self) -> None:
        shape = (self._written, *self._shape)
        npy.write_array_header_1_0(self._stream, {"descr": "<f4", "fortran_order": False, "shape": shape})


def read(folder: Path, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the examples (n, 3, H, W) at `places` (n,) of examples.npy in a measurement's folder, and read no other.

    Where a sample's is, its outcome's `examples` say. Raises MeasurementError for a place that there is not.
    """
    kept = np.load(folder / EXAMPLES, mmap_mode="r", allow_pickle=False)
    if len(places) and not 0 <= places.min() <= places.max() < len(kept):
        raise MeasurementError(
            f"{folder / EXAMPLES}: expected places from 0 to {len(kept) - 1}, got {places.min()} to {places.max()}"
        )
    return np.asarray(kept[places])


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
