"""Image files, decoded once into a file of the store, and read from it row by row."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from robustgate.core.components import Encoded, Images
from robustgate.core.errors import DomainError
from robustgate.core.images import released
from robustgate.core.threads import in_threads
from robustgate.engine.store import Store

FILE = "images.npy"
# What a thread decodes at once: a few of them wait to be written.
CHUNK_BYTES = 2**20


def decoded(encoded: Encoded, store: Store) -> Images:
    """Return the images, from the store, where they are decoded to unless they are there. Raises DomainError."""
    shape = (len(encoded), *encoded.size, 3)
    identity = {"images": encoded.identity, "shape": shape}
    folder, _ = store.entry("images", identity, lambda folder: _decode(encoded, shape, folder / FILE))
    return released(np.load(folder / FILE, mmap_mode="r", allow_pickle=False))


def _decode(encoded: Encoded, shape: tuple[int, ...], file: Path) -> None:
    step = max(1, CHUNK_BYTES // math.prod(shape[1:]))
    chunks = (range(start, min(start + step, shape[0])) for start in range(0, shape[0], step))
    with file.open("wb") as opened:
        npy.write_array_header_1_0(opened, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for images in in_threads(lambda rows: b"".join(_one(encoded, row).tobytes() for row in rows), chunks):
            opened.write(images)


def _one(encoded: Encoded, row: int) -> NDArray[np.uint8]:
    image, expected = encoded.read(row), (*encoded.size, 3)
    if image.dtype != np.uint8 or image.shape != expected:
        raise DomainError(f"{encoded.names[row]}: expected uint8 {expected}, got {image.dtype} {image.shape}")
    return image
