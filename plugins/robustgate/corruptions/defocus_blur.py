"""Defocus: every point of light becomes a disk (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["DefocusBlur"]

# Radius of the disk and sigma that smooths its edge, in pixels.
DISK = SeverityTable(
    cifar=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
    imagenet=((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),
)


@dataclass(frozen=True, kw_only=True)
class DefocusBlur:
    """Convolve every channel with a smoothed disk; the border is mirrored about its outermost pixel.

    As published, where OpenCV does it and truncates doubles. The result here is single precision, so that a value
    within 1e-7 of a grey level's edge can fall on its other side: 1 % of the values at 32 px and severity 4, at 224 px
    2 to 4 % at severities 1 to 3, in flat parts of the image, none to speak of elsewhere.
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:  # noqa: ARG002
        """Return the blurred images (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5.

        An image must be larger than the blur's reach: 2 px at 32 px, 10 px at 224 px.
        """
        import torch
        from scipy.fft import next_fast_len
        from torch.fft import irfft2, rfft2
        from torch.nn.functional import pad

        height, width = images.shape[-2:]
        kernel = disk(*DISK.at(severity, min(height, width), self.table))
        reach = len(kernel) // 2
        # A small kernel moves many values onto a level's edge, where the caller truncates, unless doubles are summed.
        dtype = torch.float64 if len(kernel) <= 5 else torch.float32
        # Products of spectra: their cost does not grow with the disk. What wraps around falls outside the crop.
        size = [int(next_fast_len(side + 2 * reach, real=True)) for side in (height, width)]
        weights = rfft2(torch.from_numpy(kernel).to(images.device, dtype), s=size)
        spectra = rfft2(pad(images.to(dtype), (reach,) * 4, mode="reflect"), s=size).mul_(weights)
        blurred: Tensor = irfft2(spectra, s=size)[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]
        return blurred.to(images.dtype)


def disk(radius: float, sigma: float) -> NDArray[np.float32]:
    """Return a disk of `radius` pixels whose edge is smoothed by a Gaussian of `sigma`: square, odd side.

    The Gaussian has 3 x 3 taps up to a radius of 8 and 5 x 5 above; rows and columns without weight are cut off. The
    sum is 1, but 1.013 and 1.011 at radius 8 and 10, where the disk touches the border of its grid, and smoothing
    mirrors it there: the published images are brighter by as much.
    """
    import numpy as np

    extent = 8 if radius <= 8 else int(radius)
    taps = 1 if radius <= 8 else 2
    grid = np.arange(-extent, extent + 1)
    inside = (grid[:, None] ** 2 + grid[None, :] ** 2 <= radius**2).astype(np.float32)
    inside /= inside.sum()
    bell = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * sigma**2))
    bell = (bell / bell.sum()).astype(np.float32)
    mirrored = np.pad(inside, taps, mode="reflect")
    size = len(grid)
    across = sum(weight * mirrored[:, shift : shift + size] for shift, weight in enumerate(bell))
    smooth: NDArray[np.float32] = np.asarray(
        sum(weight * across[shift : shift + size] for shift, weight in enumerate(bell)), np.float32
    )
    reach = int(np.abs(grid)[(smooth > 1e-12).any(axis=0)].max())
    return smooth[extent - reach : extent + reach + 1, extent - reach : extent + reach + 1]
