"""CIFAR-10-C and CIFAR-100-C as they are published: one .npy file a corruption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustgate.core.benchmark import SEVERITIES
from robustgate.core.components import Samples, Split
from robustgate.core.errors import DomainError, listing, nearest
from robustgate.domains import _arrays
from robustgate.domains._classes import Classes, class_names

__all__ = ["CifarC"]


@dataclass(frozen=True, kw_only=True)
class CifarC:
    """A folder `root` with ``<corruption>.npy``, uint8 (5 N, H, W, 3), and ``labels.npy`` (5 N,).

    The first N images are of severity 1, the last of severity 5, each time the same N in one order; published, N is
    10,000 and images have 32 pixels a side. `classes` is ``"cifar10"``, ``"cifar100"``, the names themselves or a text
    file with one a line. It holds corrupted images only: it is no domain of a pair, but what
    ``shifts.corruptions.stored`` names.
    """

    root: Path
    classes: Classes = "cifar10"

    def load(self, split: Split) -> Samples:
        """Raise DomainError: there are no clean images."""
        raise DomainError(
            f"a folder of corrupted images has no {split} split; to measure on them, "
            "name this domain in shifts.corruptions: stored = { <source domain> = <this domain> }"
        )

    def missing(self, corruption: str, severity: int) -> str | None:
        """Return what is not there of a corruption at a severity, None where it is. Reads no file."""
        if severity not in SEVERITIES:
            return f"expected a severity from 1 to {len(SEVERITIES)}, got {severity}"
        there = {file.stem for file in self.root.glob("*.npy")}
        for name in (corruption, "labels"):
            if name not in there:
                return f"no such file: {self.root / name}.npy{nearest(name, there)}; there: {listing(there)}"
        return None

    def corrupted(self, corruption: str, severity: int) -> Samples:
        """Return the images of a corruption at a severity. Raises DomainError, naming the file that does not fit."""
        if problem := self.missing(corruption, severity):
            raise DomainError(problem)
        path, classes = self.root / f"{corruption}.npy", class_names(self.classes)
        images = _arrays.images(path)
        if len(images) % len(SEVERITIES):
            raise DomainError(
                f"{path}: expected {len(SEVERITIES)} blocks of as many images each, got {len(images):,} images"
            )
        labels = _arrays.labels(self.root / "labels.npy", len(images), classes).reshape(len(SEVERITIES), -1)
        if (labels != labels[0]).any():
            blocks = f"each of {len(SEVERITIES)} blocks"
            raise DomainError(f"{self.root / 'labels.npy'}: expected the same labels in {blocks}")
        first, count = (severity - 1) * labels.shape[1], labels.shape[1]
        return Samples(
            images=images[first : first + count],
            labels=labels[severity - 1],
            classes=classes,
            names=tuple(f"{path.name}[{row}]" for row in range(first, first + count)),
        )
