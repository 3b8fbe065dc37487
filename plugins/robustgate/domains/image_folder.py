"""A folder of images, one folder a class: ``root/<class>/<file>``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robustgate.core.components import Encoded, Extent, Split
from robustgate.core.errors import DomainError
from robustgate.domains._images import Decoding, class_folders, encoded, images_in

__all__ = ["ImageFolder"]


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Images below `root`, in class folders; classes are sorted by name, and so are the files of each.

    A network sees what torchvision's ImageFolder, Resize and CenterCrop show it, pixel by pixel: each image's short
    side is resized to `short_side` (`image_size` by default; bilinear, antialiased) and its centre, `image_size`
    pixels square, is cut out. As there, grey and CMYK images are converted to RGB, transparency is dropped, and EXIF
    orientation is ignored, unless `exif` is ``apply``; unlike there, images of 16 bits a channel are refused, and files
    in folders inside a class folder are not read. `splits` gives the shares of train, calibration and test: inside each
    class, files are ordered by a hash of their names, so that a split does not follow the order of shooting.
    """

    root: Path
    image_size: int
    short_side: int | None = None
    exif: Literal["ignore", "apply"] = "ignore"
    splits: dict[Literal["train", "calibration", "test"], float] = field(
        default_factory=lambda: {"train": 0.8, "calibration": 0.1, "test": 0.1}
    )

    def __post_init__(self) -> None:
        self._decoding()
        if any(share < 0 for share in self.splits.values()) or abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError(f"splits must be shares that add up to 1, got {self.splits}")

    def load(self, split: Split) -> Encoded:
        """Return the samples of a split, not decoded yet. Raises DomainError, naming the first folder that is wrong."""
        classes = class_folders(self.root)
        files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            members = self._members(self.root / name, split)
            files += members
            labels += [label] * len(members)
        if not files:
            raise DomainError(f"{self.root}: no images in the {split} split (shares: {self.splits})")
        return encoded(files, labels, classes, root=self.root, decoding=self._decoding())

    def count(self, split: Split) -> Extent:
        """Return how many images a split has. Raises DomainError."""
        members = [self._members(self.root / name, split) for name in class_folders(self.root)]
        return Extent(samples=sum(map(len, members)), values=3 * self.image_size**2)

    def _decoding(self) -> Decoding:
        return Decoding.resized(self.image_size, self.short_side, self.exif)

    def _members(self, folder: Path, split: Split) -> list[Path]:
        files = images_in(folder)
        if split == "whole":
            return files
        ordered = sorted(files, key=lambda file: hashlib.sha256(file.name.encode()).digest())
        start = 0.0
        for name in ("train", "calibration", "test"):
            end = start + self.splits.get(name, 0.0)
            if name == split:
                return sorted(ordered[round(start * len(files)) : round(end * len(files))])
            start = end
        raise DomainError(f"no split {split!r}")
