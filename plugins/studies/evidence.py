"""From images that came out right to what they say of a claim: paired differences, over images and over seeds.

A contrast is a sum of accuracies with weights, such as that of a pruned network less that of its control. All its terms
are of the same images, so that each image has its own difference, and the interval is that of their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from measuring import Results, Task
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.99
Verdict = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True)
class Network:
    """A network of the study, whatever its seed; `compression` may be ``control:half``."""

    setting: str
    model: str
    source: str
    compression: str

    def task(self, seed: int, part: str) -> Task:
        """Return the task that measures it."""
        return Task(seed, self.setting, self.model, self.source, self.compression, part)


@dataclass(frozen=True)
class Term:
    """An accuracy, the mean over `shifts`, and its weight in a contrast."""

    weight: float
    network: Network
    shifts: tuple[str, ...]
    part: str = "whole"


@dataclass(frozen=True)
class Contrast:
    """What a claim says is above `limit` (below it, with `below`): a weighted sum of accuracies of the same images.

    With `smaller`, the first term's artifact must also be smaller than the last one's, in deflated bytes.
    """

    name: str
    terms: tuple[Term, ...]
    limit: float = 0.0
    below: bool = False
    smaller: bool = False

    def tasks(self, seed: int) -> list[Task]:
        """Return what must be measured for it."""
        return list(dict.fromkeys(term.network.task(seed, term.part) for term in self.terms))


@dataclass(frozen=True)
class Evidence:
    """What the images say: the effect, its interval over images, and the effect of each seed; shares, not points.

    The interval speaks of other images for these very networks; other trainings differ as `by_seed` does. So a verdict
    needs both: an interval on one side of the limit, and every seed on that side.
    """

    contrast: Contrast
    effect: float
    low: float
    high: float
    n: int
    by_seed: tuple[float, ...]
    is_small_enough: bool = True

    @property
    def verdict(self) -> Verdict:
        """Say which it is."""
        if not self.is_small_enough:
            return "contradicted"
        sign = -1 if self.contrast.below else 1
        low, high = sorted((sign * (self.low - self.contrast.limit), sign * (self.high - self.contrast.limit)))
        seeds = [sign * (one - self.contrast.limit) for one in self.by_seed]
        if low > 0 and min(seeds) > 0:
            return "supported"
        if high < 0 and max(seeds) < 0:
            return "contradicted"
        return "undecided"

    @property
    def images_to_decide(self) -> int | None:
        """Return about how many images would put the interval on one side, were the effect as it is; None if it is."""
        away = abs(self.effect - self.contrast.limit)
        half = (self.high - self.low) / 2
        if away >= half or away == 0:
            return None
        return int(np.ceil(self.n * (half / away) ** 2))


def weigh(contrast: Contrast, results: Results, seeds: Sequence[int], comparisons: int = 1) -> Evidence | None:
    """Return the evidence over the seeds whose tasks are all measured, None where there is no such seed.

    With several comparisons in one claim, each interval is that much surer (Bonferroni).
    """
    measured = [seed for seed in seeds if all(results.has(task) for task in contrast.tasks(seed))]
    if not measured:
        return None
    values = np.array([_values(contrast, results, seed) for seed in measured])
    images = values.mean(axis=0)
    error = (1 - CONFIDENCE) / comparisons
    spread = stats.sem(images) * stats.t.ppf(1 - error / 2, len(images) - 1)
    if np.ptp(images) == 0:
        # That none of n images differs does not say that none would: of that many others, this share may (Clopper and
        # Pearson), and by as much as the contrast allows.
        spread = (1 - (error / 2) ** (1 / len(images))) * sum(abs(term.weight) for term in contrast.terms) / 2
    effect = float(images.mean())
    return Evidence(
        contrast=contrast,
        effect=effect,
        low=effect - float(spread),
        high=effect + float(spread),
        n=len(images),
        by_seed=tuple(float(one.mean()) for one in values),
        is_small_enough=not contrast.smaller or all(_is_smaller(contrast, results, seed) for seed in measured),
    )


def _is_smaller(contrast: Contrast, results: Results, seed: int) -> bool:
    first, last = (
        results.facts(term.network.task(seed, term.part)) for term in contrast.terms[:: len(contrast.terms) - 1]
    )
    return bool(first["bytes"] < last["bytes"])


def _values(contrast: Contrast, results: Results, seed: int) -> NDArray[np.float64]:
    """Return the contrast of each image (N,)."""
    total: NDArray[np.float64] | None = None
    for term in contrast.terms:
        task = term.network.task(seed, term.part)
        right = np.mean([results.right(task, shift) for shift in term.shifts], axis=0)
        total = term.weight * right if total is None else total + term.weight * right
    if total is None:
        raise ValueError(f"{contrast.name}: a contrast needs terms")
    return total


def together(found: Sequence[Evidence], *, one_suffices: bool = False) -> Verdict:
    """Return the verdict of a claim from those of its contrasts: all must hold, or one suffices."""
    verdicts = {one.verdict for one in found}
    decisive: Verdict = "supported" if one_suffices else "contradicted"
    if decisive in verdicts:
        return decisive
    return verdicts.pop() if len(verdicts) == 1 else "undecided"
