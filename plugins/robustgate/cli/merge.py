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
) -> None:
    """Put the shards of one run together, as of a CI matrix, and write its reports.

    Example: robustgate merge shards/*/results.json --output report
    """
    from robustgate.engine import shards as parts
    from robustgate.engine.reporting import write_reports
    from robustgate.engine.results import shown_path
    from robustgate.reports.results_json import load
    from robustgate.reports.summary import summarize

    try:
        merged = parts.merge({str(path): load(path) for path in shards or []})
    except ResultsError as error:
        raise refusal(error) from error
    report = write_reports(merged, output, None)
    for line in [*summarize(merged), *parts.left_open(merged), f"report: {shown_path(report)}"]:
        typer.echo(line)
