"""Small trees of images in published layouts: each image's red says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from robustgate.core.components import Encoded


def grown(root: Path, tree: Mapping[str, int], size: tuple[int, int] = (8, 8)) -> Path:
    """Write an image under each path below `root`, of a red of so many levels; they are PNG, whatever the suffix."""
    for place, red in tree.items():
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (red, 0, 0)).save(file, format="PNG")
    return root


def reds(samples: Encoded) -> list[int]:
    """Return the red of each image."""
    return [int(samples.read(row)[0, 0, 0]) for row in range(len(samples))]


def told(samples: Encoded) -> list[tuple[str, int]]:
    """Return each sample's class and red."""
    return [(samples.classes[label], red) for label, red in zip(samples.labels, reds(samples), strict=True)]
