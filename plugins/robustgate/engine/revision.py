"""What a new baseline changes against the one before, case by case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from robustgate.engine.baseline import Baseline, Standard
from robustgate.engine.comparison import Change, paired

CONFIDENCE = 0.99


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


def _compared(name: str, old: Standard, new: Standard) -> Revision:
    contrast = paired(name, old, new)
    found = contrast.at(CONFIDENCE)
    told = f"{100 * contrast.before.value:.1f} → {100 * contrast.after.value:.1f} %"
    if (drop := found.drop) is not None:
        told += f", a drop of {100 * drop.value:.1f} [{100 * drop.low:.1f}, {100 * drop.high:.1f}] points"
        told += f" on {drop.n:,} samples"
    return Revision(name=name, change=found.change, told=told)
