"""An interval for the least of several proportions: the accuracy of the worst class, of the worst domain."""

from __future__ import annotations

from collections.abc import Sequence

from robustgate.statistics.proportion import Interval, clopper_pearson


def least_interval(counts: Sequence[tuple[int, int]], confidence: float) -> Interval:
    """Return the interval of the least of K proportions, seen as `counts` of (successes, n); of one, the exact one.

    It never covers less often than `confidence`, whatever the dependence between them. That the least lower end lies
    above the least proportion takes one miss, that of the least proportion's own interval: lower ends need no
    correction. For the least upper end to lie below it, any of the K may miss: each is allowed a K-th of the tail.
    Raises ValueError for counts or a confidence that cannot be, and without counts.
    """
    if not counts:
        raise ValueError("expected the counts of at least one proportion, got none")
    strict = 1 - (1 - confidence) / len(counts)
    return Interval(
        low=min(clopper_pearson(successes, n, confidence).low for successes, n in counts),
        high=min(clopper_pearson(successes, n, strict).high for successes, n in counts),
    )
