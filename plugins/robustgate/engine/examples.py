"""Adversarial examples on their way to disk and back: no more than a batch of them is ever held."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from robustgate.core.errors import MeasurementError

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
