"""A folder of images, one folder a class: ``root/<class>/<file>``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from robustgate.core.components import Samples, Split
from robustgate.core.errors import DomainError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ImageFolder"]

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Images below `root`, in class folders; classes are sorted by name, and so are the files of each.

    Each image's short side is resized to `short_side` (`image_size` by default; bilinear) and its centre, `image_size`
    pixels square, is cut out. `splits` gives the shares of train, calibration and test: inside each class, files are
    ordered by a hash of their names, so that a split does not follow the order of shooting.
    """

    root: Path
    image_size: int
    short_side: int | None = None
    splits: dict[Literal["train", "calibration", "test"], float] = field(
        default_factory=lambda: {"train": 0.8, "calibration": 0.1, "test": 0.1}
    )

    def __post_init__(self) -> None:
        if self.image_size < 1 or (self.short_side is not None and self.short_side < self.image_size):
            raise ValueError("image_size must be at least 1, and short_side not below it")
        if any(share < 0 for share in self.splits.values()) or abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError(f"splits must be shares that add up to 1, got {self.splits}")

    def load(self, split: Split) -> Samples:
        """Return the samples of a split. Raises DomainError, naming the first file that cannot be decoded."""
        import numpy as np

        classes = self._classes()
        files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            members = self._members(self.root / name, split)
            files += members
            labels += [label] * len(members)
        if not files:
            raise DomainError(f"{self.root}: no images in the {split} split (shares: {self.splits})")
        images = np.stack([self._decode(file) for file in files])
        names = tuple(file.relative_to(self.root).as_posix() for file in files)
        return Samples(images=images, labels=np.array(labels, dtype=np.int64), classes=classes, names=names)

    def _classes(self) -> tuple[str, ...]:
        if not self.root.is_dir():
            raise DomainError(f"{self.root}: no such folder; expected one folder a class below it")
        classes = tuple(sorted(folder.name for folder in self.root.iterdir() if folder.is_dir()))
        if not classes:
            raise DomainError(f"{self.root}: no class folders in it")
        return classes

    def _members(self, folder: Path, split: Split) -> list[Path]:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise DomainError(f"{folder}: no images in it (known suffixes: {', '.join(sorted(SUFFIXES))})")
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

    def _decode(self, file: Path) -> NDArray[np.uint8]:
        import numpy as np
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(file) as opened:
                image = opened.convert("RGB")
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise DomainError(f"{file}: cannot be decoded as an image: {error}") from error
        scale = (self.short_side or self.image_size) / min(image.size)
        width, height = (max(self.image_size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - self.image_size) // 2, (height - self.image_size) // 2
        return np.asarray(image.crop((left, top, left + self.image_size, top + self.image_size)))
