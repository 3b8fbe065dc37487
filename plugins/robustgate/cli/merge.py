"""The command that puts the shards of a run together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgate.cli.refusal import refusal
from robustgate.core.errors import ResultsError


def merge(
    shards: Annotated[list[Path] | None, typer.Argument(metavar="SHARD", help="The results.json of each.")] = None,
    output: Annotated[Path, typer.Option(help="The folder for the reports.")] = Path("robustgate-report"),
    history: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add the run to this history.sqlite, and show the runs before.")
    ] = None,
) -> None:
    """Put the shards of one run together, as of a CI matrix, and write its reports.

    Exit status: 0 when they are written, whatever the verdict, 4 for what is not one run.

    Example: robustgate merge shards/*/results.json --output report
    """
    from robustgate.engine import shards as parts
    from robustgate.engine.reporting import write_reports
    from robustgate.engine.results import shown_path
    from robustgate.reports.history import append
    from robustgate.reports.results_json import load
    from robustgate.reports.summary import summarize

    try:
        loaded = {str(path): load(path) for path in shards or []}
        merged = parts.merge(loaded)
        if history is not None:
            append(merged, history)
    except ResultsError as error:
        raise refusal(error) from error
    report = write_reports(merged, output, history)
    told = [*summarize(merged), *parts.measured_again(loaded), *parts.left_open(merged)]
    for line in [*told, f"report: {shown_path(report)}"]:
        typer.echo(line)
