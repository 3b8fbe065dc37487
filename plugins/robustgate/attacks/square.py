"""Square Attack (Andriushchenko et al. 2020, arXiv 1912.00049)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Passes, Query
from robustgate.core.losses import margin

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Square"]

# Ten-thousandths of the queries after which the squares' area halves (section 4.2 of the paper).
HALVES = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
# A query takes this many random numbers: two corners, a sign for each of three channels, an orientation. They are
# drawn for many queries at once: a draw is a NumPy call for each sample.
NUMBERS, BLOCK = 8, 64
# An l2 start is about this many tiles wide and high.
TILES = 5


@dataclass(frozen=True, kw_only=True)
class Square:
    """Change a random square at a time, and keep the change unless the margin of the logits says it is worse.

    Logits are all that it asks for: it needs no gradient, and none can mislead it. `queries` is the most that is asked
    about one image. `p_init` is the share of the image that the first squares cover; it halves after 0.1, 0.5, 2, 5,
    10, 20, 40, 60 and 80 % of the queries, the paper's schedule. In linf the start is vertical stripes and a square's
    new values lie on the edge of the ball (algorithm 2); in l2 the start is tiles, and a square is given the budget of
    another (algorithm 3).

    Three things differ from the paper. A change that leaves the margin as it was is kept too: a quantized file's logits
    lie on a grid, and small squares often move none. In linf a square that has its new colour already takes the
    opposite one. And where an image is too low or too narrow for a square, the square is as large as fits.
    """

    needs_gradient: ClassVar[bool] = False
    minimizes: ClassVar[bool] = False

    eps: float
    norm: Literal["linf", "l2"] = "linf"
    queries: int = 5000
    p_init: float = 0.8

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        if self.queries < 1:
            raise ValueError(f"queries must be at least 1, got {self.queries}")
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init must be above 0 and at most 1, a share of the image, got {self.p_init:g}")

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return what is asked about a sample that stands."""
        return Passes(forward=self.queries)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Search at random from the start."""
        import torch

        budget = Budget(self.norm, self.eps)
        start, change = (stripes, recolour) if self.norm == "linf" else (tiles, move_budget)
        rows = torch.arange(len(images), device=images.device)
        points = best = start(images, budget, draws)
        values = images.new_full((len(images),), float("-inf"))
        numbers = images.new_empty((len(images), 0, NUMBERS))
        for query in range(self.queries):
            if query > 0:
                place = (query - 1) % BLOCK
                if place == 0:
                    numbers = draws.take(rows).uniform(BLOCK, NUMBERS)
                points = change(best, images[rows], budget, self.side(query - 1, images.shape), numbers[:, place])
            answer = yield Query(rows, points)
            found = margin(labels[rows])(answer.logits)
            kept = found >= values
            best, values = points.where(kept[:, None, None, None], best), found.where(kept, values)
            left = ~answer.settled
            if not bool(left.all()):
                rows, best, values, numbers = rows[left], best[left], values[left], numbers[left]
            if not len(rows):
                return

    def side(self, change: int, shape: tuple[int, ...]) -> int:
        """Return the side of the square of a change, counted from 0, in pixels of images (N, C, H, W)."""
        height, width = shape[2:]
        done = change * 10_000 / self.queries
        share = self.p_init / 2 ** sum(done > after for after in HALVES)
        side = round(math.sqrt(share * height * width))
        if self.norm == "l2":  # odd and at least 3, so that a square has a middle
            side = max(side, 3) | 1
        return min(max(side, 1), height, width)


def stripes(images: Tensor, budget: Budget, draws: Draws) -> Tensor:
    """Return the linf start: columns of one pixel, each channel of each at one edge of the ball or the other."""
    channels, width = images.shape[1], images.shape[3]
    return (images + budget.eps * signs(draws.uniform(channels, 1, width))).clamp(0, 1)


def recolour(best: Tensor, images: Tensor, budget: Budget, side: int, numbers: Tensor) -> Tensor:
    """Return the best points (n, C, H, W) with a square of one colour, each channel of which is at an edge."""
    window = inside(*corner(numbers[:, 0:2], side, best), side, side)
    colour = budget.eps * signs(numbers[:, 4:7])[:, :, None, None]
    points = (images + colour).where(window, best).clamp(0, 1)
    # Where it has that colour already the query would be wasted: the opposite one then.
    same = (points == best).flatten(1).all(dim=1)[:, None, None, None]
    return (images - colour).where(window & same, points).clamp(0, 1)


def tiles(images: Tensor, budget: Budget, draws: Draws) -> Tensor:
    """Return the l2 start: as many tiles as fit in the middle, each a pair of bumps of random signs and orientation."""
    import torch

    channels, height, width = images.shape[1:]
    side = max(1, min(height, width) // TILES)
    high, wide = height // side, width // side
    down = torch.arange(height, device=images.device) - height % side // 2
    across = torch.arange(width, device=images.device) - width % side // 2
    covered = inside(down[None], across[None], high * side, wide * side)
    numbers = draws.uniform(channels + 1, high, wide)
    numbers = numbers[:, :, (down // side).clamp(0, high - 1)[:, None], (across // side).clamp(0, wide - 1)]
    shape = oriented(bumps(side, images), down[:, None] % side, across % side, numbers[:, -1:])
    return budget.project(images + budget.eps * budget.direction(covered * shape * signs(numbers[:, :-1])), images)


def move_budget(best: Tensor, images: Tensor, budget: Budget, side: int, numbers: Tensor) -> Tensor:
    """Return the best points (n, C, H, W) with one square's budget, and what is unused, given to another.

    The second square becomes zero; the first turns towards a pair of bumps, by channel (algorithm 3).
    """
    offset = best - images
    down, across = corner(numbers[:, 0:2], side, best)
    first = inside(down, across, side, side)
    both = first | inside(*corner(numbers[:, 2:4], side, best), side, side)
    down, across = down.clamp(0, side - 1)[:, None, :, None], across.clamp(0, side - 1)[:, None, None, :]
    shape = oriented(bumps(side, best), down, across, numbers[:, 7:8, None, None])
    turned = unit(offset * first) + first * shape * signs(numbers[:, 4:7])[:, :, None, None]
    unused = (budget.eps**2 - budget.size(offset).square()).clamp_min(0)[:, None, None, None]
    available = (offset * both).square().sum(dim=(2, 3), keepdim=True) + unused / best.shape[1]
    return budget.project(images + offset * ~both + available.sqrt() * unit(turned), images)


def signs(numbers: Tensor) -> Tensor:
    """Return -1 or 1 for numbers uniform in [0, 1)."""
    return 1 - 2 * (numbers < 0.5).to(numbers.dtype)


def corner(numbers: Tensor, side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far the pixels are from the corner of a random square: (n, H) down, (n, W) across."""
    import torch

    height, width = like.shape[2:]
    top = (numbers[:, 0, None] * (height - side + 1)).long()
    left = (numbers[:, 1, None] * (width - side + 1)).long()
    return torch.arange(height, device=like.device) - top, torch.arange(width, device=like.device) - left


