"""JPEG compression (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["JpegCompression"]

# libjpeg's quality, 1 to 100.
QUALITY = SeverityTable(cifar=(80, 65, 58, 50, 40), imagenet=(25, 18, 15, 10, 7))


@dataclass(frozen=True, kw_only=True)
class JpegCompression:
    """Write every image as a JPEG file and read it again, with halved colour resolution (4:2:0).

    As published, where Pillow does it too. It runs on the CPU, image by image: a GPU's decoder gives other pixels.
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the decoded images (N, 3, H, W), on 8-bit levels. Raises MeasurementError as severity is not 1 to 5.

        Values are rounded to 8 bits and clipped to [0, 1] before they are written.
        """
        quality = QUALITY.at(severity, min(images.shape[-2:]), self.table)
        return through_jpeg(images, quality)

    def apply_to_levels(self, levels: Tensor, severity: int, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the decoded images, uint8 (N, 3, H, W), of such."""
        return levels_through_jpeg(levels, QUALITY.at(severity, min(levels.shape[-2:]), self.table))


def through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Return images (N, 3, H, W) after a JPEG file of `quality`, on 8-bit levels, to which they are rounded before."""
    import torch

    levels = images.clamp(0, 1).mul_(255).round_().to(torch.uint8)
    return levels_through_jpeg(levels, quality).contiguous().to(images.dtype).div_(255)


def levels_through_jpeg(levels: Tensor, quality: int) -> Tensor:
    """Return 8-bit images, uint8 (N, 3, H, W), best as (N, H, W, 3) in memory, after a JPEG file of `quality`."""
    import io

    import numpy as np
    import torch
    from PIL import Image

    height, width = levels.shape[-2:]
    pixels = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    decoded = np.empty_like(pixels)
    image = Image.new("RGB", (width, height))
    for before, after in zip(pixels, decoded, strict=True):
        file = io.BytesIO()
        image.frombytes(before.data)
        image.save(file, "JPEG", quality=quality)
        # The decoder alone, into an image that is there: what `Image.open` finds out of a file is known.
        image.frombytes(file.getbuffer(), "jpeg", "RGB", "")
        after.data.cast("B")[:] = image.tobytes()
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).to(levels.device)
