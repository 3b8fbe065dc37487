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
        import io

        import numpy as np
        import torch
        from PIL import Image

        quality = QUALITY.at(severity, min(images.shape[-2:]), self.table)
        levels = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        decoded = np.empty_like(levels)
        for before, after in zip(levels, decoded, strict=True):
            file = io.BytesIO()
            Image.fromarray(before).save(file, "JPEG", quality=quality)
            after[:] = np.asarray(Image.open(file, formats=("JPEG",)))
        return torch.from_numpy(decoded).to(images.device).permute(0, 3, 1, 2).to(images.dtype) / 255
