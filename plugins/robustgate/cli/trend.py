"""`robustgate trend`: cases over the runs that the history holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from robustgate.cli.configuration import configured
from robustgate.cli.refusal import refusal
from robustgate.core.errors import ResultsError, RobustgateError, nearest
from robustgate.reports import figures
from robustgate.reports.history import History, Run, Series, prune, read
from robustgate.reports.trend_charts import figure, point_rows
from robustgate.reports.trends import span, step

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
    keep: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="First remove all runs but the last N from the file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the runs and their figures as JSON.")] = False,
) -> None:
    """Draw cases, and rules on variants, over the last runs; one alone is told run by run.

    Example: robustgate trend 'adversarial/*-int8-*' --last 10
    """
    try:
        file = history or _configured(config)
        if keep is not None:
            typer.echo(f"{figures.counted(prune(file, keep), 'run')} removed from {file}", err=True)
        found = read(file, last)
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
    found = configured(config, ", or the file: --history")
    file = found.gate.history_file
    if file is None:
        raise RobustgateError(f"{found.source}: gate.history is false: no run is kept")
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
    console.print(f"{figures.counted(len(found.runs), 'run')}, {span(found.runs)}")
    if chosen:
        table = Table(box=SIMPLE_HEAD)
        table.add_column("case, or rule on a variant", overflow="fold")
        for head in ("", "first → last", "since", "verdict"):
            table.add_column(head, justify="right" if head != "" else "left", no_wrap=True)
        for one in sorted(chosen, key=lambda one: (one.kind == "variant", step(one), one.label)):
            first, before, last = one.points[0], one.points[-2:][0], one.points[-1]
            values = f"{figure(one, first.value)} → {figure(one, last.value)}"
            since = figure(one, last.value - before.value, signed=True) if last.value != before.value else ""
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
        f"{sparkline(_values(one, runs))}  {one.metric}, {figure(one, min(values))} to {figure(one, max(values))}"
    )
    table = Table(box=SIMPLE_HEAD)
    for head in ("run", "started", "figure", "n", "verdict", "also changed"):
        table.add_column(head, justify="right" if head in ("figure", "n") else "left", no_wrap=head == "figure")
    for row in point_rows(one, runs):
        table.add_row(str(row.run), row.started, row.figure, row.size, row.standing.word, row.changed)
    console.print(table)
    if missing := len(runs) - len(one.points):
        console.print(f"{figures.counted(missing, 'run')} did not measure it", style="dim")


def _values(one: Series, runs: Sequence[Run]) -> list[float | None]:
    known = {point.run: point.value for point in one.points}
    return [known.get(run.number) for run in runs]
