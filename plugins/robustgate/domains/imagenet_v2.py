"""ImageNet-V2, and what is laid out like it: class folders that are called by the class's number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustgate.core.components import Encoded, Extent, Split
from robustgate.core.errors import DomainError
from robustgate.domains._classes import Classes, class_names
from robustgate.domains._images import Decoding, class_folders, encoded, images_in

__all__ = ["ImagenetV2"]


@dataclass(frozen=True, kw_only=True)
class ImagenetV2:
    """``root/<number>/<file>``, numbers from 0: sorted as texts, as torchvision does, 10 would come before 2.

    `classes` says what class each number is: names in the order of the numbers, or a text file with one a line, such
    as ImageNet's 1,000 WordNet ids in sorted order. Without it classes are called by their numbers. Images are resized
    and cut as `image_folder` does it, by default to 224 pixels from a short side of 256. It is a test set: there is
    no train and no calibration split.
    """

    root: Path
    classes: Classes | None = None
    image_size: int = 224
    short_side: int = 256

    def __post_init__(self) -> None:
        self._decoding()

    def load(self, split: Split) -> Encoded:
        """Return all images, not decoded yet. Raises DomainError, naming the first folder that does not fit."""
        if split not in ("test", "whole"):
            raise DomainError(f"no {split} split: {self.root} is a test set")
        numbers = sorted(self._number(name) for name in class_folders(self.root))
        classes = tuple(str(number) for number in numbers) if self.classes is None else class_names(self.classes)
        if self.classes is not None and numbers[-1] >= len(classes):
            raise DomainError(
                f"{self.root / str(numbers[-1])}: expected a number from 0 to {len(classes) - 1}: "
                f"classes names {len(classes):,} of them"
            )
        files: list[Path] = []
        labels: list[int] = []
        for place, number in enumerate(numbers):
            members = images_in(self.root / str(number))
            files += members
            labels += [place if self.classes is None else number] * len(members)
        return encoded(files, labels, classes, root=self.root, decoding=self._decoding())

    def count(self, split: Split) -> Extent | None:
        """Return how many images there are. Raises DomainError."""
        if split not in ("test", "whole"):
            return None
        members = [images_in(self.root / name) for name in class_folders(self.root)]
        return Extent(samples=sum(map(len, members)), values=3 * self.image_size**2)

    def _number(self, name: str) -> int:
        if not name.isdecimal() or str(int(name)) != name:
            raise DomainError(f"{self.root / name}: expected a class folder called by its number, 0, 1, 2, ...")
        return int(name)

    def _decoding(self) -> Decoding:
        return Decoding(image_size=self.image_size, short_side=self.short_side)
