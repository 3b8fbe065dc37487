"""What a search for the boundary costs."""

from __future__ import annotations

from robustgate.core.components import Passes
from robustgate.core.walks import SLACK


def approach_passes(halvings: int) -> Passes:
    """Return the most that `core.walks.approach` asks about a sample, the point that it comes from included."""
    return Passes(forward=1 + halvings + SLACK if halvings else 0)
