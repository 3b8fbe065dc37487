"""Zoom blur: the camera moves towards the scene (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table
from robustgate.corruptions._zoom import centre, enlarging

if TYPE_CHECKING:
    import numpy as np
    from scipy import sparse
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["ZoomBlur"]

# The zooms' factors go from 1 up to an end by a step: as `numpy.arange` counts them, whose rounding reaches some ends.
FACTORS = SeverityTable(
    cifar=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    imagenet=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
)


@dataclass(frozen=True, kw_only=True)
class ZoomBlur:
    """Average the image and its zooms, each the enlarged centre of the image.

    As published, where single precision sums one zoom after the other: a value near a grey level's edge can fall on
    its other side, 0.3 % of the values at most.
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the blurred images (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5."""
        from torch.nn import functional

        height, width = images.shape[-2:]
        end, step = FACTORS.at(severity, min(height, width), self.table)
        pixels, starts, weights = zooms(height, width, end, step, str(images.device))
        # One row a pixel: a row of the result is a weighted sum of a few of them, of all images at once.
        rows = images.reshape(-1, height * width).T.contiguous()
        blurred = functional.embedding_bag(pixels, rows, starts, mode="sum", per_sample_weights=weights)
        return blurred.T.reshape(images.shape).contiguous()


@lru_cache(maxsize=5)
def zooms(height: int, width: int, end: float, step: float, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of the image and its zooms as a sparse matrix over the pixels.

    These are, in the order of the result's pixels: the pixels that each one is made of, where each one's begin, and
    their weights.
    """
    import numpy as np
    import torch
    from scipy import sparse

    factors = np.arange(1, end, step)
    total = sparse.eye_array(height * width, format="csr")
    for factor in factors:
        down, across = (_line(side, factor) for side in (height, width))
        total = total + sparse.kron(down, across, format="csr")
    arrays = total.indices, total.indptr[:-1], (total.data / (len(factors) + 1)).astype(np.float32)
    pixels, starts, weights = (torch.from_numpy(array).to(device) for array in arrays)
    return pixels, starts, weights


def _line(side: int, factor: float) -> sparse.csr_array[np.float64, tuple[int, int]]:
    """Return the enlargement of a line's centre as a matrix (side, side) over the whole line."""
    import numpy as np
    from scipy import sparse

    start, kept = centre(side, factor)
    return sparse.csr_array(np.pad(enlarging(side, factor), ((0, 0), (start, side - start - kept))))
