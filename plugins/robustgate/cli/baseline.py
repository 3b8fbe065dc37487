"""The commands about the baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgate.cli.configuration import configured
from robustgate.cli.refusal import refusal
from robustgate.core.errors import BaselineError, RobustgateError, listing
from robustgate.engine.results import shown_path

if TYPE_CHECKING:
    from robustgate.core.records import Finding, Results
    from robustgate.engine.baseline import Baseline
    from robustgate.engine.comparison import Change

RED = 1  # a run that is no standard, as distinct from a file that is none
app = typer.Typer(
    help="""Keep a run as the standard of later ones: rules with max_drop_from = "baseline" compare with it.

    Example: robustgate baseline accept robustgate-report/results.json
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def accept(
    results: Annotated[Path, typer.Argument(help="The results.json of the run.")],
    config: Annotated[Path | None, typer.Option(help="The configuration, whose gate.baseline is written.")] = None,
    output: Annotated[Path | None, typer.Option(help="The file to write, instead of gate.baseline.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Accept a run that measured some cases only.")] = False,
    allow_red: Annotated[bool, typer.Option("--allow-red", help="Accept a run in which a rule was broken.")] = False,
) -> None:
    """Keep the outcomes of a run, sample by sample, in a file for git.

    Exit status: 0 when they are kept, 1 for a run that is no standard, 4 for a file that is no run.

    Example: robustgate baseline accept robustgate-report/results.json
    """
    from robustgate.engine.baseline import Baseline
    from robustgate.reports.results_json import load as load_results

    try:
        path = output or configured(config, ", or the file to write: --output").gate.baseline
        found = load_results(results)
        accepted = Baseline.of(found)
    except BaselineError as error:
        raise refusal(f"{results}: {error}") from error
    except RobustgateError as error:
        raise refusal(error) from error
    missing, red = _missing(found), _red(found)
    if not accepted.cases:
        raise refusal(f"{results}: no case was measured: nothing to accept", RED)
    if missing and not partial:
        cases = f"{len(missing):,} of {found.run.planned:,} planned cases were"
        raise refusal(f"{results}: {cases} not measured: {listing(missing)}; --partial accepts the others", RED)
    if red and not allow_red:
        raise refusal(f"{results}: the run is red: {listing(red)}; --allow-red accepts it all the same", RED)
    changes = _changes(path, accepted)
    accepted.write(path)
    typer.echo(f"{shown_path(path)}: {len(accepted.cases):,} cases of run {accepted.run.id}")
    for line in [*changes, *_stopped(accepted)]:
        typer.echo(f"  {line}")


def _missing(results: Results) -> list[str]:
    return [f"{row.shift.kind}/{row.name}" for row in results.cases if row.value is None]


def _red(results: Results) -> list[str]:
    """Return what broke a rule; a case that only lacked a baseline did not, or no first one could be accepted."""
    indulgent = {policy.name for policy in results.run.policies if policy.on_undecided == "pass"}

    def is_red(finding: Finding) -> bool:
        lacks_baseline = finding.against == "baseline" and finding.value is None
        passes = finding.verdict in ("pass", "waived") or (
            finding.verdict == "undecided" and finding.policy in indulgent
        )
        return not passes and not lacks_baseline

    rows = [row for row in results.cases if row.verdict == "error" or any(map(is_red, row.findings))]
    about = sorted({finding.subject for finding in results.findings if is_red(finding)})
    return [*(f"{row.shift.kind}/{row.name}" for row in rows), *(f"a rule on {name}" for name in about)]


def _stopped(accepted: Baseline) -> list[str]:
    early = sum(case.n < case.n_total for case in accepted.cases.values())
    told = f"cases that stopped early: {early:,}; a rule compares with their first samples only (early_stop)"
    return [told] if early else []


def _changes(path: Path, accepted: Baseline) -> list[str]:
    """Return what differs from the baseline that stands at `path`, in lines."""
    from robustgate.engine.baseline import Baseline
    from robustgate.engine.revision import CONFIDENCE, revisions

    if not path.exists():
        return ["there was no baseline before"]
    try:
        before = Baseline.load(path)
    except BaselineError as error:
        return [f"the baseline before cannot be compared with: {error}"]
    by_change: dict[Change, list[str]] = {}
    for one in revisions(before, accepted):
        by_change.setdefault(one.change, []).append(f"{one.name}: {one.told}" if one.told else one.name)
    lines = [f"against run {before.run.id}, paired, intervals at {100 * CONFIDENCE:g} %:"]
    for change in ("worse", "better", "new", "gone", "incomparable"):
        lines += [f"{change}: {text}" for text in by_change.get(change, [])]
    same, unclear = (len(by_change.get(change, [])) for change in ("same", "unclear"))
    lines += [f"cases that differ by no more than chance: {unclear:,}"] if unclear else []
    return [*lines, *([f"cases that are the same, sample by sample: {same:,}"] if same else [])]
