"""The commands: plan, lint, run, compress, schema; those about the baseline are in `baseline`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from robustgate import __version__
from robustgate.cli.assess import assess
from robustgate.cli.baseline import app as baseline
from robustgate.cli.compare import compare
from robustgate.cli.completion import SCHEMAS, schemas
from robustgate.cli.completion import variants as variant_names
from robustgate.cli.configuration import ConfigOption, PolicyOption, importable, planned
from robustgate.cli.cost import show_cost
from robustgate.cli.init import init
from robustgate.cli.lessons import Lessons
from robustgate.cli.merge import merge
from robustgate.cli.refusal import refusal
from robustgate.cli.repair import repair
from robustgate.cli.report import report
from robustgate.cli.train import train
from robustgate.cli.trend import trend
from robustgate.cli.verdict import verdict
from robustgate.core.errors import RobustgateError, listing, nearest
from robustgate.core.records import REFERENCE
from robustgate.engine.judging import Judging
from robustgate.engine.lint import lint as lint_policies
from robustgate.engine.plan import Plan
from robustgate.engine.results import VARIANT_TESTS, rules_of
from robustgate.reports import figures


class OneScreen(TyperGroup):
    """The list of commands without an option that installing the completion spares: with it no screen holds them."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, --show-completion hidden among them."""
        params = super().get_params(ctx)
        for one in params:
            one.hidden = getattr(one, "hidden", False) or one.name == "show_completion"  # type: ignore[attr-defined]
        return params


app = typer.Typer(
    cls=OneScreen,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"robustgate {__version__}")
        raise typer.Exit


# In one line: with the options about completion all commands then fit one screen.
@app.callback(help="A pytest gate for compressed vision models. Example: robustgate plan --names")
def main(
    context: typer.Context,
    _version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, hidden=True)] = False,
) -> None:
    """Let every command import what stands in the current folder: a configuration may name it."""
    context.with_resource(importable(Path.cwd()))


def plan(
    config: ConfigOption = None,
    policy: PolicyOption = None,
    names: Annotated[bool, typer.Option("--names", help="List the tests too, by their ids.")] = False,
    power: Annotated[
        bool, typer.Option("--power", help="Show what the test set can resolve; reads its labels.")
    ] = False,
    disagreement: Annotated[
        float, typer.Option(min=0, max=1, help="For --power: the share of images on which two variants disagree.")
    ] = 0.06,
) -> None:
    """Show what a run would measure and judge, and what it costs, without measuring anything.

    Minutes are told by the runs before, passes by the attacks themselves.

    Example: robustgate plan --config robustgate.toml --names
    """
    made = planned(config, policy)
    several = len(made.policies) > 1
    typer.echo(f"{made.configuration.source}: {'policies' if several else 'policy'} {', '.join(made.policy_names)}")
    kinds = Counter(case.shift.kind for case in made.cases)
    typer.echo(f"{len(made.cases):,} cases: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()))
    compressions = Counter(variant.compression for variant in made.variants)
    typer.echo(f"{len(made.variants):,} variants:")
    for compression, count in compressions.items():
        chain = " → ".join(_steps(made, compression)) or "as trained"
        typer.echo(f"  {compression:<24} {count:>3}  {chain}")
    try:
        show_cost(made, Console(markup=False, highlight=False))
    except RobustgateError as error:
        raise refusal(error) from error
    for judging in made.policies:
        typer.echo(f"rules of policy {judging.policy.name}:" if several else "rules:")
        for line in _rules(judging):
            typer.echo(f"  {line}")
    unruled = sum(not any(judging.judges(case) for judging in made.policies) for case in made.cases)
    if unruled:
        typer.echo(f"  {unruled:,} cases are measured under no rule")
    for line in lint_policies(made, _today()):
        typer.echo(f"warning: {line}")
    if names:
        for case in made.cases:
            typer.echo(f"test_{case.shift.kind}[{case.name}]")
        for variant in made.variants:
            for kind in VARIANT_TESTS:
                if rules_of(kind, made.rules_on(variant)):
                    typer.echo(f"test_{kind}[{variant.name}]")
    if power:
        from robustgate.cli.power import show_power

        try:
            show_power(made, disagreement, Console())
        except RobustgateError as error:
            raise refusal(error) from error


def lint(
    config: ConfigOption = None,
    policy: PolicyOption = None,
    data: Annotated[
        bool, typer.Option("--data", help="Count the samples too: too few of them cannot prove a high floor.")
    ] = False,
) -> None:
    """Name rules that nothing can break or satisfy, and waivers that excuse nothing.

    Exit status: 0 where there are none, 1 where there are, 4 without a plan.

    Example: robustgate lint --policy edge,cloud
    """
    made = planned(config, policy)
    sizes: dict[str, int] = {}
    if data:
        from robustgate.cli.power import sample_counts

        try:
            sizes = sample_counts(made)
        except RobustgateError as error:
            raise refusal(error) from error
    found = lint_policies(made, _today(), sizes)
    for line in found or ["nothing found"]:
        typer.echo(line)
    raise typer.Exit(1 if found else 0)


def run(context: typer.Context, config: ConfigOption = None, policy: PolicyOption = None) -> None:
    """Run the gate: pytest on the shipped suite. What follows the options goes to pytest.

    Exit status: that of pytest, 0 green and 1 red; 4 without a plan.

    Example: robustgate run --policy edge -n 2 -k "fp60 and pgd"
    """
    made = planned(config, policy)
    words = [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests"]
    words += ["--robustgate-config", str(made.configuration.source)]
    words += ["--robustgate-policy", ",".join(made.policy_names), *context.args]
    raise typer.Exit(subprocess.run(words, check=False).returncode)  # noqa: S603 - our own interpreter, no shell


def compress(
    variants: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VARIANT",
            help="Names of variants, or patterns: '*-int8-*'. Default: all of the plan.",
            autocompletion=variant_names,
        ),
    ] = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    export: Annotated[Path | None, typer.Option(help="Copy each artifact into this folder, with a card.")] = None,
) -> None:
    """Build variants ahead of a run, so that its workers find them kept.

    Exit status: 0 when all are there, 1 where one cannot be built, 4 without a plan.

    Example: robustgate compress '*-int8-*' --export dist
    """
    made = planned(config, policy)
    patterns = variants or ["*"]
    chosen = [one for one in made.variants if any(fnmatchcase(one.name, pattern) for pattern in patterns)]
    if not chosen:
        names = [one.name for one in made.variants]
        raise refusal(f"no variant {' '.join(patterns)!r}{nearest(patterns[0], names)}")
    from robustgate.engine.build import build_all

    failed = 0
    with Lessons() as lessons:
        for line, error in build_all(made, chosen, export, lessons):
            lessons.clear()
            typer.echo(line, err=error)
            failed += error
    raise typer.Exit(1 if failed else 0)


