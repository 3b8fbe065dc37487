"""Arrays in .npz files: CIFAR, MNIST and their like."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robustgate.core.components import Samples, Split
from robustgate.core.errors import DomainError, listing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Npz"]

SPLITS: tuple[Literal["train", "calibration", "test"], ...] = ("train", "calibration", "test")


@dataclass(frozen=True, kw_only=True)
class Npz:
    """One file a split: `images` uint8 (N, H, W, 3), `labels` whole numbers (N,), `classes` text (C,).

    `calibration` is the share of the train file that is held out as the calibration split where `files` names none:
    the last so many of each class, in the file's order. A domain that is only a target needs no more than a test
    file. A file that serves two splits counts once in the whole. `keys` renames the three arrays:
    ``keys = { images = "x", labels = "y" }``. Pickled arrays are refused.
    """

    files: dict[Literal["train", "calibration", "test"], Path]
    calibration: float = 0.0
    keys: dict[Literal["images", "labels", "classes"], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("files must name at least a test file")
        if not 0 <= self.calibration < 1:
            raise ValueError(f"calibration must be a share in [0, 1), got {self.calibration:g}")
        if self.calibration and ("calibration" in self.files or "train" not in self.files):
            raise ValueError("calibration is a share of files.train, and only where files.calibration is not given")

    def load(self, split: Split) -> Samples:
        """Return the samples of a split, in the order of the file. Raises DomainError."""
        if split == "whole":
            splits = {self.files[name]: name for name in SPLITS if name in self.files}
            return _joined([self._read(name) for name in splits.values()])
        if self.calibration and split in ("train", "calibration"):
            samples = self._read("train")
            rows = _held_out(samples.labels, self.calibration)
            return _taken(samples, rows if split == "calibration" else ~rows)
        if split not in self.files:
            raise DomainError(f"no {split} split: files names {listing(self.files)}; add files.{split}")
        return self._read(split)

    def _read(self, split: Literal["train", "calibration", "test"]) -> Samples:
        import numpy as np

        path = self.files[split]
        try:
            with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
                images, labels, classes = (self._array(arrays, name, path) for name in ("images", "labels", "classes"))
        except FileNotFoundError:
            raise DomainError(f"no such file: {path}") from None
        except DomainError:
            raise
        except Exception as error:  # a damaged archive raises whatever the part that is damaged provokes
            raise DomainError(f"{path}: not an .npz of plain arrays: {error}") from error
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise DomainError(f"{path}: images: expected uint8 (N, H, W, 3), got {images.dtype} {images.shape}")
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise DomainError(
                f"{path}: labels: expected {len(images)} whole numbers, got {labels.dtype} {labels.shape}"
            )
        if classes.ndim != 1 or classes.dtype.kind != "U":
            raise DomainError(f"{path}: classes: expected a list of texts, got {classes.dtype} {classes.shape}")
        strange = labels[(labels < 0) | (labels >= len(classes))]
        if len(strange):
            raise DomainError(f"{path}: labels: {strange[0]} is not the index of one of {len(classes)} classes")
        return Samples(
            images=images,
            labels=labels.astype(np.int64),
            classes=tuple(str(name) for name in classes),
            names=tuple(f"{path.name}[{row}]" for row in range(len(images))),
        )

    def _array(self, arrays: Any, name: Literal["images", "labels", "classes"], path: Path) -> Any:
        key = self.keys.get(name, name)
        if key not in arrays:
            raise DomainError(f"{path}: no array {key!r}; it holds {listing(arrays)}")
        return arrays[key]


def _held_out(labels: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    import numpy as np

    rows = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows[members[len(members) - round(share * len(members)) :]] = True
    return rows


def _taken(samples: Samples, rows: NDArray[np.bool_]) -> Samples:
    names = tuple(name for name, taken in zip(samples.names, rows, strict=True) if taken)
    return Samples(images=samples.images[rows], labels=samples.labels[rows], classes=samples.classes, names=names)


def _joined(parts: list[Samples]) -> Samples:
    import numpy as np

    if any(part.classes != parts[0].classes for part in parts):
        raise DomainError(f"files: the files of one domain differ in their classes: {[part.classes for part in parts]}")
    sizes = [part.images.shape[1:3] for part in parts]
    if len(set(sizes)) > 1:
        raise DomainError(f"files: the files of one domain differ in the size of their images: {sizes}")
    return Samples(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        classes=parts[0].classes,
        names=tuple(name for part in parts for name in part.names),
    )
