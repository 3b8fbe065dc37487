"""How drops of water catch the light: the steps that the published spatter takes with OpenCV, for a batch.

Layers are float32 (N, H, W) on whole 8-bit levels. What OpenCV computes in whole numbers is equal here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# Canny's thresholds: an edge starts above the second, and goes on above the first.
WEAK, STRONG = 50, 150

FAR = 20.0
"""Where a distance from the nearest edge ends, in pixels."""

# A 5 x 5 chamfer: the steps of a path, up to symmetry, and their lengths.
STEPS = (((0, 1), 1.0), ((1, 1), 1.4), ((1, 2), 2.1969))

# Embossing: light from the upper left.
EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))


def relief(levels: Tensor) -> Tensor:
    """Return how bright each pixel of a layer of drops is, by its distance from the drops' edges: 0 to 255."""
    import torch

    depth = equalized(_blurred(distances(edges(levels))).floor())
    height, width = levels.shape[-2:]
    padded = _mirrored(depth)
    embossed = torch.zeros_like(depth)
    for row, weights in enumerate(EMBOSS):
        for column, weight in enumerate(weights):
            embossed.add_(padded[:, row : row + height, column : column + width], alpha=weight)
    return _blurred(embossed.clamp_(0, 255)).round_()


def edges(levels: Tensor) -> Tensor:
    """Return where Canny's detector finds an edge, bool (N, H, W): Sobel gradients, 1-norm, no smoothing."""
    import torch
    from torch.nn import functional

    padded = functional.pad(levels[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    slopes = padded[..., 2:] - padded[..., :-2]
    across = slopes[:, :-2] + 2 * slopes[:, 1:-1] + slopes[:, 2:]
    slopes = padded[:, 2:] - padded[:, :-2]
    down = slopes[..., :-2] + 2 * slopes[..., 1:-1] + slopes[..., 2:]
    wide, high = across.abs(), down.abs()
    size = wide + high

    # A ridge: no smaller than its neighbours in the direction of the gradient, one of eight.
    around = functional.pad(size, (1, 1, 1, 1))
    height, width = levels.shape[-2:]

    def neighbour(row: int, column: int) -> Tensor:
        return around[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    steep, flat = 2**0.5 + 1, 2**0.5 - 1
    falling, rising = (neighbour(-1, side).maximum(neighbour(1, -side)) for side in (-1, 1))
    beside = torch.where(across * down < 0, rising, falling)
    ridge = torch.where(
        high < flat * wide,
        (size > neighbour(0, -1)) & (size >= neighbour(0, 1)),
        torch.where(high > steep * wide, (size > neighbour(-1, 0)) & (size >= neighbour(1, 0)), size > beside),
    )
    weak = (ridge & (size > WEAK)).to(levels.dtype)
    found = weak * (size > STRONG)
    while True:
        grown = _nine(functional.pad(found, (1, 1, 1, 1)), torch.maximum).mul_(weak)
        if torch.equal(grown, found):
            return found.bool()
        found = grown


def distances(marked: Tensor) -> Tensor:
    """Return the length of the shortest path of chamfer steps from each pixel to a marked one, at most `FAR`."""
    import torch

    far = torch.zeros_like(marked, dtype=torch.float32).masked_fill_(~marked, FAR)
    for (small, large), length in STEPS:
        signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
        both = ((small, large), (large, small))
        for row, column in {(down * tall, right * wide) for down, right in signs for tall, wide in both}:
            # Any number of steps in one direction: one, then two, four, and so on. A shortest path has two directions
            # at most, in any order, and does not leave the image between its ends.
            times = 1
            while times * length < FAR:
                _step(far, times * row, times * column, times * length)
                times *= 2
    return far


def _step(far: Tensor, down: int, right: int, length: float) -> None:
    """Let a distance be that of the pixel from which a step leads here, plus the step's length, if that is less."""
    import torch

    height, width = far.shape[-2:]
    if abs(down) >= height or abs(right) >= width:
        return
    here = far[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
    there = far[:, max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)]
    torch.minimum(here, there + length, out=here)


def equalized(depths: Tensor) -> Tensor:
    """Return whole depths, 0 to `FAR`, as levels from 0 to 255 that are about equally frequent in each layer.

    The least depth becomes 0; a layer of one depth stays as it is.
    """
    import torch

    places = depths.flatten(1).long()
    counts = depths.new_zeros(len(depths), int(FAR) + 1).scatter_add_(1, places, torch.ones_like(depths).flatten(1))
    least = counts.gather(1, places.amin(dim=1, keepdim=True))
    rest = places.shape[1] - least
    # In single precision and this order, as OpenCV: half a level is common.
    levels = ((counts.cumsum(dim=1) - least) * (rest.new_tensor(255) / rest)).round_()
    levels = torch.where(rest == 0, torch.arange(levels.shape[1], device=levels.device), levels)
    return levels.gather(1, places).view(depths.shape)


def _blurred(layers: Tensor) -> Tensor:
    """Return the means of 3 x 3 pixels."""
    import torch

    return _nine(_mirrored(layers), torch.add).div_(9)


def _nine(padded: Tensor, joined: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the 3 x 3 values about each pixel, joined: rows, then columns. Torch's pooling takes ten times as long."""
    rows = joined(joined(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return joined(joined(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])


def _mirrored(layers: Tensor) -> Tensor:
    """Return layers one pixel larger on every side, mirrored about their outermost pixels."""
    from torch.nn import functional

    return functional.pad(layers[:, None], (1, 1, 1, 1), mode="reflect")[:, 0]
