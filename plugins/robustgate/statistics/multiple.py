"""Several findings under one error rate: how strict each must be when some are decided already."""

from __future__ import annotations

from collections.abc import Callable


def stepped_down(decided_at: Callable[[float], int], count: int, error: float) -> float:
    """Return the error that each of `count` findings may have so that the chance of any wrong one stays at `error`.

    `decided_at` tells how many findings are decided when each may err at a level; a higher level never decides fewer.
    A decided finding hands its share of the error to the others: with r decided the level is error / (count - r), which
    may decide more. The level is that of the findings that stay undecided, or the last one that decided all. Raises
    ValueError for a count or an error that cannot be. Source: Holm 1979, Scand. J. Stat. 6:65.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1: nothing is to be decided, got {count}")
    if not 0 < error < 1:
        raise ValueError(f"error must lie strictly between 0 and 1, got {error:g}")
    decided = 0
    while True:
        level = error / (count - decided)
        now = decided_at(level)
        if now == count or now <= decided:
            return level
        decided = now