def inside(down: Tensor, across: Tensor, height: int, width: int) -> Tensor:
    """Say which pixels (n, 1, H, W) are in a rectangle, given how far they are from its corner."""
    vertical, horizontal = (down >= 0) & (down < height), (across >= 0) & (across < width)
    return vertical[:, None, :, None] & horizontal[:, None, None, :]


def oriented(pattern: Tensor, down: Tensor, across: Tensor, numbers: Tensor) -> Tensor:
    """Return a pattern's values at places in it, or its transpose's: by the toss of a coin for each sample."""
    return pattern[down, across].where(numbers < 0.5, pattern[across, down])


def unit(offset: Tensor) -> Tensor:
    """Return an offset (..., H, W) with norm 1 in each channel, or zeros."""
    norms = offset.square().sum(dim=(-2, -1), keepdim=True).sqrt()
    return offset / norms.clamp_min(1e-20)


def bumps(side: int, like: Tensor) -> Tensor:
    """Return the square (side, side) of norm 1 whose upper half is a bump and whose lower half a dent (eq. 2)."""
    import torch

    halves = bump(side // 2, side, like), -bump(side - side // 2, side, like)
    return unit(torch.cat([unit(half) for half in halves]))


def bump(height: int, width: int, like: Tensor) -> Tensor:
    """Return a bump (height, width): 1 / (k + 1)² for every k from a pixel's distance to the middle up to the edge."""
    import torch

    down = (torch.arange(height, device=like.device) - height // 2).abs()
    across = (torch.arange(width, device=like.device) - width // 2).abs()
    rings = 1 / torch.arange(1, max(height, width) // 2 + 2, device=like.device, dtype=like.dtype).square()
    return rings.flip(0).cumsum(0).flip(0)[torch.maximum(down[:, None], across[None])]
