"""`robustgate assess`: several objectives at once."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robustgate.cli.completion import objectives as objective_names
from robustgate.cli.refusal import refusal
from robustgate.core.errors import RobustgateError, listing
from robustgate.core.files import write_whole
from robustgate.reports import assessments, figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from robustgate.core.assessments import Assessment, Candidate, Front, ObjectiveRanking
    from robustgate.engine.candidates import Field


class Within(StrEnum):
    """Among which variants."""

    ARCHITECTURE = "architecture"
    ACROSS = "across"


def assess(
    results: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS_OR_CSV",
            help="A run's results.json, or a CSV of errors, one a line.",
        ),
    ],
    objectives: Annotated[
        str | None,
        typer.Option(
            help="With commas between: accuracy, mean_corruption_accuracy, mean_domain_accuracy, robust_accuracy, mce, "
            "mce_rounded, compression_ratio, size, deflated_size, latency, memory.",
            autocompletion=objective_names,
        ),
    ] = None,
    within: Annotated[
        Within | None, typer.Option(help="Compare the variants of one model only, or of all; default: both.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all of it to this file.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw how compressions rank to this .svg, .png or .pdf, where they can be.")
    ] = None,
) -> None:
    """Show which variants no other beats in all objectives, how compressions rank, and which to take for each policy.

    Example: robustgate assess robustgate-report/results.json --objectives accuracy,robust_accuracy,size
    """
    from robustgate.engine.assessment import EVERYWHERE
    from robustgate.engine.assessment import assess as assess_field

    try:
        names = [name.strip() for name in (objectives or "").split(",") if name.strip()]
        found = assess_field(_field(results), names, EVERYWHERE if within is None else (within.value,))
        if picture is not None:
            _draw(found, picture)
    except RobustgateError as error:
        raise refusal(error) from error
    if json_file is not None:
        write_whole(json_file, json.dumps(asdict(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _show(found, Console())


def _field(path: Path) -> Field:
    from robustgate.engine.candidates import from_results
    from robustgate.engine.error_table import from_table
    from robustgate.reports.results_json import load

    return from_table(path) if path.suffix == ".csv" else from_results(load(path))


def _show(found: Assessment, console: Console) -> None:
    by_name = {one.name: one for one in found.candidates}
    for front in found.fronts:
        title = f"{front.place}: {figures.counted(len(front.members), 'variant')} that no other beats"
        console.print(title, style="bold", highlight=False, markup=False)
        console.print(_table(found, front, by_name))
        for line in _about(front, by_name):
            console.print(line, style="dim", highlight=False, markup=False)
    for left in found.left_out:
        console.print(f"left out: {left.name}, without {', '.join(left.lacks)}", highlight=False, markup=False)
    for one in found.rankings:
        for line in _ranked(one):
            console.print(line, highlight=False, markup=False)
    for note in found.notes:
        console.print(note, style="dim", highlight=False, markup=False)
    for warning in found.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
    for advice in found.recommendations:
        told = f"policy {advice.policy}, {advice.place}: take {advice.name or 'none'}: {advice.reason}"
        console.print(told, highlight=False, markup=False)


def _table(found: Assessment, front: Front, by_name: dict[str, Candidate]) -> Table:
    table = Table()
    table.add_column("variant", overflow="fold")
    for goal in found.objectives:
        table.add_column(f"{goal.name} {'↑' if goal.maximised else '↓'}", justify="right")
    table.add_column("")
    for name in front.members:
        known = by_name[name].figures
        cells = [assessments.shown(goal.name, known[goal.name]) for goal in found.objectives]
        label = assessments.label(front.model, by_name[name])
        table.add_row(escape(label), *cells, "knee" if name == front.knee else "")
    return table


def _about(front: Front, by_name: dict[str, Candidate]) -> Iterator[str]:
    if share := assessments.hypervolume(front):
        yield f"hypervolume: {share} of the box from the worst figures to the best"
    if front.dominated:
        yield f"beaten: {listing(assessments.label(front.model, by_name[name]) for name in front.dominated)}"


def _ranked(one: ObjectiveRanking) -> Iterator[str]:
    """Say how compressions rank, and how far apart their ranks must lie to tell them apart."""
    ranks = one.ranking
    order = sorted(zip(ranks.mean_ranks, one.compressions, strict=True), key=lambda pair: pair[0])
    yield f"mean ranks by {one.objective}: {', '.join(f'{name} {rank:.2f}' for rank, name in order)}"
    yield f"  {assessments.friedman(one)}"


def _draw(found: Assessment, path: Path) -> None:
    from robustgate.reports.critical_difference import FORMATS, write_diagrams

    if path.suffix.removeprefix(".") not in FORMATS:
        raise RobustgateError(f"{path}: a picture is drawn as .{', .'.join(FORMATS)}, got {path.suffix or 'no suffix'}")
    if not found.rankings:
        raise RobustgateError(f"nothing to draw: {'; '.join(found.notes)}")
    write_diagrams([assessments.diagram(one) for one in found.rankings], path)
