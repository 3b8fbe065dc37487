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

    A network sees what torchvision's ImageFolder, Resize and CenterCrop show it, pixel by pixel: each image's short
    side is resized to `short_side` (`image_size` by default; bilinear, antialiased) and its centre, `image_size`
    pixels square, is cut out. As there, EXIF orientation is ignored and transparency dropped; unlike there, files in
    folders inside a class folder are not read. `splits` gives the shares of train, calibration and test: inside each
    class, files are ordered by a hash of their names, so that a split does not follow the order of shooting.
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
        from PIL import Image

        try:
            with Image.open(file) as opened:
                if opened.mode.startswith(("I", "F")):  # Pillow would clip them: mostly white
                    raise ValueError(f"expected 8 bits a channel, got Pillow's mode {opened.mode!r}")
                # A palette with transparency is read as RGBA first: Pillow warns of what it cannot keep otherwise.
                image = (opened.convert("RGBA") if "transparency" in opened.info else opened).convert("RGB")
        except Exception as error:  # each of Pillow's decoders has its own
            raise DomainError(f"{file}: cannot be decoded as an image: {error}") from error
        side = self.short_side or self.image_size
        short = min(image.size)
        width, height = (side * length // short for length in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (round((length - self.image_size) / 2) for length in image.size)
        return np.asarray(image.crop((left, top, left + self.image_size, top + self.image_size)))
