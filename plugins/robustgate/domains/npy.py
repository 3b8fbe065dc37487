"""Images and labels in .npy files of their own: CIFAR-10.1 and its like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robustgate.core.components import Extent, Samples, Split
from robustgate.core.errors import DomainError, listing
from robustgate.core.images import join
from robustgate.domains import _arrays
from robustgate.domains._classes import Classes, class_names

__all__ = ["Npy"]

SPLITS: tuple[Literal["train", "calibration", "test"], ...] = ("train", "calibration", "test")


@dataclass(frozen=True, kw_only=True)
class Npy:
    """Two files a split: `images` uint8 (N, H, W, 3), RGB, and `labels`, whole numbers (N,).

    CIFAR-10.1 is ``images = { test = "cifar10.1_v6_data.npy" }``, ``labels = { test = "cifar10.1_v6_labels.npy" }``,
    ``classes = "cifar10"``. `classes` holds the names, or is a text file with one a line, or names a data set whose
    classes are known. The files are mapped, and may be larger than memory. A domain that is only a target needs no more
    than a test split.
    """

    images: dict[Literal["train", "calibration", "test"], Path]
    labels: dict[Literal["train", "calibration", "test"], Path]
    classes: Classes

    def __post_init__(self) -> None:
        if not self.images or self.images.keys() != self.labels.keys():
            raise ValueError(
                "images and labels must each name a file for the same splits, at least for test, "
                f"got {listing(self.images)} and {listing(self.labels)}"
            )

    def load(self, split: Split) -> Samples:
        """Return the samples of a split, in the order of the file. Raises DomainError, naming the file."""
        classes = class_names(self.classes)
        if split == "whole":
            splits = {self.images[name]: name for name in SPLITS if name in self.images}
            return join([self._read(name, classes) for name in splits.values()], "images")
        if split not in self.images:
            add = f"add images.{split} and labels.{split}"
            raise DomainError(f"no {split} split: images names {listing(self.images)}; {add}")
        return self._read(split, classes)

    def count(self, split: Split) -> Extent | None:
        """Return how many images a split has. Raises DomainError, naming the file."""
        files = dict.fromkeys(path for name, path in self.images.items() if split in (name, "whole"))
        shapes = [_arrays.images(path).shape for path in files]
        return Extent(samples=sum(shape[0] for shape in shapes), values=math.prod(shapes[0][1:])) if shapes else None

    def _read(self, split: Literal["train", "calibration", "test"], classes: tuple[str, ...]) -> Samples:
        path = self.images[split]
        images = _arrays.images(path)
        labels = _arrays.labels(self.labels[split], len(images), classes)
        names = tuple(f"{path.name}[{row}]" for row in range(len(images)))
        return Samples(images=images, labels=labels, classes=classes, names=names)
