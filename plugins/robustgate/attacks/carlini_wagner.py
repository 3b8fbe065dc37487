"""The l2 attack of Carlini & Wagner (2017, arXiv 1608.04644, section VI.A)."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.attacks._approach import approach_passes
from robustgate.core.budget import Budget, check_eps
from robustgate.core.components import Answer, Passes, Query
from robustgate.core.losses import margin
from robustgate.core.walks import approach

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import AttackTarget, Draws, Walk

__all__ = ["CarliniWagner"]

# The box of the change of variables, against [0, 1]: at 0 and 1 a step of w then moves a value a sixth as far as in
# the middle, where in a box of the same size it would not move it at all.
WIDTH = 1.1
EDGE = math.atanh(1 / WIDTH)
# The longest first step, as a share of the nearest distance known.
SHARE = 0.2
# The first c, in units of the one at which the linearised loss has its smallest value on the boundary.
FIRST_C = 2.0
# With fewer steps than these a search has to hurry: both are larger in proportion.
UNHURRIED = 25
# What a search must bring a sample nearer by, if it is to begin another; what its loss must fall by in a tenth of one.
GAIN, PROGRESS = 0.01, 1e-4
# The decision on images that differ by less than this is a matter of float32 arithmetic.
NEAR = 1e-6
# What keeps c, and its product with a gradient, finite.
LARGE = 1e30


@dataclass(frozen=True, kw_only=True)
class CarliniWagner:
    """Minimise distance² + c · max(`confidence` - margin, 0) with Adam, and search for the smallest c that fools.

    `eps` is the budget that the norms found are counted at. The margin is the largest other logit less the label's.
    The image is written as x = 1/2 + WIDTH/2 · tanh(w), clamped to [0, 1]. In the paper WIDTH is 1, and a value of
    exactly 0 or 1 has an infinite w, or with a box shrunk by 1e-6 one that 200 steps of 0.01 do not move. Each of
    `binary_searches` values of c begins again at the image: c grows tenfold while nothing is found, then is halved
    between the largest that did not fool and the smallest that did. What the artifact still gets right is pushed on,
    even where its differentiable twin has given way.

    Where it is not the paper's:

    - `steps` is 200 a search; the paper's 10,000 cost 90,000 gradients a sample.
    - `lr` is the longest step of w. It moves the grey image of 3 x 32 x 32 values by 0.3, and an image of 3 x 224 x 224
      by 2, however near its boundary is. So a sample's first step is at most SHARE of the nearest distance known: that
      of its nearest point, or of the linearised boundary, tenfold after each search that found nothing. Below UNHURRIED
      steps it is longer in proportion.
    - `initial_c` is by default FIRST_C times the c that fells the linearised network, so that the scale of the logits
      does not matter; the paper's is 1e-3.
    - `abort_early` takes a sample out of a search when its own loss has not fallen by 0.01 % in a tenth of the steps
      (the authors' code: when the whole batch's has not), and out of the attack when a search did not bring it nearer
      by 1 %. Without it every sample spends all steps of all searches.
    - A search for the boundary ends the attack, on the segment from the image to its nearest point, to
      2**-`refinements` of its length; it asks for logits only, and there is none with 0.

    A sample whose gradient is zero at the image is given up: every search begins there.
    """

    needs_gradient: ClassVar[bool] = True
    minimizes: ClassVar[bool] = True
    norm: ClassVar[Literal["l2"]] = "l2"

    eps: float
    binary_searches: int = 9
    steps: int = 200
    lr: float = 0.01
    initial_c: float | None = None
    confidence: float = 0.0
    abort_early: bool = True
    refinements: int = 10

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        for name, count, least in (
            ("binary_searches", self.binary_searches, 1),
            ("steps", self.steps, 1),
            ("refinements", self.refinements, 0),
        ):
            if count < least:
                raise ValueError(f"{name} must be at least {least}, got {count}")
        for name, value in (("lr", self.lr), ("initial_c", self.initial_c)):
            if value is not None and not 0 < value < LARGE:
                raise ValueError(f"{name} must be above 0 and finite, got {value:g}")
        if not 0 <= self.confidence < LARGE:
            raise ValueError(f"confidence must be at least 0 and finite, got {self.confidence:g}")

    def passes(self, values: int | None) -> Passes:  # noqa: ARG002
        """Return the most that is asked about one sample."""
        search = Passes(forward=self.steps, backward=self.steps - 1)
        return Passes(forward=1, backward=1) + search * self.binary_searches + approach_passes(self.refinements)

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:  # noqa: ARG002
        """Search for the c of each sample, then come nearer along a straight line."""
        import torch

        budget = Budget("l2", self.eps)
        first = yield Query(torch.arange(len(images), device=images.device), images, margin(labels))
        hunt = _Hunt(images, labels, first, self.confidence)
        slope = budget.slope(first.gradient)
        reach = (hunt.gap / slope).clamp(NEAR, LARGE)
        low, high = torch.zeros_like(slope), torch.full_like(slope, float("inf"))
        # Distance² + c (gap - slope · distance) is smallest at c · slope / 2: on the boundary if c is 2 reach / slope.
        hurry = max(1.0, UNHURRIED / self.steps)
        guess = (FIRST_C * hurry * 2 * reach / slope).clamp(max=LARGE)
        c = guess if self.initial_c is None else torch.full_like(slope, self.initial_c)
        spread = budget.size(stretch(box(images)))
        rows = (slope > 0).nonzero()[:, 0]
        for _ in range(self.binary_searches):
            if not len(rows):
                break
            before = hunt.nearest.clone()
            rate = (SHARE * hurry * reach / spread).clamp(max=self.lr)
            fooled = torch.zeros_like(labels, dtype=torch.bool)
            fooled[rows] = yield from self._descend(hunt, rows, c[rows], rate[rows])
            low, high = low.maximum(c).where(~fooled, low), high.minimum(c).where(fooled, high)
            # While c is below the guess, it is c that was too small, and not the steps.
            farther = reach.where(c < guess, (10 * reach).clamp(max=LARGE))
            reach = hunt.nearest.where(hunt.nearest.isfinite(), farther)
            gains = hunt.nearest.isinf() | (hunt.nearest <= (1 - GAIN) * before) | ((low == 0) & (c > guess))
            c = ((low + high) / 2).where(high.isfinite(), (10 * c).clamp(max=LARGE))
            rows = rows[gains[rows]] if self.abort_early else rows
        found = hunt.nearest.isfinite().nonzero()[:, 0]
        yield from approach(images, labels, self.confidence - hunt.gap, found, hunt.best[found], self.refinements)

    def _descend(self, hunt: _Hunt, rows: Tensor, c: Tensor, rate: Tensor) -> Generator[Query, Answer, Tensor]:
        """Walk from the images of the samples `rows` (n,), each with its c and step; return which of them fell."""
        import torch

        fooled = torch.zeros_like(rows, dtype=torch.bool)
        places = torch.arange(len(rows), device=rows.device)
        points, uphill, short = hunt.images[rows], hunt.slope[rows], ~fooled
        loss, w, adam = c * hunt.gap[rows], box(points), _Adam(points)
        for step in range(1, self.steps + 1):
            gradient = 2 * (points - hunt.images[rows]) - (c * short)[:, None, None, None] * uphill
            w = w - rate[:, None, None, None] * adam.direction(gradient * stretch(w))
            # At 0 and 1 the walk stops: beyond them the image would not follow w.
            w = w.clamp(-EDGE, EDGE)
            points = (0.5 + WIDTH / 2 * w.tanh()).clamp(0, 1)
            # The last answer is followed by no step.
            answer = yield Query(rows, points, margin(hunt.labels[rows]) if step < self.steps else None)
            distance = hunt.note(rows, points, answer.adversarial)
            gap = self.confidence - margin(hunt.labels[rows])(answer.logits)
            uphill, short = answer.gradient, ~answer.adversarial | (gap > 0)
            fooled[places[~short]] = True
            if self.abort_early and step % -(-self.steps // 10) == 0 and step < self.steps:
                value = distance.square() + c * gap.clamp_min(0)
                left = value <= (1 - PROGRESS) * loss
                if not bool(left.any()):
                    break
                rows, places, c, rate, loss = rows[left], places[left], c[left], rate[left], value[left]
                w, points, uphill, short = w[left], points[left], uphill[left], short[left]
                adam.keep(left)
        return fooled


def box(points: Tensor) -> Tensor:
    """Return the w of points in [0, 1]."""
    return ((2 * points - 1) / WIDTH).atanh()


def stretch(w: Tensor) -> Tensor:
    """Return how far a value of the image moves with its w: the derivative of x."""
    return WIDTH / 2 * (1 - w.tanh().square())


class _Hunt:
    """The samples (N,) of one run: what is known of them as they are, and the nearest that fooled of each.

    `gap` (N,) is what the margin lacks of the confidence at the image, `slope` (N, 3, H, W) the margin's gradient.
    """

    def __init__(self, images: Tensor, labels: Tensor, first: Answer, confidence: float) -> None:
        self.images, self.labels, self.slope = images, labels, first.gradient
        self.gap = (confidence - margin(labels)(first.logits)).clamp_min(0)
        self.nearest = images.new_full((len(images),), float("inf"))
        self.best = images.clone()

    def note(self, rows: Tensor, points: Tensor, adversarial: Tensor) -> Tensor:
        """Keep the points that fool and are nearer than those before; return the distances (n,) of all."""
        distance: Tensor = (points - self.images[rows]).flatten(1).norm(dim=1)
        better = adversarial & (distance < self.nearest[rows])
        self.nearest[rows[better]], self.best[rows[better]] = distance[better], points[better]
        return distance


class _Adam:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1) for each of some samples.

    Its epsilon is 1e-8 of a sample's largest value: in what units the loss is does not matter then.
    """

    def __init__(self, points: Tensor) -> None:
        self.first, self.second = points * 0, points * 0
        self.taken = 0

    def direction(self, gradient: Tensor) -> Tensor:
        """Take the gradients (n, 3, H, W) in; return the directions to step against, each value about 1 at most."""
        self.taken += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient.square()
        mean = self.first / (1 - math.pow(0.9, self.taken))
        size = (self.second / (1 - math.pow(0.999, self.taken))).sqrt()
        largest = size.amax(dim=(1, 2, 3), keepdim=True)
        direction: Tensor = mean / (size + 1e-8 * largest).clamp_min(1e-20)
        return direction

    def keep(self, left: Tensor) -> None:
        """Go on with some of the samples."""
        self.first, self.second = self.first[left], self.second[left]
