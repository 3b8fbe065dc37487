"""JSMA, the Jacobian-based saliency map attack (Papernot et al. 2016, arXiv 1511.07528)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.core.budget import TOLERANCE
from robustgate.core.components import Loss, Passes, Query
from robustgate.core.losses import others

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["Jsma"]


@dataclass(frozen=True, kw_only=True)
class Jsma:
    """Change two values at a time by `theta`: those that raise the target's logit and lower the sum of the others'.

    `eps` is the share of the values (of 3 x H x W) that may change, the paper's gamma; `theta` is how much a value
    changes, to 0 or 1 at most, downwards where it is negative. A pair's saliency is (a_i + a_j) · |b_i + b_j| where
    a_i + a_j > 0 and b_i + b_j < 0 (algorithm 3), a being the slopes of the target's logit and b those of the others'
    sum. Values at their limit are not searched. The walk ends when the sample falls, or when all values that may change
    are at their limit; the last value of an odd number changes alone.

    The paper's attack is targeted. This one goes for whichever class is wrong and has the largest logit at each step,
    and any wrong decision counts.

    The saliency of all pairs needs the square of the number of values: at 3 x 224 x 224 the memory of 2e10 numbers. But
    it only grows with a and with -b, so of the best pair neither value has two others that are better in both: those
    few are found by sorting, and their pairs searched: three values at most on a trained ResNet-20. Were they more than
    half of `candidates`, as many are taken along the trade-off between a and -b and as many with the largest sum: the
    best pair may then be missed.

    Where no pair has both signs, which the paper leaves open, those with the largest slope of the target's logit less
    the others' mean change; so too against a network of two logits of which one is constant.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = False
    norm: ClassVar[Literal["l0"]] = "l0"

    eps: float
    theta: float = 1.0
    candidates: int = 512

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps is the share of values that may change, above 0 and at most 1, got {self.eps:g}")
        if not 0 < abs(self.theta) <= 1:
            raise ValueError(f"theta must be a change within [-1, 1] and not 0, got {self.theta:g}")
        if self.candidates < 2:
            raise ValueError(f"candidates must be at least 2, got {self.candidates}")

    def passes(self, values: int | None) -> Passes | None:
        """Return the most that is asked about one sample: a step for each value that may change, of each `theta`.

        A pair may change together, so that half of it is the rule. None where the number of values is not known.
        """
        if values is None:
            return None
        # Ten times a tenth may be a little below 1.
        moves = 1 if abs(self.theta) == 1 else 1 + math.floor(1 / abs(self.theta))
        steps = int(self.eps * values + TOLERANCE) * moves
        return Passes(forward=steps + 1, backward=2 * steps)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Change pair after pair."""
        import torch

        allowed = int(self.eps * images.shape[1:].numel() + TOLERANCE)
        rows = torch.arange(len(images) if allowed else 0, device=images.device)
        points = before = images.flatten(1)[: len(rows)]
        up = 1 if self.theta > 0 else -1
        while len(rows):
            changed = points != before
            left = allowed - changed.sum(dim=1)
            room = (points < 1) if up > 0 else (points > 0)
            searched = room & (changed | (left > 0)[:, None])
            goes_on = bool(searched.any())
            loss = towards_best_other(labels[rows]) if goes_on else None
            answer = yield Query(rows, points.view(-1, *images.shape[1:]), loss)
            standing = ~answer.settled
            if not goes_on or not bool(standing.any()):
                return
            rows, points, before, left = rows[standing], points[standing], before[standing], left[standing]
            slopes, searched = up * answer.gradient[standing].flatten(2), searched[standing]
            pairs = most_salient(slopes[:, 0], -slopes[:, 1], searched, left == 1, self.candidates)
            mean = slopes[:, 0] - slopes[:, 1] / (target.classes - 1)
            pairs = pairs.where(pairs >= 0, steepest(mean, searched, left == 1))
            moves = pairs[:, 0] >= 0
            rows, points, before, pairs = rows[moves], points[moves], before[moves], pairs[moves]
            points = points.scatter(1, pairs, (points.gather(1, pairs) + self.theta).clamp(0, 1))


def towards_best_other(labels: Tensor) -> Loss:
    """Return the loss of two values: the largest logit but the label's, and the sum of all but that one."""

    def loss(logits: Tensor) -> Tensor:
        import torch

        best = others(logits, labels).argmax(dim=1, keepdim=True)
        towards = logits.gather(1, best)[:, 0]
        return torch.stack([towards, logits.sum(dim=1) - towards], dim=1)

    return loss


