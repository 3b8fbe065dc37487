"""Adversarial examples on their way to disk: no more than a batch of them is ever held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

EXAMPLES = "examples.npy"


class Examples:
    """Writes the adversarial examples of N samples into a folder, as they are found.

    examples.npy is float32 (fallen, 3, H, W); `places` (N,) says where in it a sample's is, -1 where it has none.
    """

    def __init__(self, folder: Path, count: int, shape: tuple[int, ...]) -> None:
        self.file = folder / EXAMPLES
        self.places = np.full(count, -1, np.int64)
        self._shape = shape
        self._raw = self.file.with_suffix(".raw")
        self._stream = self._raw.open("wb")
        self._written = 0

    def add(self, rows: NDArray[np.int64], points: Tensor) -> None:
        """Append the examples (n, 3, H, W) of samples `rows` (n,)."""
        self._stream.write(points.cpu().numpy().astype(np.float32).tobytes())
        self.places[rows] = np.arange(self._written, self._written + len(rows))
        self._written += len(rows)

    def close(self) -> None:
        """Finish the file: NumPy's header needs the number of examples, which is known only now."""
        self._stream.close()
        shape = (self._written, *self._shape)
        if self._written:
            np.save(self.file, np.memmap(self._raw, np.float32, "r", shape=shape))
        else:
            np.save(self.file, np.empty(shape, np.float32))
        self._raw.unlink()