def schema(
    of: Annotated[str, typer.Argument(metavar="OF", help="results or config", autocompletion=schemas)] = "results",
) -> None:
    """Print a JSON Schema: of results.json, or of robustgate.toml for editors.

    Example: robustgate schema config > robustgate.schema.json

    An editor takes it where robustgate.toml begins with: #:schema ./robustgate.schema.json
    """
    from robustgate.config.schema import json_schema as config_schema
    from robustgate.reports.results_json import json_schema as results_schema

    if of not in SCHEMAS:
        raise typer.BadParameter(f"no schema {of!r}{nearest(of, SCHEMAS)}; known: {listing(SCHEMAS)}")
    # That of the configuration has every component in it: indented it would be half as long again.
    typer.echo(json.dumps(config_schema()) if of == "config" else json.dumps(results_schema(), indent=2))


def _today() -> date:
    return datetime.now(UTC).date()


def _rules(judging: Judging) -> list[str]:
    """Return how much each rule of a policy judges."""
    lines = []
    for rule in judging.policy.case_rules:
        cases = sum(rule in rules for rules in judging.case_rules.values())
        lines.append(f"{rule.name!r} judges {figures.counted(cases, 'case')}")
    for run_rule in judging.policy.run_rules:
        variants = sum(run_rule in rules for rules in judging.run_rules.values())
        searched = sum(run_rule is rule for rule in judging.stability_rules.values())
        lines.append(f"{run_rule.name!r} judges {figures.counted(variants + searched, 'variant')}")
    return lines


def _steps(made: Plan, compression: str) -> list[str]:
    steps = []
    for step in made.chains[compression]:
        if step.method:
            steps.append(step.method)
        if step.finetune is not None:
            steps.append(f"{type(step.finetune).__name__.lower()} fine-tuning")
    return steps if compression != REFERENCE else []


# Each with what the list of commands says of it, in the order in which they are met.
BRIEFLY: dict[Callable[..., None], str] = {
    init: "Write a first robustgate.toml for what lies here.",
    plan: "Show what a run would measure and judge, and its cost.",
    lint: "Name rules that nothing can break or satisfy.",
    run: "Run the gate: pytest on the shipped suite.",
    compress: "Build variants ahead of a run, and copy them out.",
    train: "Train a model of the configuration by a recipe.",
    repair: "Train what a red run condemned, until it is green.",
    verdict: "Give a run's exit status again, as pytest gave it.",
    report: "Make the reports of a run again.",
    merge: "Put the shards of one run together.",
    compare: "Say what a release made worse, and what better.",
    assess: "Show which variants no other beats, and which to take.",
    trend: "Draw cases, and rules on variants, over the last runs.",
    schema: "Print a JSON Schema: of results, or for editors.",
}
TO_PYTEST = {"allow_extra_args": True, "ignore_unknown_options": True}
for command, line in BRIEFLY.items():
    app.command(short_help=line, context_settings=TO_PYTEST if command is run else None)(command)
app.add_typer(baseline, name="baseline", short_help="Keep a run as the standard of later ones.")
