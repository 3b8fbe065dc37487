"""`robustgate repair`: what a red run condemned, trained until it is green."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from robustgate.cli.completion import recipes as recipe_names
from robustgate.cli.configuration import ConfigOption, PolicyOption, configured
from robustgate.cli.lessons import Lessons
from robustgate.cli.refusal import refusal
from robustgate.cli.train import check_free, made, parsed
from robustgate.core.errors import ConfigurationError, RobustgateError
from robustgate.core.files import write_whole
from robustgate.engine.plan import make_plan
from robustgate.engine.results import shown_path
from robustgate.reports import figures

if TYPE_CHECKING:
    from robustgate.config import Configuration
    from robustgate.engine.repair import Repaired, Repairs

OUT = "robustgate-repaired.toml"
# How much of what is red is told.
MOST = 3


def repair(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="The results.json of a red run.")],
    minutes: Annotated[float, typer.Option(min=0, metavar="N", help="The time for all of it.")] = 60,
    recipes: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="To try; a name, or a table. May be repeated.",
            autocompletion=recipe_names,
        ),
    ] = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help=f"Default: {OUT}.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Train what a red run condemned, judge it by the same policy, and write the configuration that makes it green.

    Exit status: 0 all repaired, 1 some not, 4 bad input.

    Example: robustgate repair robustgate-report/results.json --recipe sam
    """
    from robustgate.engine.repair import DEFAULTS, Repairs
    from robustgate.reports.results_json import load

    try:
        found = load(results)
        configuration = configured(config)
        asked = policy or ",".join(one.name for one in found.run.policies)
        place = out or configuration.source.with_name(OUT)
        if place.resolve().parent != configuration.source.resolve().parent:
            raise RobustgateError(
                f"--out: expected a file beside {configuration.source}, whose paths it has, got {out}"
            )
        check_free(place, force=force)
        tried = [_read(text, configuration) for text in recipes or DEFAULTS]
        with Lessons() as lessons:
            repairs = Repairs(make_plan(configuration, asked), found, tried, seconds=60 * minutes, pupil=lessons)
            repairs.check()
            done = _run(repairs, lessons)
    except RobustgateError as error:
        raise refusal(error) from error
    if not done and found.run.measured < found.run.planned:
        measured = f"{found.run.measured:,} of {found.run.planned:,} planned cases"
        raise refusal(f"{results}: nothing is red in {measured}, and the others were not measured; run the gate whole")
    if not done:
        typer.echo(f"nothing is red in {results}: nothing to repair")
        return
    if any(one.taken for one in done):
        write_whole(place, repairs.text)
        typer.echo(f"{shown_path(place)} has what is taken; next: robustgate run --config {shown_path(place)}")
    left = [one.compression for one in done if not one.is_green]
    if left:
        typer.echo(f"not repaired: {', '.join(left)}")
    raise typer.Exit(1 if left else 0)


def _read(text: str, configuration: Configuration) -> str | Mapping[str, Any]:
    """Return a recipe as it is asked for: its name, or its table. Raises ConfigurationError."""
    from robustgate.engine.repair import complete
    from robustgate.engine.weights import unknown

    is_table = text.lstrip().startswith("{")
    recipe = parsed(f"recipe = {text}", "--recipe")["recipe"] if is_table else text
    if problems := unknown(configuration, made(complete(recipe, 1))):
        raise ConfigurationError(problems)
    return recipe


def _run(repairs: Repairs, lessons: Lessons) -> list[Repaired]:
    console = Console(markup=False, highlight=False)
    found = []
    for one in repairs.run():
        lessons.clear()
        _show(one, console)
        found.append(one)
    judged = sum(trial.verdict in ("green", "red") and bool(trial.recipe) for one in found for trial in one.trials)
    if judged:
        sure = min(judging.policy.confidence for judging in repairs.plan.policies)
        console.print(_chance(judged, sure), style="dim", soft_wrap=True)
    return found


def _show(one: Repaired, console: Console) -> None:
    console.print(f"compression {one.compression}: red in {figures.counted(len(one.red), 'finding')}", style="bold")
    for line in _first(one.red):
        console.print(f"  {line}", soft_wrap=True)
    if one.incurable:
        console.print(f"  cannot be repaired: {one.incurable}", style="red")
        return
    if one.replaced:
        console.print("  repaired with the compressions that it is the control of", style="green")
        return
    table = Table()
    for heading in ("", "recipe", "verdict", "clean accuracy", "size", "minutes"):
        is_text, is_short = heading in ("recipe", "verdict"), heading in ("", "minutes")
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold", no_wrap=is_short)
    for number, trial in enumerate(one.trials, 1):
        is_taken = "taken: " if trial is one.taken else ""
        clean, size = _clean(one.clean, trial.clean), _change(one.size, trial.size, figures.size)
        table.add_row(str(number), trial.label, f"{is_taken}{trial.verdict}", clean, size, f"{trial.seconds / 60:.1f}")
    console.print(table)
    for number, trial in enumerate(one.trials, 1):
        for line in _first(trial.told):
            console.print(f"  {number} {trial.verdict}: {line}", soft_wrap=True)


def _first(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MOST
    return [*lines[:MOST], *([f"and {more:,} more"] if more > 0 else [])]


def _clean(before: float | None, after: float | None) -> str:
    shown = _change(before, after, figures.percent)
    return shown if before is None or after is None else f"{shown} ({100 * (after - before):+.1f} points)"


def _change(before: float | None, after: float | None, show: Callable[[float], str]) -> str:
    return " → ".join(figures.NOTHING if value is None else show(value) for value in (before, after))


def _chance(judged: int, confidence: float) -> str:
    """Say what it means that several recipes were judged by the same images."""
    most = min(1.0, judged * (1 - confidence))
    return (
        f"{figures.counted(judged, 'recipe')} judged on the same test split: the more are tried, the likelier one is "
        f"green by chance; where the policy proves good, in at most {judged:,} x {figures.level(1 - confidence)} = "
        f"{figures.level(most)} of such repairs"
    )
