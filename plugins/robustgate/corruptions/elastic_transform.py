"""Elastic transform: the image on a stretched rubber sheet (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table
from robustgate.corruptions._gaussian import gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["ElasticTransform"]

# ImageNet-C's are shares of 244 pixels, for images of 224.
LARGE = 244 / 224

# Strength of the displacements, their smoothness, and the jitter of the corners: shares of the image's side.
SHEET = SeverityTable(
    cifar=((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    imagenet=(
        (2.0 * LARGE, 0.7 * LARGE, 0.1 * LARGE),
        (2.0 * LARGE, 0.08 * LARGE, 0.2 * LARGE),
        (0.05 * LARGE, 0.01 * LARGE, 0.02 * LARGE),
        (0.07 * LARGE, 0.01 * LARGE, 0.02 * LARGE),
        (0.12 * LARGE, 0.01 * LARGE, 0.02 * LARGE),
    ),
)


@dataclass(frozen=True, kw_only=True)
class ElasticTransform:
    """Move three points of the image by a random amount and the rest along, then every pixel by a smooth noise.

    As published for CIFAR-10-C and ImageNet-C, but for the random stream, and that coordinates are not rounded to 32nds
    of a pixel. (The package `imagecorruptions` leaves out the first step, and has other numbers in the second.)
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return the stretched images (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5."""
        from torch.nn.functional import grid_sample

        height, width = images.shape[-2:]
        side = min(height, width)
        strength, sigma, jitter = (share * side for share in SHEET.at(severity, side, self.table))
        moved = (draws.uniform(3, 2) * 2 - 1) * jitter
        # About the outermost pixels' centres, which are not repeated.
        grid = pulled_back(moved, height, width).to(images.dtype).permute(0, 2, 3, 1)
        images = grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
        if not strength:
            return images
        # About the image's edges, half a pixel further out, where the outermost pixels are repeated.
        grid = displaced(draws, height, width, strength, sigma).permute(0, 2, 3, 1)
        return grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def pulled_back(moved: Tensor, height: int, width: int) -> Tensor:
    """Return where each pixel's value comes from when three points move: x and y, (N, 2, H, W), of the image [-1, 1].

    `moved` (N, 3, 2) says by how many pixels, in x and y, the lower right, the upper right and the upper left corner
    move of a square about the image's centre, whose side is two thirds of the image's shorter one.
    """
    import torch

    reach = min(height, width) // 3
    # A square that is all but flat stretches rounding errors with the image.
    moved = moved.double()
    along, down = moved[:, 1] - moved[:, 2], moved[:, 0] - moved[:, 1]
    back: Tensor = torch.linalg.inv(torch.eye(2).to(moved) + torch.stack((along, down), dim=2) / (2 * reach))
    # The square's centre is a pixel, in an image of even sides half a pixel off; what moves it is its corners' mean.
    middle = moved.new_tensor([width - 1, height - 1]) / 2
    centre = moved.new_tensor([width // 2, height // 2])
    shifted = centre + (moved[:, 0] + moved[:, 2]) / 2
    columns = torch.arange(width).to(moved) - shifted[:, :1]
    rows = torch.arange(height).to(moved) - shifted[:, 1:]
    start = centre / middle - 1
    along_columns = back[:, :, :1] * columns[:, None] / middle[:, None] + start[:, None]
    along_rows = back[:, :, 1:] * rows[:, None] / middle[:, None]
    return along_columns[:, :, None].float() + along_rows[..., None].float()


def displaced(draws: Draws, height: int, width: int, strength: float, sigma: float) -> Tensor:
    """Return where each pixel's value comes from on a rough sheet: x and y, (N, 2, H, W), of the image [-1, 1].

    Every pixel moves by `strength` times noise uniform in [-1, 1], smoothed over `sigma` pixels.
    """
    import torch

    noise = draws.integers(2, height, width).float().div_(1 << 15)
    sources = gaussian(noise, sigma, truncate=3, mode="reflect")
    sources *= sources.new_tensor([2 * strength / width, 2 * strength / height])[:, None, None]
    sources[:, 0] += (2 * torch.arange(width).to(sources) + 1) / width - 1
    sources[:, 1] += ((2 * torch.arange(height).to(sources) + 1) / height - 1)[:, None]
    return sources
