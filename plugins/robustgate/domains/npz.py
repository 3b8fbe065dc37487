"""Arrays in .npz files: CIFAR, MNIST and their like."""

from __future__ import annotations

import math
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robustgate.core.components import Extent, Samples, Split
from robustgate.core.errors import DomainError, listing
from robustgate.core.images import join, take
from robustgate.domains._classes import Classes, class_names
from robustgate.domains._framed import Framed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Npz"]

SPLITS: tuple[Literal["train", "calibration", "test"], ...] = ("train", "calibration", "test")
# Where a member's own header in the archive says how long its name and its extra field are; the data follow them.
LENGTHS = 26
CHUNK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Npz:
    """One file a split: `images` uint8 (N, H, W, 3), `labels` whole numbers (N,), `classes` text (C,).

    Grey images (N, H, W) or (N, H, W, 1) become RGB. `classes` gives the names of the classes, or a text file with one
    a line, or ``"cifar10"`` or ``"cifar100"``, where the files have no array of them. ``resize = [height, width]``
    resizes the images (bilinear), and `pad` then adds so many black pixels on each side: USPS becomes like MNIST by
    ``resize = [20, 20]`` and ``pad = 4``.

    `calibration` is the share of the train file that is held out as the calibration split where `files` names none:
    the last so many of each class, in the file's order. A domain that is only a target needs no more than a test
    file. A file that serves two splits counts once in the whole. `keys` renames the three arrays:
    ``keys = { images = "x", labels = "y" }``. Pickled arrays are refused. Images that ``numpy.savez`` wrote are
    mapped, and may be larger than memory; those of ``savez_compressed`` are unpacked into it.
    """

    files: dict[Literal["train", "calibration", "test"], Path]
    calibration: float = 0.0
    keys: dict[Literal["images", "labels", "classes"], str] = field(default_factory=dict)
    classes: Classes | None = None
    resize: tuple[int, int] | None = None
    pad: int = 0

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("files must name at least a test file")
        if not 0 <= self.calibration < 1:
            raise ValueError(f"calibration must be a share in [0, 1), got {self.calibration:g}")
        if self.calibration and ("calibration" in self.files or "train" not in self.files):
            raise ValueError("calibration is a share of files.train, and only where files.calibration is not given")
        if self.pad < 0 or min(self.resize or (1,)) < 1:
            raise ValueError("resize must be two whole numbers from 1, height and width, and pad one from 0")
        if self.classes is not None and "classes" in self.keys:
            raise ValueError("classes gives the names of the classes, and keys.classes an array of them: give one")

    def load(self, split: Split) -> Samples:
        """Return the samples of a split, in the order of the file. Raises DomainError."""
        import numpy as np

        if split == "whole":
            splits = {self.files[name]: name for name in SPLITS if name in self.files}
            return _joined([self._read(name) for name in splits.values()])
        if self.calibration and split in ("train", "calibration"):
            samples = self._read("train")
            held_out = _held_out(samples.labels, self.calibration)
            return take(samples, np.flatnonzero(held_out == (split == "calibration")))
        if split not in self.files:
            raise DomainError(f"no {split} split: files names {listing(self.files)}; add files.{split}")
        return self._read(split)

    def count(self, split: Split) -> Extent | None:
        """Return how many images a split has; of a share of the train file only its labels tell. Raises DomainError."""
        files = dict.fromkeys(path for name, path in self.files.items() if split in (name, "whole"))
        if not files or (self.calibration and split in ("train", "calibration")):
            return None
        shapes = [_shape(path, f"{self.keys.get('images', 'images')}.npy") for path in files]
        height, width = self.resize or shapes[0][1:3]
        return Extent(
            samples=sum(shape[0] for shape in shapes), values=3 * (height + 2 * self.pad) * (width + 2 * self.pad)
        )

    def _read(self, split: Literal["train", "calibration", "test"]) -> Samples:
        import numpy as np

        path = self.files[split]
        try:
            with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
                images, labels = (self._array(arrays, name, path) for name in ("images", "labels"))
                classes = self._array(arrays, "classes", path) if self.classes is None else None
        except FileNotFoundError:
            raise DomainError(f"no such file: {path}") from None
        except DomainError:
            raise
        except Exception as error:  # a damaged archive raises whatever the part that is damaged provokes
            raise DomainError(f"{path}: not an .npz of plain arrays: {error}") from error
        channels = images.shape[3:] if images.ndim in (3, 4) else None
        if images.dtype != np.uint8 or channels not in ((), (1,), (3,)):
            expected = "uint8 (N, H, W, 3), or grey without the 3 or with 1 for it"
            raise DomainError(f"{path}: images: expected {expected}, got {images.dtype} {images.shape}")
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise DomainError(
                f"{path}: labels: expected {len(images)} whole numbers, got {labels.dtype} {labels.shape}"
            )
        names = self._names(classes, path)
        strange = labels[(labels < 0) | (labels >= len(names))]
        if len(strange):
            raise DomainError(f"{path}: labels: {strange[0]} is not the index of one of {len(names)} classes")
        is_ready = channels == (3,) and self.resize is None and not self.pad
        return Samples(
            images=images if is_ready else Framed(images, self.resize, self.pad),
            labels=labels.astype(np.int64),
            classes=names,
            names=tuple(f"{path.name}[{row}]" for row in range(len(images))),
        )

    def _names(self, array: Any, path: Path) -> tuple[str, ...]:
        """Return the names of the classes, from the array of them in a file unless they are given."""
        if self.classes is not None:
            return class_names(self.classes)
        if array.ndim != 1 or array.dtype.kind != "U":
            raise DomainError(f"{path}: classes: expected a list of texts, got {array.dtype} {array.shape}")
        return tuple(str(name) for name in array)

    def _array(self, arrays: Any, name: Literal["images", "labels", "classes"], path: Path) -> Any:
        key = self.keys.get(name, name)
        if key not in arrays:
            add = "; or give their names as classes" if name == "classes" else ""
            raise DomainError(f"{path}: no array {key!r}; it holds {listing(arrays)}{add}")
        mapped = _mapped(arrays.zip, f"{key}.npy", path) if name == "images" else None
        return arrays[key] if mapped is None else mapped


