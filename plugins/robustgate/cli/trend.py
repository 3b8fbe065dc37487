"""`robustgate trend`: cases over the runs that the history holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from robustgate.cli.refusal import refusal
from robustgate.config import find, load
from robustgate.core.errors import ResultsError, RobustgateError, nearest
from robustgate.reports import figures
from robustgate.reports.history import History, Point, Run, Series, read

TREND_SCHEMA = "robustgate/trend/1"
BARS = "▁▂▃▄▅▆▇█"
GAP = "·"


def trend(
    cases: Annotated[
        list[str] | None, typer.Argument(metavar="CASE", help="Names or patterns; default: all that changed.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, metavar="N", help="How many runs, up to the last one.")] = 20,
    config: Annotated[Path | None, typer.Option(help="The configuration, whose gate.history is read.")] = None,
    history: Annotated[Path | None, typer.Option(help="The file to read, instead of gate.history.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the runs and their figures as JSON.")] = False,
) -> None:
    """Draw cases, and rules on variants, over the last runs; one alone is told run by run.

    Example: robustgate trend 'adversarial/*-int8-*' --last 10
    """
    try:
        found = read(history or _configured(config), last)
        chosen = _chosen(found.series, cases or [])
    except RobustgateError as error:
        raise refusal(error) from error
    if as_json:
        content = {"schema": TREND_SCHEMA, **asdict(History(runs=found.runs, series=tuple(chosen)))}
        typer.echo(json.dumps(content, indent=1, ensure_ascii=False))
        return
    console = Console(markup=False, highlight=False)
    if len(chosen) == 1:
        _show_one(chosen[0], found.runs, console)
    else:
        _show_all(chosen, found, console)


def sparkline(values: Sequence[float | None]) -> str:
    """Return a bar for each value, from the lowest of them to the highest; a gap where there is none."""
    known = [value for value in values if value is not None]
    low, span = min(known), max(known) - min(known)
    # All alike stand at half height: nothing rose or fell.
    return "".join(
        GAP if value is None else BARS[round((value - low) / span * (len(BARS) - 1)) if span else len(BARS) // 2]
        for value in values
    )


def _configured(config: Path | None) -> Path:
    source = config or find(Path.cwd())
    if source is None:
        raise RobustgateError("no robustgate.toml here that says where the history is: give --config or --history")
    file = load(source).gate.history_file
    if file is None:
        raise RobustgateError(f"{source}: gate.history is false: no run is kept")
    return file


def _chosen(series: Sequence[Series], patterns: Sequence[str]) -> list[Series]:
    """Return the series that a pattern names, or else those that changed. Raises ResultsError where there is none."""
    if not patterns:
        return [one for one in series if len({point.value for point in one.points}) > 1]
    chosen = [
        one
        for one in series
        if any(fnmatchcase(name, pattern) for name in (one.name, one.label) for pattern in patterns)
    ]
    if not chosen:
        known = [one.label for one in series] + [one.name for one in series]
        raise ResultsError(f"no case {' '.join(patterns)!r} in these runs{nearest(patterns[0], known)}")
    return chosen


def _show_all(chosen: Sequence[Series], found: History, console: Console) -> None:
    """Print a line for each series, those that fell most in the last run first."""
    console.print(f"{figures.counted(len(found.runs), 'run')}, {_span(found.runs)}")
    if chosen:
        table = Table(box=SIMPLE_HEAD)
        table.add_column("case, or rule on a variant", overflow="fold")
        for head in ("", "first → last", "since", "verdict"):
            table.add_column(head, justify="right" if head != "" else "left", no_wrap=True)
        for one in sorted(chosen, key=lambda one: (one.kind == "variant", _step(one), one.label)):
            first, before, last = one.points[0], one.points[-2:][0], one.points[-1]
            values = f"{_figure(one, first.value)} → {_figure(one, last.value)}"
            since = _figure(one, last.value - before.value, signed=True) if last.value != before.value else ""
            table.add_row(one.label, sparkline(_values(one, found.runs)), values, since, last.verdict)
        console.print(table)
        console.print("since: the last figure less the one before", style="dim")
    left = len(found.series) - len(chosen)
    if left:
        console.print(f"{figures.counted(left, 'other')}: unchanged in these runs, or not asked for", style="dim")


def _show_one(one: Series, runs: Sequence[Run], console: Console) -> None:
    """Print one series, run by run."""
    values = [point.value for point in one.points]
    console.print(one.label, style="bold")
    console.print(
        f"{sparkline(_values(one, runs))}  {one.metric}, {_figure(one, min(values))} to {_figure(one, max(values))}"
    )
    of = {run.number: run for run in runs}
    table = Table(box=SIMPLE_HEAD)
    for head in ("run", "started", "figure", "n", "verdict", "also changed"):
        table.add_column(head, justify="right" if head in ("figure", "n") else "left", no_wrap=head == "figure")
    for before, point in pairwise([None, *one.points]):
        if point is not None:
            run = of[point.run]
            changed = _changes(before, point, of) if before else ""
            started = run.started[:16].replace("T", " ")
            size = _size(point)
            table.add_row(str(run.number), started, _interval(one, point), size, point.verdict, changed)
    console.print(table)
    if missing := len(runs) - len(one.points):
        console.print(f"{figures.counted(missing, 'run')} did not measure it", style="dim")


def _changes(before: Point, point: Point, runs: dict[int, Run]) -> str:
    """Return what differs from the run before: a figure is then no matter of the model alone, or of another one."""
    old, new = runs[before.run], runs[point.run]
    changed = {
        "data": before.data != point.data,
        "model": before.artifact != point.artifact and None not in (before.artifact, point.artifact),
        "configuration": old.config_sha256 != new.config_sha256,
        "seed": old.seed != new.seed,
        "robustgate": old.version != new.version,
    }
    return ", ".join(name for name, differs in changed.items() if differs)


def _values(one: Series, runs: Sequence[Run]) -> list[float | None]:
    known = {point.run: point.value for point in one.points}
    return [known.get(run.number) for run in runs]


def _step(one: Series) -> float:
    return one.points[-1].value - one.points[-2:][0].value


def _figure(one: Series, value: float, *, signed: bool = False) -> str:
    """Return a case's figure in percent; a variant's in bytes, or as it is."""
    sign = "+" if signed and value > 0 else ""
    if one.kind != "variant":
        return f"{sign}{figures.tenths(value)}"
    if one.metric.endswith("_bytes"):
        return f"{sign}{figures.size(value)}" if value >= 0 else f"-{figures.size(-value)}"
    return f"{sign}{value:.4g}"


def _interval(one: Series, point: Point) -> str:
    value = _figure(one, point.value)
    if point.low is None or point.high is None or point.low == point.high:
        return value
    return f"{value} [{_figure(one, point.low)}, {_figure(one, point.high)}]"


def _size(point: Point) -> str:
    if point.n is None or point.n_total is None:
        return ""
    return figures.count(point.n) if point.n == point.n_total else f"{point.n:,} of {point.n_total:,}"


def _span(runs: Sequence[Run]) -> str:
    days = list(dict.fromkeys(run.started[:10] for run in (runs[0], runs[-1])))
    return " to ".join(days)