def most_salient(p: Tensor, q: Tensor, searched: Tensor, single: Tensor, candidates: int) -> Tensor:
    """Return the indices (n, 2) of the pair that maximises (p_i + p_j)(q_i + q_j) where both sums are above 0.

    `p`, `q` and `searched` are (n, values): only values in `searched` are paired. Where `single` (n,) one value is
    looked for, and stands twice. Where there is none both indices are -1.
    """
    import torch

    low = float("-inf")
    # As shares of the largest, whose products are not too small for float32.
    p, q = (one / one.abs().where(searched, 0).amax(dim=1, keepdim=True).clamp_min(1e-38) for one in (p, q))
    p, order = p.where(searched, low).sort(dim=1, descending=True, stable=True)
    q = q.where(searched, low).gather(1, order)
    # Those before a value have a p as large. It stays if its q is above all of theirs but one: above the second
    # largest so far, which is the largest of what was each time the smaller of a q and the largest before it.
    start = torch.full_like(q[:, :1], low)
    largest = torch.cat([start, q.cummax(dim=1).values], dim=1)[:, :-1]
    second = torch.cat([start, q.minimum(largest).cummax(dim=1).values], dim=1)[:, :-1]
    place = choose(p, q, q > second, candidates // 2)
    held = place >= 0
    p, q, order = (one.gather(1, place.clamp_min(0)) for one in (p, q, order))
    p, q = p.where(held, low), q.where(held, low)
    rise, fall = p[:, :, None] + p[:, None], q[:, :, None] + q[:, None]
    alone = (order[:, :, None] == order[:, None]) == single[:, None, None]
    saliency = (rise * fall).where(alone & (rise > 0) & (fall > 0), low).flatten(1)
    value, best = saliency.max(dim=1)
    pairs = order.gather(1, torch.stack([best // p.shape[1], best % p.shape[1]], dim=1))
    return pairs.where((value > low)[:, None], -1)


def choose(p: Tensor, q: Tensor, wanted: Tensor, half: int) -> Tensor:
    """Return places (n, k) of true ones in the rows of `wanted` (n, values); -1 stands for none.

    All of them, where there are `half` at most; of more, `half` evenly from the first to the last, and the `half` with
    the largest sum of p and q.
    """
    import torch

    count = wanted.sum(dim=1, keepdim=True)
    most = int(count.max())
    steps = torch.arange(max(1, min(half, most)), device=p.device)
    nth = torch.where(count > half, steps * (count - 1) // max(half - 1, 1), steps)
    # The n-th of them is where the count reaches it.
    places = torch.searchsorted(wanted.cumsum(dim=1), nth + 1).where(nth < count, -1)
    if most > half:
        value, best = (p + q).where(wanted, float("-inf")).topk(half, dim=1)
        places = torch.cat([places, best.where(value.isfinite(), -1)], dim=1)
    return places


def steepest(slope: Tensor, searched: Tensor, single: Tensor) -> Tensor:
    """Return the indices (n, 2) of the largest slopes (n, values) in `searched`; -1 where their sum is not above 0.

    Where `single` (n,) the largest stands twice.
    """
    values, pairs = slope.where(searched, float("-inf")).topk(2, dim=1)
    values[single, 1], pairs[single, 1] = values[single, 0], pairs[single, 0]
    return pairs.where((values.sum(dim=1) > 0)[:, None], -1)
