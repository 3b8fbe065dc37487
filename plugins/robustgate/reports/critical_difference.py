"""Critical-difference diagrams: mean ranks on a line, bars over those that do not differ (Demsar 2006, JMLR 7:1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from robustgate.core.files import whole
from robustgate.reports import drawing, figures
from robustgate.reports.marks import Label

FORMATS = ("svg", "png", "pdf")
WIDTH, MARGIN = 8.0, 0.32  # inches; the share of the width, on either side, that the names take
ROW, HEAD = 0.22, 0.8  # inches for a name, and for the title and the line with its numbers
TITLE = 0.25  # of which so much is the title's
# Of a name, so many letters have room beside the line.
LONGEST = 24
INK, BAR = "#1f2328", "#b3261e"


@dataclass(frozen=True, kw_only=True)
class Diagram:
    """Names with their mean ranks; `groups` are the indices of those that do not differ."""

    title: str
    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    critical_difference: float
    groups: tuple[tuple[int, ...], ...]

    @property
    def order(self) -> list[int]:
        """The indices of the names, the best rank first."""
        return sorted(range(len(self.names)), key=lambda one: self.mean_ranks[one])

    @property
    def view_box(self) -> str:
        """The coordinates of `svg` and `labels`."""
        return f"0 {72 * TITLE:g} {72 * WIDTH:g} {72 * (_height(self) - TITLE):g}"

    @property
    def svg(self) -> str:
        """The diagram without title and names, in the colours of report.css."""
        height = _height(self)
        with drawing.style():
            figure, axes = drawing.sheet((WIDTH, height), (0.0, 0.0, 1.0, 1.0))
            _draw(axes, self, height, drawing.colour("soft"), drawing.colour("link"))
            return drawing.svg(figure)

    @property
    def labels(self) -> list[Label]:
        """The names, with their mean ranks, where they stand over `svg`: they come from outside."""
        height = _height(self)
        return [
            Label(x=round(72 * x, 2), y=round(72 * (height - y), 2), anchor=anchor, text=text)
            for x, y, anchor, text in _names(self, height)
        ]


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
            axes: Any = figure.add_axes((0.0, top, 1.0, height / sum(heights)))
            _draw(axes, diagram, height, INK, BAR)
            axes.text(0.1, height - 0.15, diagram.title, va="top", color=INK, weight="bold")
            for x, y, anchor, text in _names(diagram, height):
                axes.text(x, y, text, ha={"end": "right", "start": "left"}[anchor], va="center", color=INK)
        with whole(path) as file:
            figure.savefig(file, format=path.suffix.removeprefix("."), dpi=160, metadata=_undated(path))


def _undated(path: Path) -> dict[str, None]:
    """Return what keeps the same diagram the same bytes."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix, {})


def _height(diagram: Diagram) -> float:
    return HEAD + 0.1 * len(diagram.groups) + ROW * (ceil(len(diagram.names) / 2) + 1)


def _scale(diagram: Diagram) -> float:
    """Return how many inches a rank is long."""
    return (1 - 2 * MARGIN) * WIDTH / (len(diagram.names) - 1)


def _draw(axes: Any, diagram: Diagram, height: float, ink: str, bar: str) -> None:
    """Draw in inches: the line from rank 1 to the last, what the names hang on, and a bar over each group."""
    count, scale = len(diagram.names), _scale(diagram)
    left, right = MARGIN * WIDTH, (1 - MARGIN) * WIDTH
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.axis("off")
    line = height - HEAD
    axes.plot([left, right], [line, line], color=ink, linewidth=1)
    for rank in range(1, count + 1):
        at = left + (rank - 1) * scale
        axes.plot([at, at], [line, line + 0.06], color=ink, linewidth=1)
        axes.text(at, line + 0.09, str(rank), ha="center", va="bottom", color=ink)
    # The critical difference as a length, above the line's end; as long as the line where it is longer.
    apart = min(diagram.critical_difference * scale, right - left)
    level, ends = line + 0.34, (right - apart, right)
    axes.plot(ends, [level, level], color=ink, linewidth=1.5)
    for end in ends:
        axes.plot([end, end], [level - 0.04, level + 0.04], color=ink, linewidth=1.5)
    axes.text(right + 0.1, level, f"CD {diagram.critical_difference:.2f}", va="center", color=ink)
    for index, group in enumerate(diagram.groups):
        ends = left + (diagram.mean_ranks[group[0]] - 1) * scale, left + (diagram.mean_ranks[group[-1]] - 1) * scale
        level = line - 0.1 * (index + 1)
        axes.plot([ends[0] - 0.04, ends[1] + 0.04], [level, level], color=bar, linewidth=3, solid_capstyle="butt")
    for one, (end, level, anchor, _) in zip(diagram.order, _names(diagram, height), strict=True):
        at = left + (diagram.mean_ranks[one] - 1) * scale
        stop = end + (0.06 if anchor == "end" else -0.06)
        axes.plot([at, at, stop], [line, level, level], color=ink, linewidth=0.6)


def _names(diagram: Diagram, height: float) -> Iterator[tuple[float, float, str, str]]:
    """Yield x, y, the anchor and the text of each name, the best first: the better half left, the others right."""
    count = len(diagram.names)
    better, below = ceil(count / 2), height - HEAD - 0.1 * len(diagram.groups)
    for place, one in enumerate(diagram.order):
        is_better = place < better
        level = below - ROW * ((place if is_better else count - 1 - place) + 1)
        name, rank = figures.clipped(diagram.names[one], LONGEST), f"{diagram.mean_ranks[one]:.2f}"
        if is_better:
            yield MARGIN * WIDTH - 0.21, level, "end", f"{name}  {rank}"
        else:
            yield (1 - MARGIN) * WIDTH + 0.21, level, "start", f"{rank}  {name}"
