"""Frost: ice crystals on the window before the camera (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from robustgate.core.severity import SeverityTable, Table
from robustgate.corruptions._ice import SHEETS, sheets
from robustgate.corruptions._rows import weighted_rows

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["Frost"]

# Weight of the image, weight of the frost, and how many pixels of a sheet lie between two of the image.
LAYER = SeverityTable(
    cifar=((1.0, 0.2, 5), (1.0, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),
    imagenet=((1.0, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
)


@dataclass(frozen=True, kw_only=True)
class Frost:
    """Add a random piece of one of five sheets of frost to the image, both weighted.

    The sheets are drawn, where the published ones are photographs: they have these photographs' colours, share of
    bright and dark pixels, and about their contrast from scale to scale, but not their crystals. Mean and variance of
    what is changed agree with the published ones to 1.5 % at 32 px and to 6 % at 224 px. A sheet continues
    periodically, so that a piece can be of any size.
    """

    caution: ClassVar[str] = (
        "the frost is drawn, since the published photographs cannot be shipped: mean and variance of what it changes "
        "are off theirs by 1.5 % on small images and by 6 % on large ones"
    )

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return the images behind frost (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5."""
        import torch

        height, width = images.shape[-2:]
        kept, added, step = LAYER.at(severity, min(height, width), self.table)
        frost = _continued(height, width, step, str(images.device))
        side, stride, plane = frost.shape[2] - height, frost.shape[3], frost[0, 0].numel()
        sheet, top, left = (draws.uniform(3) * torch.tensor([len(SHEETS), side, side]).to(frost)).long().unbind(1)
        corners = sheet * (3 * plane) + top * stride + left
        channels = torch.arange(3, device=images.device).mul(plane)[:, None]
        rows = torch.arange(height, device=images.device).mul(stride)
        begins = (corners[:, None, None] + channels + rows).view(-1, 1)
        layer = weighted_rows(frost, begins, torch.tensor([added]).to(frost), width)
        return layer.view(images.shape).add_(images, alpha=kept)


@lru_cache(maxsize=4)
def _continued(height: int, width: int, step: int, device: str) -> Tensor:
    """Return every `step`-th pixel of the sheets, continued periodically so that a piece can begin at any of them.

    Shape (5, 3, side + height, side + width): of the last row no piece begins or ends.
    """
    import torch

    shrunk = torch.from_numpy(sheets())[..., ::step, ::step]
    side = shrunk.shape[-1]
    rows, columns = (torch.arange(side + extent) % side for extent in (height, width))
    return shrunk[..., rows, :][..., columns].contiguous().to(device)
