"""ImageNet-C, and what is laid out like it: a folder a corruption, in it one a severity, in it one a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustgate.core.components import Encoded, Split
from robustgate.core.errors import DomainError, listing, nearest
from robustgate.domains._images import Decoding, class_folders, encoded, images_in

__all__ = ["ImagenetC"]

# The five archives that the benchmark is published in; unpacked into one folder each, or all into one.
GROUPS = ("noise", "blur", "weather", "digital", "extra")


@dataclass(frozen=True, kw_only=True)
class ImagenetC:
    """``root/<corruption>/<severity>/<class>/<file>``; a folder ``noise`` to ``extra`` may stand between the first two.

    The images are stored corrupted and cropped: their centre, `image_size` pixels square, is cut out, and nothing is
    resized. Classes are sorted by name; of ImageNet they are WordNet ids. `image_size` is 64 for Tiny-ImageNet-C. It
    holds corrupted images only: it is no domain of a pair, but what ``shifts.corruptions.stored`` names. What is
    measured is decoded into the cache: 7.5 GB for the 50,000 images of one corruption at one severity.
    """

    root: Path
    image_size: int = 224

    def __post_init__(self) -> None:
        self._decoding()

    def load(self, split: Split) -> Encoded:
        """Raise DomainError: there are no clean images."""
        raise DomainError(
            f"a folder of corrupted images has no {split} split; to measure on them, "
            "name this domain in shifts.corruptions: stored = { <source domain> = <this domain> }"
        )

    def missing(self, corruption: str, severity: int) -> str | None:
        """Return what is not there of a corruption at a severity, None where it is. Reads no file."""
        there = self._corruptions()
        if corruption not in there:
            expected = self.root / corruption
            return f"no such folder: {expected}{nearest(corruption, there)}; there: {listing(there)}"
        folder = there[corruption] / str(severity)
        return None if folder.is_dir() else f"no such folder: {folder}"

    def corrupted(self, corruption: str, severity: int) -> Encoded:
        """Return the images of a corruption at a severity, not decoded yet. Raises DomainError."""
        if problem := self.missing(corruption, severity):
            raise DomainError(problem)
        folder = self._corruptions()[corruption] / str(severity)
        classes = class_folders(folder)
        members = [images_in(folder / name) for name in classes]
        files = [file for group in members for file in group]
        labels = [label for label, group in enumerate(members) for _ in group]
        return encoded(files, labels, classes, root=self.root, decoding=self._decoding())

    def _corruptions(self) -> dict[str, Path]:
        """Return each corruption's folder."""
        folders = [self.root, *(self.root / group for group in GROUPS)]
        found = [one for folder in folders if folder.is_dir() for one in folder.iterdir() if one.is_dir()]
        return {one.name: one for one in found if one.name not in GROUPS}

    def _decoding(self) -> Decoding:
        return Decoding(image_size=self.image_size, short_side=None)
