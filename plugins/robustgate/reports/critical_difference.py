"""Critical-difference diagrams: mean ranks on a line, bars over those that do not differ (Demsar 2006, JMLR 7:1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from robustgate.core.files import whole

FORMATS = ("svg", "png", "pdf")
WIDTH, MARGIN = 8.0, 0.28  # inches; the share of the width, on either side, that the names take
ROW, HEAD = 0.22, 0.8  # inches for a name, and for the title and the line with its numbers
INK, BAR = "#1f2328", "#b3261e"


@dataclass(frozen=True, kw_only=True)
class Diagram:
    """Names with their mean ranks; `groups` are the indices of those that do not differ."""

    title: str
    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    critical_difference: float
    groups: tuple[tuple[int, ...], ...]


def write_diagrams(diagrams: Sequence[Diagram], path: Path) -> None:
    """Draw diagrams below one another; the suffix of `path` says in which of `FORMATS`."""
    import matplotlib
    from matplotlib.figure import Figure

    heights = [_height(diagram) for diagram in diagrams]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own style is none of the report's
        settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "robustgate", "font.size": 9}
        matplotlib.rcParams.update(settings | {"font.sans-serif": ["DejaVu Sans"], "text.parse_math": False})
        figure = Figure(figsize=(WIDTH, sum(heights)), facecolor="white")
        top = 1.0
        for diagram, height in zip(diagrams, heights, strict=True):
            top -= height / sum(heights)
            _draw(figure.add_axes((0.0, top, 1.0, height / sum(heights))), diagram, height)
        with whole(path) as file:
            figure.savefig(file, format=path.suffix.removeprefix("."), dpi=160, metadata=_undated(path))


def _undated(path: Path) -> dict[str, None]:
    """Return what keeps the same diagram the same bytes."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix, {})


def _height(diagram: Diagram) -> float:
    return HEAD + 0.1 * len(diagram.groups) + ROW * (ceil(len(diagram.names) / 2) + 1)


def _draw(axes: Any, diagram: Diagram, height: float) -> None:
    """Draw in inches: the line from rank 1 to the last, the names of the better half to its left, the others right."""
    count = len(diagram.names)
    left, right = MARGIN * WIDTH, (1 - MARGIN) * WIDTH
    scale = (right - left) / (count - 1)
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.axis("off")
    axes.text(0.1, height - 0.15, diagram.title, va="top", color=INK, weight="bold")
    line = height - HEAD
    axes.plot([left, right], [line, line], color=INK, linewidth=1)
    for rank in range(1, count + 1):
        at = left + (rank - 1) * scale
        axes.plot([at, at], [line, line + 0.06], color=INK, linewidth=1)
        axes.text(at, line + 0.09, str(rank), ha="center", va="bottom", color=INK)
    # The critical difference as a length, above the line's end; as long as the line where it is longer.
    apart = min(diagram.critical_difference * scale, right - left)
    axes.plot([right - apart, right], [line + 0.34, line + 0.34], color=INK, linewidth=1.5, marker="|")
    axes.text(right + 0.1, line + 0.34, f"CD {diagram.critical_difference:.2f}", va="center", color=INK)
    for index, group in enumerate(diagram.groups):
        ends = [left + (diagram.mean_ranks[one] - 1) * scale for one in (group[0], group[-1])]
        level = line - 0.1 * (index + 1)
        axes.plot([ends[0] - 0.04, ends[1] + 0.04], [level, level], color=BAR, linewidth=3, solid_capstyle="butt")
    order = sorted(range(count), key=lambda one: diagram.mean_ranks[one])
    below = line - 0.1 * len(diagram.groups)
    better = ceil(count / 2)
    for place, one in enumerate(order):
        is_better = place < better
        row = place if is_better else count - 1 - place
        at, level = left + (diagram.mean_ranks[one] - 1) * scale, below - ROW * (row + 1)
        end = left - 0.15 if is_better else right + 0.15
        axes.plot([at, at, end], [line, level, level], color=INK, linewidth=0.6)
        words = diagram.names[one], f"{diagram.mean_ranks[one]:.2f}"
        text = "  ".join(words if is_better else reversed(words))
        axes.text(end + (-0.06 if is_better else 0.06), level, text, ha="right" if is_better else "left", va="center")
