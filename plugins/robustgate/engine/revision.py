"""What a new baseline changes against the one before, case by case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robustgate.engine.baseline import Baseline, Standard
from robustgate.statistics.paired import PairedCounts, drop_interval

CONFIDENCE = 0.99
Change = Literal["new", "gone", "incomparable", "worse", "better", "unclear", "same"]


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A case of either baseline: ``incomparable`` on other data or under another shift, ``unclear`` between.

    `told` are its figures, in words; nothing for a case without a comparison.
    """

    name: str
    change: Change
    told: str = ""


def revisions(before: Baseline, after: Baseline) -> Iterator[Revision]:
    """Compare the cases of two baselines, paired on the samples that both have; one case after another, by name."""
    same_order = before.run.seed == after.run.seed
    for name in sorted(before.cases.keys() | after.cases.keys()):
        old, new = before.cases.get(name), after.cases.get(name)
        if old is None or new is None:
            yield Revision(name=name, change="new" if old is None else "gone")
        elif not same_order or (old.data, old.detail) != (new.data, new.detail):
            yield Revision(name=name, change="incomparable")
        else:
            yield _compared(name, old, new)


def shared(old: Standard, new: Standard) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which of the samples (n,) that both measured, the first ones drawn, came out right in each."""
    n = min(old.n, new.n)
    return old.outcomes[:n], new.outcomes[:n]


def _compared(name: str, old: Standard, new: Standard) -> Revision:
    before, after = shared(old, new)
    counts = PairedCounts.of(before, after)
    drop = drop_interval(counts, CONFIDENCE)
    change: Change = "same" if not counts.lost + counts.gained else "unclear"
    if drop.low > 0:
        change = "worse"
    elif drop.high < 0:
        change = "better"
    told = (
        f"{100 * before.mean():.1f} → {100 * after.mean():.1f} %, a drop of {100 * counts.drop:.1f} "
        f"[{100 * drop.low:.1f}, {100 * drop.high:.1f}] points on {counts.n:,} samples"
    )
    return Revision(name=name, change=change, told=told)
