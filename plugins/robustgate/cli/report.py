"""The command that makes a run's reports again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgate.cli.refusal import refusal
from robustgate.core.errors import ResultsError


def report(
    results: Annotated[Path, typer.Argument(help="The results.json of the run.")],
    output: Annotated[Path | None, typer.Option(help="The folder for the reports, instead of its own.")] = None,
    history: Annotated[Path | None, typer.Option(help="A history.sqlite, to show the runs before.")] = None,
) -> None:
    """Make the reports of a run again from its results.json: report.html, report.md, and the tables of pairs.

    Example: robustgate report robustgate-report/results.json --output site
    """
    from robustgate.engine.reporting import rebuild
    from robustgate.engine.results import shown_path
    from robustgate.reports.results_json import load

    if history is not None and not history.is_file():
        raise refusal(f"--history: no such file: {history}")
    try:
        found = load(results)
    except ResultsError as error:
        raise refusal(error) from error
    typer.echo(f"report: {shown_path(rebuild(found, output or results.parent, history))}")
