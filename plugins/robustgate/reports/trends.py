"""A history as it is read: the runs before, and what changed with the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from robustgate.core.records import Results
from robustgate.reports import figures
from robustgate.reports.history import History, Run, Series
from robustgate.reports.marks import SHAPES
from robustgate.reports.trend_charts import SHAPE_OF, Chart
from robustgate.reports.view import STANDING, Standing

# So many of the cases and figures that changed are drawn.
MOST_CHARTS = 12


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run in the table; `is_this` is the one that is reported."""

    run: Run
    standing: Standing
    is_this: bool

    @property
    def started(self) -> str:
        """When it started, to the minute."""
        return figures.minute(self.run.started)

    @property
    def cases(self) -> str:
        """How many cases it measured."""
        whole = self.run.measured == self.run.planned
        return figures.count(self.run.measured) if whole else f"{self.run.measured:,} of {self.run.planned:,}"

    @property
    def text(self) -> str:
        """The run in one line."""
        return f"{self.started}, robustgate {self.run.version}: {self.standing.word}, {self.cases} cases measured"


@dataclass(frozen=True, kw_only=True)
class Trends:
    """The runs up to the one that is reported, oldest first, and what changed with it, the most telling drawn.

    The counts are of cases, and of rules on variants: drawn or not, `changed`; `same`, `fresh` without an earlier run,
    `on_other_data` than the time before, `absent` from this run.
    """

    rows: tuple[RunRow, ...]
    charts: tuple[Chart, ...]
    changed: int
    same: int
    on_other_data: int
    fresh: int
    absent: int

    @property
    def is_known(self) -> bool:
        """Whether the history has the run that is reported."""
        return any(row.is_this for row in self.rows)

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        """The verdicts that are in the charts, each with its mark."""
        found = {point.verdict for chart in self.charts for point in chart.series.points}
        return [(verdict, SHAPES[shape]) for verdict, shape in SHAPE_OF.items() if verdict in found]

    @property
    def summary(self) -> str:
        """What changed, and what did not, in a few sentences."""
        if len(self.rows) == 1:
            return "The history has one run: there is nothing to compare it with yet."
        told = [f"{figures.counted(self.changed, 'figure')} changed" if self.changed else "No figure changed"]
        told += [f"{figures.count(self.same)} did not"] if self.same else []
        told += [f"{figures.count(self.on_other_data)} not compared, on other data"] if self.on_other_data else []
        told += [f"{figures.count(self.fresh)} measured for the first time"] if self.fresh else []
        told += [f"{figures.count(self.absent)} not measured in this run"] if self.absent else []
        shown = (
            f" The {len(self.charts)} that changed most are drawn, a verdict that turned first."
            if self.changed > len(self.charts)
            else ""
        )
        return f"Since the run before that measured them: {'; '.join(told)}.{shown}"


def trends(history: History, results: Results) -> Trends:
    """Return what the history tells of a run: up to it, or of its last run where it has not this one."""
    places = [place for place, run in enumerate(history.runs) if run.name == results.run.id]
    runs = history.runs[: places[-1] + 1] if places else history.runs
    last = runs[-1].number
    known = [
        replace(one, points=points)
        for one in history.series
        if (points := tuple(point for point in one.points if point.run <= last))
    ]
    measured = [one for one in known if one.points[-1].run == last]
    again = [one for one in measured if len(one.points) > 1]
    comparable = [one for one in again if one.points[-2].data == one.points[-1].data]
    changed = [one for one in comparable if _has_moved(one) or _has_turned(one)]
    # A verdict that turned stands before a figure that moved, and a case before a figure of a variant.
    changed.sort(key=lambda one: (not _has_turned(one), one.kind == "variant", -_reach(one), one.label))
    indices: dict[tuple[str, str], int] = {
        (case.shift.kind, case.name): index for index, case in enumerate(results.cases)
    }
    return Trends(
        rows=tuple(
            RunRow(run=run, standing=STANDING[run.verdict], is_this=bool(places) and run.number == last) for run in runs
        ),
        charts=tuple(
            Chart(series=one, runs=runs, index=indices.get((one.kind, one.name))) for one in changed[:MOST_CHARTS]
        ),
        changed=len(changed),
        same=len(comparable) - len(changed),
        on_other_data=len(again) - len(comparable),
        fresh=len(measured) - len(again),
        absent=len(known) - len(measured),
    )


def step(one: Series) -> float:
    """Return by how much the last figure differs from the one before."""
    return one.points[-1].value - one.points[-2:][0].value


def span(runs: Sequence[Run]) -> str:
    """Return from which day to which runs are."""
    days = list(dict.fromkeys(run.started[:10] for run in (runs[0], runs[-1])))
    return " to ".join(days)


def _has_moved(one: Series) -> bool:
    return step(one) != 0


def _has_turned(one: Series) -> bool:
    return one.points[-2].verdict != one.points[-1].verdict


def _reach(one: Series) -> float:
    """Return how far a figure moved: a case's in itself, a variant's as a share of what it was."""
    return abs(step(one)) / (abs(one.points[-2].value) or 1.0 if one.kind == "variant" else 1.0)
