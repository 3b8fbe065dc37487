"""The classes of a pair's two domains, matched by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustgate.config import Pair
from robustgate.core.components import Samples
from robustgate.core.errors import DomainError, listing, nearest
from robustgate.core.images import take


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Which of a target's samples are measured, `rows` (n,), and their `labels` (n,) among the source's `classes`.

    `details` tells what was dropped, if that was asked for: ``classes`` with ``dropped``, the samples of each class
    that was left out, and ``without_samples``, the source's classes of which there are none.
    """

    classes: tuple[str, ...]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    details: dict[str, Any] = field(default_factory=dict)

    def apply(self, samples: Samples) -> Samples:
        """Return the target's samples with their labels as the source's classes."""
        if self.classes == samples.classes and len(self.rows) == len(samples):
            return samples
        known = samples if len(self.rows) == len(samples) else take(samples, self.rows)
        return replace(known, labels=self.labels, classes=self.classes)


def match(pair: Pair, ours: tuple[str, ...], theirs: tuple[str, ...], labels: NDArray[np.int64]) -> Matching:
    """Match the target's classes, `theirs`, with the source's. `labels` are the target's.

    Raises DomainError where a name in `pair.classes` is unknown, a class is missing, or no sample is left.
    """
    where = f"pair {pair.source} → {pair.target}"
    unknown = [
        f"{name!r} is no class of {domain}{nearest(name, known)}"
        for names, domain, known in (
            (pair.classes.keys(), pair.target, theirs),
            (dict.fromkeys(pair.classes.values()), pair.source, ours),
        )
        for name in names
        if name not in known
    ]
    if unknown:
        raise DomainError(f"{where}: classes: {'; '.join(unknown)}")
    renamed = [pair.classes.get(name, name) for name in theirs]
    strange = [name for name, new in zip(theirs, renamed, strict=True) if new not in ours]
    absent = [name for name in ours if name not in renamed]
    if pair.missing == "error" and (strange or absent):
        raise DomainError(
            f"{where}: expected the {len(ours)} classes of {pair.source} in {pair.target}, got {len(theirs)}; "
            f"only in {pair.source}: {listing(absent)}; only in {pair.target}: {listing(strange)}; "
            "a pair's table may rename them (classes) or drop them (missing)"
        )
    index = np.array([ours.index(new) if new in ours else -1 for new in renamed], dtype=np.int64)
    matched = index[labels]
    rows = np.flatnonzero(matched >= 0)
    if not len(rows):
        raise DomainError(f"{where}: no sample of {pair.target} is of a class of {pair.source}")
    details = _details(pair, ours, theirs, labels, matched) if pair.missing == "drop" else {}
    return Matching(classes=ours, rows=rows, labels=matched[rows], details=details)


def _details(
    pair: Pair,
    ours: tuple[str, ...],
    theirs: tuple[str, ...],
    labels: NDArray[np.int64],
    matched: NDArray[np.int64],
) -> dict[str, Any]:
    counts = Counter(labels[matched < 0].tolist())
    present = set(matched.tolist())
    dropped = {name: counts[label] for label, name in enumerate(theirs) if pair.classes.get(name, name) not in ours}
    without = [name for label, name in enumerate(ours) if label not in present]
    return {"classes": {"dropped": dropped, "without_samples": without}} if dropped or without else {}
