"""Motion blur as ImageMagick does it: a one-sided Gaussian along a line, its own angle for each image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from robustgate.corruptions._rows import weighted_rows

if TYPE_CHECKING:
    from torch import Tensor

NEGLIGIBLE = 1e-7
"""Taps with less weight than this are left out: what they add is below a float32's last bit."""

SURPLUS = 4e-6
"""What the weights sum to beyond 1: a flat area's float32 sum must not fall below its grey level and be truncated."""


def weights(radius: int, sigma: float) -> list[float]:
    """Return the weights of the pixels along the line, of the pixel itself first; their sum is 1 and `SURPLUS`."""
    bell = [math.exp(-(tap**2) / (2 * sigma**2)) for tap in range(2 * radius + 1)]
    total = sum(bell)
    return [weight / total * (1 + SURPLUS) for weight in bell if weight >= NEGLIGIBLE * total]


def offsets(angles: Tensor, taps: int) -> tuple[Tensor, Tensor]:
    """Return how many whole pixels down and to the right each tap lies, (N, taps) int64 each.

    The line goes to the right at an angle of 0 degrees, and down at 90.
    """
    import torch

    radians = torch.deg2rad(angles.double())[:, None]
    steps = torch.arange(taps, device=angles.device)
    down, right = ((steps * slope - 0.5).ceil().long() for slope in (radians.sin(), radians.cos()))
    return down, right


def motion_blur(images: Tensor, angles: Tensor, radius: int, sigma: float) -> Tensor:
    """Blur images (N, C, H, W) along lines at `angles` (N,) in degrees; the border's pixels go on beyond it."""
    import torch
    from torch.nn import functional

    count, channels, height, width = images.shape
    line = torch.tensor(weights(radius, sigma), device=images.device)
    down, right = offsets(angles, len(line))
    # The pixel itself is the first tap: the least offset is 0 or below, the largest 0 or above.
    above, left = -int(down.min()), -int(right.min())
    # One more row at the bottom: the last one is not asked for.
    padded = functional.pad(images, (left, int(right.max()), above, int(down.max()) + 1), mode="replicate")
    stride = padded.shape[3]
    planes = torch.arange(count * channels, device=images.device).mul(padded[0, 0].numel()).view(count, channels, 1, 1)
    rows = torch.arange(above, above + height, device=images.device).mul(stride)[:, None]
    begins = planes + rows + (down * stride + right + left)[:, None, None]
    return weighted_rows(padded, begins.flatten(0, 2), line, width).view(images.shape)
