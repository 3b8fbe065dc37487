"""The command that turns a results.json into an exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgate.cli.refusal import refusal
from robustgate.core.errors import ResultsError


def verdict(
    results: Annotated[Path, typer.Argument(help="The results.json of the run.")],
    complete: Annotated[
        bool, typer.Option("--complete", help="Red where not all that was planned is measured.")
    ] = False,
) -> None:
    """Give a run's exit status again, as pytest gave it.

    Exit status: 0 green, 1 red, 4 no results.json.

    Example: robustgate verdict report/results.json --complete
    """
    from robustgate.engine.complaints import reasons
    from robustgate.reports.results_json import load
    from robustgate.reports.summary import summarize

    try:
        found = load(results)
    except ResultsError as error:
        raise refusal(error) from error
    try:
        complaints = reasons(found, complete=complete)
    except ResultsError as error:
        raise refusal(f"{results}: {error}") from error
    for line in [*summarize(found), *(f"red: {reason}" for reason in complaints)]:
        typer.echo(line)
    raise typer.Exit(1 if complaints else 0)