def _shape(path: Path, member: str) -> tuple[int, ...]:
    """Return the shape of images, by their header in the archive. Raises DomainError."""
    from numpy.lib import format as npy

    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            version = npy.read_magic(file)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, _ = header(file)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DomainError(f"{path}: not an .npz of images: {error}") from error
    if len(shape) not in (3, 4):
        raise DomainError(f"{path}: images: expected (N, H, W, 3) or (N, H, W), got {shape}")
    return tuple(shape)


def _mapped(archive: zipfile.ZipFile, member: str, path: Path) -> NDArray[np.uint8] | None:
    """Map an array of bytes where it lies in the archive; None where it is compressed, or something else.

    Raises BadZipFile where its checksum does not match.
    """
    import numpy as np

    if member not in archive.namelist() or archive.getinfo(member).compress_type != zipfile.ZIP_STORED:
        return None
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            return None
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        begins = file.tell()
        if dtype != np.uint8 or archive.getinfo(member).file_size != begins + math.prod(shape) or 0 in shape:
            return None  # NumPy says what is wrong with it, if anything is
        while file.read(CHUNK_BYTES):  # all of it, for its checksum and its length
            pass
    with path.open("rb") as file:
        file.seek(archive.getinfo(member).header_offset + LENGTHS)
        offset = file.tell() + 4 + sum(struct.unpack("<HH", file.read(4))) + begins
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _held_out(labels: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    import numpy as np

    rows = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows[members[len(members) - round(share * len(members)) :]] = True
    return rows


def _joined(parts: list[Samples]) -> Samples:
    if any(part.classes != parts[0].classes for part in parts):
        raise DomainError(f"files: the files of one domain differ in their classes: {[part.classes for part in parts]}")
    return join(parts, "files")
