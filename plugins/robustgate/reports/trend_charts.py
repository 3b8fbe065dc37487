"""A case over its runs, or a figure of a variant: the chart, and the table beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from robustgate.core.records import Verdict
from robustgate.reports import drawing, figures
from robustgate.reports.history import Point, Run, Series
from robustgate.reports.marks import Label, Mark, Scale
from robustgate.reports.view import STANDING, Standing

SIZE, PLACE = (4.4, 2.1), (0.12, 0.11, 0.86, 0.84)
SHAPE_OF: Mapping[Verdict, str] = {
    "pass": "circle",
    "waived": "square",
    "undecided": "diamond",
    "incomplete": "triangle",
    "fail": "cross",
    "error": "plus",
}
# The least range of an axis, as a share: of what a case holds, of a figure of a variant.
LEAST = 0.02


@dataclass(frozen=True, kw_only=True)
class PointRow:
    """A point of a series in a table, of the run of that number; `changed` says what else is not as it was before."""

    run: int
    started: str
    figure: str
    size: str
    standing: Standing
    changed: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A series that changed with the last run, over `runs`; `index` is its case among the results', if it is one."""

    series: Series
    runs: tuple[Run, ...]
    index: int | None

    view_box = drawing.view_box(SIZE)

    @property
    def before(self) -> Standing:
        """How it stood the time before."""
        return STANDING[self.series.points[-2].verdict]

    @property
    def standing(self) -> Standing:
        """How it stands now."""
        return STANDING[self.series.points[-1].verdict]

    @property
    def step(self) -> str:
        """From what to what, and by how much: ``90.0 → 75.0 %, -15.0 points``."""
        before, last = (point.value for point in self.series.points[-2:])
        if self.series.kind == "variant":
            return f"{figure(self.series, before)} → {figure(self.series, last)}"
        apart = figure(self.series, last - before, signed=True)
        return f"{figure(self.series, before)} → {figure(self.series, last)} %, {apart} points"

    @property
    def text(self) -> str:
        """The chart in words."""
        return f"{self.series.label} over {figures.counted(len(self.runs), 'run')}: " + "; ".join(
            f"{row.started[:10]} {row.figure} {row.standing.word}" for row in self.rows
        )

    @property
    def rows(self) -> list[PointRow]:
        """Each point, the oldest first."""
        return point_rows(self.series, self.runs)

    @property
    def scale(self) -> Scale:
        """Where in the chart a run and a figure lie."""
        known = [
            value for point in self.series.points for value in (point.value, point.low, point.high) if value is not None
        ]
        low, high = min(known), max(known)
        least = LEAST if self.series.kind != "variant" else LEAST * abs(high)
        spare = max(high - low, least) or 1.0
        middle, half = (low + high) / 2, 0.58 * spare
        last = len(self.runs) - 1
        return Scale(size=SIZE, place=PLACE, low=(-0.04 * last, middle - half), high=(1.04 * last, middle + half))

    @property
    def marks(self) -> list[Mark]:
        """A mark for each point, by its verdict."""
        found = []
        for point, row in zip(self.series.points, self.rows, strict=True):
            x, y = self.scale.spot(self._place(point), point.value)
            title = f"{row.started}: {row.figure}, {row.standing.word}" + (
                f"; other {row.changed}" if row.changed else ""
            )
            found.append(Mark(x=x, y=y, shape=SHAPE_OF[point.verdict], kind=row.standing.slug, title=title))
        return found

    @property
    def labels(self) -> list[Label]:
        """The days of the first and the last run, below the axis."""
        bottom = round(72 * SIZE[1] * (1 - PLACE[1]) + 10, 2)
        left, right = (round(72 * SIZE[0] * share, 2) for share in (PLACE[0], PLACE[0] + PLACE[2]))
        first, last = (run.started[:10] for run in (self.runs[0], self.runs[-1]))
        return [
            Label(x=left, y=bottom, anchor="start", text=first),
            Label(x=right, y=bottom, anchor="end", text=last),
        ]

    @property
    def svg(self) -> str:
        """The axes, a line through the points of the same data, its band of intervals, and what else changed."""
        scale = self.scale
        with drawing.style():
            sheet, axes = drawing.sheet(SIZE, PLACE)
            axes.set(xlim=(scale.low[0], scale.high[0]), ylim=(scale.low[1], scale.high[1]))
            axes.set_xticks([])
            ticks = list(_ticks(self.series, scale.low[1], scale.high[1]))
            axes.set_yticks(ticks, [figure(self.series, tick) for tick in ticks])
            for points in _stretches(self.series.points):
                places = [self._place(point) for point in points]
                _draw_band(axes, places, points)
                values = [point.value for point in points]
                axes.plot(places, values, color=drawing.colour("soft"), linewidth=1.3, clip_on=False, gid="trend")
            for before, point in pairwise(self.series.points):
                place = self._place(point)
                if before.data != point.data:
                    between = (self._place(before) + place) / 2
                    _draw_upright(axes, between, 1.0, linestyle=(0, (1, 2)), gid="other data")
                if _is_other_model(before, point):
                    _draw_upright(axes, place, 0.08, gid="other model")
            return drawing.svg(sheet)

    def _place(self, point: Point) -> int:
        return next(place for place, run in enumerate(self.runs) if run.number == point.run)


