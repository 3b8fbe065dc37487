"""Planes, as a linearised network's boundaries: the nearest of several, and the exact step to one within [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustgate.core.budget import Budget
from robustgate.core.components import Norm

if TYPE_CHECKING:
    from torch import Tensor

# Below any ratio of two float32 numbers, and its square still above zero in float64.
TINY = 1e-150


def step_to_plane(points: Tensor, values: Tensor, gradient: Tensor, norm: Norm) -> Tensor:
    """Return the smallest steps in linf or l2 from points in [0, 1] to a plane, without leaving [0, 1].

    A step (n, C, H, W) is to the plane where `values` (n,) plus its product with the `gradient` (n, C, H, W) is zero.
    Where the box does not reach so far, it goes to the box's corner that is nearest to the plane; where the gradient is
    zero it is zero.

    Every value moves towards the plane at a pace, until it has no room: an equal pace for linf, for l2 one as the
    gradient's own (the conditions of Karush, Kuhn and Tucker). How near the plane comes is then a concave function of
    time, in straight pieces that end where one more value stops: sorting finds the piece on which the plane is reached.
    """
    import torch

    place, slope = points.flatten(1).double(), gradient.flatten(1).double()
    ahead = -values.sign().double()[:, None] * slope.sign()
    slope = slope.abs()
    steepest = slope.amax(dim=1, keepdim=True).clamp_min(TINY)
    slope, wanted = slope / steepest, values.double().abs()[:, None] / steepest
    room = (1 - place).where(ahead > 0, place) * ahead.abs()
    pace = slope if norm == "l2" else torch.ones_like(slope)
    ends, order = (room / pace.clamp_min(TINY)).sort(dim=1)
    # What has come of the values that stopped, at the k-th end, and how fast the others go on: the first of each is
    # the start, where none has stopped.
    gained = torch.nn.functional.pad((slope * room).gather(1, order).cumsum(dim=1), (1, 0))
    speed = torch.nn.functional.pad((slope * pace).gather(1, order).flip(1).cumsum(dim=1).flip(1), (0, 1))
    reached = gained[:, 1:] + ends * speed[:, 1:]
    piece = (reached < wanted).sum(dim=1, keepdim=True)
    time = (wanted - gained.gather(1, piece)) / speed.gather(1, piece).clamp_min(TINY)
    time = time.clamp(min=0).minimum(ends[:, -1:])
    return (ahead * (time * pace).minimum(room)).to(points.dtype).view_as(points)


def distances_to_planes(values: Tensor, gradient: Tensor, budget: Budget) -> Tensor:
    """Return how far (n, K) each of K planes is, as if there were no box.

    `values` (n, K) are zero on the planes, `gradient` (n, K, 3, H, W) theirs. The distance is the value over the dual
    norm of the gradient. Where nothing slopes, or too little for float32, there is no plane: it is infinite.
    """
    slopes = budget.slope(gradient.flatten(0, 1)).view_as(values)
    return (values.abs() / slopes).where(slopes > 0, slopes.new_full((), float("inf")))


def nearest_plane(gradient: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Return which (n, 1) of K planes is the nearest, and its gradient (n, 3, H, W)."""
    nearest = distances.argmin(dim=1, keepdim=True)
    return nearest, gradient.take_along_dim(nearest[:, :, None, None, None], dim=1)[:, 0]
