"""HopSkipJump (Chen et al. 2020, arXiv 1904.02144)."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Answer, Passes, Query
from robustgate.core.walks import wide

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["HopSkipJump"]

Asking = Generator[Query, Answer, "Tensor"]

# The first estimate's probes are this far from the point, in l2.
FIRST_PROBE = 0.1
# What a probe changes a value by at least (its root mean square): about one level of 8 bits.
FINEST = 1 / 256
# The most halvings of a bisection: float32 tells no closer points apart; of a leap, which is given up then.
CLOSEST, SHORTEST = 23, 12
# An estimate from fewer probes is not worth its leap.
LEAST = 10


@dataclass(frozen=True, kw_only=True)
class HopSkipJump:
    """Walk along the boundary by decisions alone: estimate its normal from random probes, leap, come back by bisection.

    Logits are never looked at, so that none can mislead it. `eps` is the budget that the norms found are counted at.
    At most `queries` are asked about a sample, starts and bisections among them. Estimate t takes
    `initial_evaluations` times the root of t, the last one what is left. `gamma` sets how far a bisection goes, to
    gamma / d**1.5 of a segment in l2 and gamma / d**2 in linf for d values, and how far the probes are from the
    boundary: gamma / d of the distance to the image. Leaps begin with the distance over the root of t and are halved
    until the point is adversarial.

    Three things are other than in the paper. The start is a random image, of uniform noise as there; where that is
    classified as the sample is, others of coarser and coarser tiles follow, `tries` in all, and a sample for which none
    fools stands. Probes are a level of 8 bits away at least: where inputs are rounded to 8 bits the paper's tell
    little, and on the published ResNet-20 (8 images, 770 queries) the median norms were four to five times as large. A
    leap that no halving makes adversarial is given up, and the next estimate is from the same point; the paper would
    halve for ever.
    """

    needs_gradient: ClassVar[bool] = False
    minimizes: ClassVar[bool] = True

    eps: float
    norm: Literal["l2", "linf"] = "l2"
    queries: int = 1000
    initial_evaluations: int = 100
    gamma: float = 1.0
    tries: int = 50

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        for name in ("queries", "initial_evaluations", "tries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.gamma < float("inf"):
            raise ValueError(f"gamma must be above 0 and finite, got {self.gamma:g}")

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return the most that is asked about a sample."""
        return Passes(forward=self.queries)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Find a start, then estimate, leap and come back until the queries are used up."""
        hunt = Hunt(images, draws, Budget(self.norm, self.eps), self.queries)
        yield from hunt.begin(self.tries)
        values = images[0].numel()
        theta = self.gamma / values ** (1.5 if self.norm == "l2" else 2)
        halvings = min(max(math.ceil(-math.log2(theta)), 1), CLOSEST)
        yield from hunt.come_back(hunt.left.nonzero()[:, 0], halvings)
        turn = 1
        while True:
            room = hunt.left - halvings - 1  # for the leap and the way back
            rows = (room >= LEAST).nonzero()[:, 0]
            if not len(rows):
                return
            counts = room[rows].clamp_max(int(self.initial_evaluations * math.sqrt(turn)))
            distances = hunt.distances(rows)
            reach = distances.new_full(distances.shape, FIRST_PROBE) if turn == 1 else self.gamma / values * distances
            reach = reach.clamp_min(FINEST * math.sqrt(values))
            normals = yield from hunt.probe(rows, counts, reach)
            leapt = yield from hunt.leap(rows, normals, distances / math.sqrt(turn))
            yield from hunt.come_back(rows[leapt], halvings)
            turn += 1


class Hunt:
    """N samples, an adversarial point of each, and how many queries are `left` (N,): none for what is done with."""

    def __init__(self, images: Tensor, draws: Draws, budget: Budget, queries: int) -> None:
        import torch

        self.images, self.draws, self.budget = images, draws, budget
        self.points = images.clone()
        self.left = torch.full((len(images),), queries, device=images.device)

    def distances(self, rows: Tensor) -> Tensor:
        """Return how far the points of some samples are from their images."""
        return self.budget.size(self.points[rows] - self.images[rows])

    def ask(self, rows: Tensor, points: Tensor) -> Asking:
        """Return which points (n, 3, H, W) fool; of samples with no query left, none does."""
        live = self.left[rows] > 0
        fooled = ~live & live
        if bool(live.any()):
            answer = yield Query(rows[live], points[live])
            self.left[rows[live]] -= 1
            self.left[rows[live][answer.settled]] = 0
            fooled[live] = answer.adversarial
        return fooled

    def begin(self, tries: int) -> Walk:
        """Go to the first random image that fools; give up the samples for which none does."""
        import torch

        rows = torch.arange(len(self.images), device=self.images.device)
        for attempt in range(tries):
            points = tiles(self.images[rows], self.draws.take(rows), attempt)
            fooled = yield from self.ask(rows, points)
            self.points[rows[fooled]] = points[fooled]
            rows = rows[~fooled]
            if not len(rows):
                return
        self.left[rows] = 0

    def come_back(self, rows: Tensor, halvings: int) -> Walk:
        """Bisect between the images and the points, which fool: along the segment, or by the linf ball's radius."""
        centres, far = self.images[rows], self.points[rows] - self.images[rows]
        radius = wide(self.distances(rows))
        low, high = radius * 0, radius * 0 + 1
        for _ in range(halvings):
            middle = (low + high) / 2
            points = centres + (
                middle * far if self.budget.norm == "l2" else far.clamp(-middle * radius, middle * radius)
            )
            fooled = yield from self.ask(rows, points)
            self.points[rows[fooled]] = points[fooled]
            low, high = low.where(wide(fooled), middle), high.where(wide(~fooled), middle)

    def probe(self, rows: Tensor, counts: Tensor, reach: Tensor) -> Asking:
        """Return estimates (n, 3, H, W) of the normals, from `counts` (n,) probes at the l2 distance `reach` (n,).

        Each is the sum of the probes' offsets by their decisions, less the mean decision; where all agree,
        by the decisions themselves.
        """
        import torch

        points = self.points[rows]
        offsets, decided = torch.zeros_like(points), torch.zeros_like(points)
        total = torch.zeros_like(reach)
        for probe in range(int(counts.max())):
            some = (probe < counts).nonzero()[:, 0]
            sphere = Budget("l2", 1.0).direction(self.draws.take(rows[some]).normal(*points.shape[1:]))
            probes = (points[some] + wide(reach[some]) * sphere).clamp(0, 1)
            # Not `sphere`: what clipping and float32 left of it.
            offset = probes - points[some]
            fooled = yield from self.ask(rows[some], probes)
            decisions = 2 * fooled.to(reach.dtype) - 1
            offsets[some] += offset
            decided[some] += wide(decisions) * offset
            total[some] += decisions
        mean = total / counts
        return self.budget.direction(decided - wide(mean.where(mean.abs() < 1, mean * 0)) * offsets)

    def leap(self, rows: Tensor, directions: Tensor, lengths: Tensor) -> Asking:
        """Move the points along `directions` by the largest of the lengths (n,), halved and halved, that fools.

        Return which of them moved.
        """
        moved = lengths < 0
        for halved in range(SHORTEST):
            some = (~moved).nonzero()[:, 0]
            step = wide(lengths[some] / 2**halved) * directions[some]
            points = (self.points[rows[some]] + step).clamp(0, 1)
            fooled = yield from self.ask(rows[some], points)
            self.points[rows[some[fooled]]] = points[fooled]
            moved[some[fooled]] = True
            if bool(moved.all()):
                break
        return moved


def tiles(images: Tensor, draws: Draws, attempt: int) -> Tensor:
    """Return images of the same shape, of tiles of random colours: single pixels first, twice as large each attempt.

    After one colour for the whole image single pixels come again.
    """
    channels, height, width = images.shape[1:]
    side = 2 ** (attempt % (math.ceil(math.log2(max(height, width))) + 1))
    colours = draws.uniform(channels, -(-height // side), -(-width // side))
    return colours.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)[:, :, :height, :width]
