"""Image files: found by suffix, hashed by content, decoded into pixels of one size."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from robustgate.core.components import Encoded
from robustgate.core.errors import DomainError
from robustgate.core.files import sha256
from robustgate.core.threads import in_threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# How Pillow calls 16-bit channels in a file that it will read as 8-bit ones: "RGB;16B".
DEEP = re.compile(r";16[BLN]")
# A thread hashes so many files at once.
CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an image file becomes pixels: what torchvision's loader, Resize and CenterCrop make of it, pixel by pixel.

    The short side is resized to `short_side` (bilinear, antialiased; not at all where it is None), and the centre,
    `image_size` pixels square, is cut out. As there, grey, palette and CMYK images are converted to RGB by Pillow,
    transparency is dropped, and EXIF orientation is ignored, unless `exif` is ``apply``. Unlike there, images of more
    than 8 bits a channel are refused, and so is one that is smaller than what is cut out: it is not padded.
    """

    image_size: int
    short_side: int | None
    exif: Literal["ignore", "apply"] = "ignore"

    def __post_init__(self) -> None:
        if self.image_size < 1 or (self.short_side is not None and self.short_side < self.image_size):
            raise ValueError("image_size must be at least 1, and short_side not below it")

    @staticmethod
    def resized(image_size: int, short_side: int | None, exif: Literal["ignore", "apply"]) -> Decoding:
        """Return the decoding that resizes the short side: to `image_size` where `short_side` is None."""
        return Decoding(image_size=image_size, short_side=image_size if short_side is None else short_side, exif=exif)

    @property
    def identity(self) -> str:
        """What the pixels depend on beside the files: the parameters, this code, and the decoders' versions."""
        from PIL import __version__, features

        decoders = [f"{name} {features.version(name)}" for name in ("jpg", "libjpeg_turbo", "zlib", "webp", "libtiff")]
        return f"{self} {sha256(Path(__file__))} Pillow {__version__} {decoders}"

    def decode(self, file: Path | BinaryIO, name: str = "") -> NDArray[np.uint8]:
        """Return the pixels (image_size, image_size, 3) of an image file.

        Raises DomainError, with the file's path, or `name` where it is not a file of its own.
        """
        import numpy as np
        from PIL import Image, ImageOps

        name = name or str(file)
        try:
            with Image.open(file) as opened:
                _check_depth(opened)
                shown = ImageOps.exif_transpose(opened) if self.exif == "apply" else opened
                # A palette with transparency is read as RGBA first: Pillow warns of what it cannot keep otherwise.
                image = (shown.convert("RGBA") if "transparency" in shown.info else shown).convert("RGB")
        except Exception as error:  # each of Pillow's decoders has its own
            raise DomainError(f"{name}: cannot be decoded as an image: {error}") from error
        if self.short_side is not None:
            short = min(image.size)
            width, height = (self.short_side * length // short for length in image.size)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        if min(image.size) < self.image_size:
            width, height = image.size
            least = f"{self.image_size} x {self.image_size}"
            raise DomainError(f"{name}: expected at least {least} pixels, got {width} x {height}")
        left, top = (round((length - self.image_size) / 2) for length in image.size)
        return np.asarray(image.crop((left, top, left + self.image_size, top + self.image_size)))


def class_folders(root: Path) -> tuple[str, ...]:
    """Return the names of the folders in `root`, sorted. Raises DomainError where there are none."""
    if not root.is_dir():
        raise DomainError(f"{root}: no such folder; expected one folder a class below it")
    classes = tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir()))
    if not classes:
        raise DomainError(f"{root}: no class folders in it")
    return classes


def images_in(folder: Path) -> list[Path]:
    """Return the image files in a folder, sorted by name. Raises DomainError where there are none."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DomainError(f"{folder}: no images in it (known suffixes: {', '.join(sorted(SUFFIXES))})")
    return files


def encoded(
    files: Sequence[Path], labels: Iterable[int], classes: tuple[str, ...], *, root: Path, decoding: Decoding
) -> Encoded:
    """Return labelled image files, to be decoded later; samples are named by their paths below `root`.

    Reads all files once, to hash their contents. Raises DomainError for one that cannot be read.
    """
    import numpy as np

    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    digest = hashlib.sha256(decoding.identity.encode())
    for part in in_threads(_digests, chunks):
        digest.update(part)
    return Encoded(
        labels=np.array(list(labels), dtype=np.int64),
        classes=classes,
        names=tuple(file.relative_to(root).as_posix() for file in files),
        size=(decoding.image_size, decoding.image_size),
        read=lambda index: decoding.decode(files[index]),
        identity=digest.hexdigest(),
    )


def _digests(files: Sequence[Path]) -> bytes:
    digests = b""
    for file in files:
        try:
            digests += hashlib.sha256(file.read_bytes()).digest()
        except OSError as error:
            raise DomainError(f"{file}: cannot be read: {error.strerror}") from error
    return digests


def _check_depth(opened: ImageFile) -> None:
    """Raise ValueError for more than 8 bits a channel: Pillow clips grey and drops half of colour."""
    if opened.mode.startswith(("I", "F")):
        raise ValueError(f"expected 8 bits a channel, got Pillow's mode {opened.mode!r}")
    for tile in opened.tile:
        if DEEP.search(str(tile.args)):
            raise ValueError(f"expected 8 bits a channel, got 16 ({opened.mode})")
