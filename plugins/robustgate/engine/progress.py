"""How far a case is while it is measured: what a display tells of it before there is a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from robustgate.core.records import Case


@dataclass(frozen=True, kw_only=True)
class Reached:
    """`done` of a case's `total` samples are measured, `kept` of them by an earlier run.

    `right` of those done came out right, which is None where nobody knows yet. `is_draw` says that they are the first
    ones drawn at random, so that they tell of all; else they are in any order, and tell no more than what the rest can
    still change. A total of zero says that nothing is asked yet: a variant may have to be built first.
    """

    case: Case
    done: int = 0
    total: int = 0
    kept: int = 0
    right: int | None = None
    is_draw: bool = False


Listener = Callable[[Reached], None]


def nobody(reached: Reached) -> None:
    """Hear and do nothing."""
