"""Glass: seen through a frosted pane (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.severity import SeverityTable, Table
from robustgate.corruptions._gaussian import gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Draws

__all__ = ["GlassBlur"]

# Sigma of the blur, how far a pixel is fetched from, both in pixels, and how often.
PANE = SeverityTable(
    cifar=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    imagenet=((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
)


@dataclass(frozen=True, kw_only=True)
class GlassBlur:
    """Blur, truncate to 8 bits, replace pixels by some nearby, and blur again. As published, but for the random stream.

    The published code means to exchange pixels. Its exchange goes through views of one array, so that it copies one
    over the other, and so does this one: the benchmark's images are made so.
    """

    table: Table = "auto"

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return the images behind glass (N, 3, H, W). Raises MeasurementError for a severity not in 1 to 5."""
        height, width = images.shape[-2:]
        sigma, reach, times = PANE.at(severity, min(height, width), self.table)
        levels = gaussian(images, sigma).mul_(255).floor_().flatten(2)
        for _ in range(times):
            offsets = within(draws.integers(2, height, width), reach)
            levels = levels.gather(2, sources(offsets, reach)[:, None].expand_as(levels))
        return gaussian(levels.view_as(images).div_(255), sigma)


def within(numbers: Tensor, reach: int) -> Tensor:
    """Return int16 numbers, uniform in all that there are, as int32 ones uniform in [-reach, reach)."""
    return (numbers.int() * (2 * reach)) >> 16


def sources(offsets: Tensor, reach: int) -> Tensor:
    """Return which pixel each pixel has the value of in the end: int64 (N, H * W), indices into H * W.

    From the lower right to the upper left, every pixel takes the value that the pixel at its `offsets` (N, 2, H, W),
    of rows and columns in [-reach, reach), has at that time; those in the margin keep theirs. So what is fetched from
    behind has been fetched before: followed for all pixels at once, twice as far in each round.
    """
    import torch

    count, _, height, width = offsets.shape
    places = torch.arange(count * height * width, device=offsets.device).view(count, height, width)
    # As published: not the first reach + 1 rows and columns, and not the last reach - 1.
    inner = slice(None), slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1)
    fetched = places.clone()
    fetched[inner] += (offsets[:, 0] * width + offsets[:, 1])[inner]
    behind, fetched = (fetched > places).flatten(), fetched.flatten()
    while len(unsettled := behind.nonzero().flatten()):
        nearer = fetched[unsettled]
        behind[unsettled], fetched[unsettled] = behind[nearer], fetched[nearer]
    return fetched.view(count, -1) % (height * width)