def point_rows(one: Series, runs: Sequence[Run]) -> list[PointRow]:
    """Return a row for each point of a series over `runs`, the oldest first."""
    of = {run.number: run for run in runs}
    return [
        PointRow(
            run=point.run,
            started=figures.minute(of[point.run].started),
            figure=interval(one, point),
            size=size(point),
            standing=STANDING[point.verdict],
            changed=changes(before, point, of) if before else "",
        )
        for before, point in pairwise([None, *one.points])
        if point is not None
    ]


def changes(before: Point, point: Point, runs: Mapping[int, Run]) -> str:
    """Return what differs from the run before: a figure is then no matter of the model alone, or of another one."""
    old, new = runs[before.run], runs[point.run]
    changed = {
        "data": before.data != point.data,
        "model": _is_other_model(before, point),
        "configuration": old.config_sha256 != new.config_sha256,
        "seed": old.seed != new.seed,
        "robustgate": old.version != new.version,
    }
    return ", ".join(name for name, differs in changed.items() if differs)


def figure(one: Series, value: float, *, signed: bool = False) -> str:
    """Return a case's figure in percent; a variant's in bytes, or as it is."""
    sign = "+" if signed and value > 0 else ""
    if one.kind != "variant":
        return f"{sign}{figures.tenths(value)}"
    if one.metric.endswith("_bytes"):
        return f"{sign}{figures.size(value)}" if value >= 0 else f"-{figures.size(-value)}"
    return f"{sign}{value:.4g}"


def interval(one: Series, point: Point) -> str:
    """Return a figure with its interval: ``75.0 [70.0, 80.0]``."""
    value = figure(one, point.value)
    if point.low is None or point.high is None or point.low == point.high:
        return value
    return f"{value} [{figure(one, point.low)}, {figure(one, point.high)}]"


def size(point: Point) -> str:
    """Return on how many samples a figure was measured, nothing where it is not known."""
    if point.n is None or point.n_total is None:
        return ""
    return figures.count(point.n) if point.n == point.n_total else f"{point.n:,} of {point.n_total:,}"


def _is_other_model(before: Point, point: Point) -> bool:
    return before.artifact != point.artifact and None not in (before.artifact, point.artifact)


def _stretches(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Yield the runs of points on the same data: a line may go through each."""
    stretch = [points[0]]
    for before, point in pairwise(points):
        if before.data != point.data:
            yield stretch
            stretch = []
        stretch.append(point)
    yield stretch


def _ticks(one: Series, low: float, high: float) -> Iterator[float]:
    from matplotlib.ticker import MaxNLocator

    scale = 1.0 if one.kind == "variant" else 100.0
    for value in MaxNLocator(nbins=3, steps=[1, 2, 2.5, 5, 10]).tick_values(low * scale, high * scale):
        if low * scale <= value <= high * scale:
            yield float(value) / scale


def _draw_band(axes: Any, places: Sequence[int], points: Sequence[Point]) -> None:
    """Draw the intervals of points: from each to the next that has one, and alone as a line."""
    known = [
        (place, point.low, point.high)
        for place, point in zip(places, points, strict=True)
        if point.low is not None and point.high is not None
    ]
    soft = drawing.colour("soft")
    if len(known) > 1:
        edge = [(place, low) for place, low, _ in known] + [(place, high) for place, _, high in reversed(known)]
        x, y = zip(*edge, strict=True)
        axes.fill(x, y, color=soft, alpha=0.16, linewidth=0, clip_on=False, gid="band")
    for place, low, high in known[:1] if len(known) == 1 else []:
        axes.plot([place, place], [low, high], color=soft, linewidth=5, alpha=0.16, clip_on=False, gid="band")


def _draw_upright(axes: Any, place: float, share: float, **style: Any) -> None:
    """Draw a line up from the bottom of the axes, `share` of their height."""
    bottom, top = axes.get_ylim()
    ends = [bottom, bottom + share * (top - bottom)]
    axes.plot([place, place], ends, color=drawing.colour("ink"), linewidth=1.2, clip_on=False, **style)
