"""`robustgate compare`: what a release changed against the one before, for a terminal or a pull request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from robustgate.cli.refusal import refusal
from robustgate.core.errors import RobustgateError
from robustgate.core.files import write_whole
from robustgate.core.records import RunRecord
from robustgate.reports import figures
from robustgate.reports.markdown import escape

if TYPE_CHECKING:
    from robustgate.engine.comparison import Change, Comparison, CostChange, Difference, Drop, Figure

# What a section lists of what nobody must look at; --json has all.
MOST_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table of texts; one that is `folded` is shortened, and closed at first in Markdown."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    folded: bool = False

    @property
    def shown(self) -> Sequence[tuple[str, ...]]:
        """The rows that are printed."""
        return self.rows[:MOST_LISTED] if self.folded else self.rows

    @property
    def rest(self) -> str:
        """What is said of the rows that are not."""
        left = len(self.rows) - len(self.shown)
        return f"and {left:,} more: --json has all of them" if left else ""


def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="The results.json of the release before.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="The results.json of the new release.")],
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999999, help="How sure to be of all that is called worse or better.")
    ] = 0.99,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all of it as JSON.")] = None,
    fail_on_worse: Annotated[
        bool, typer.Option("--fail-on-worse", help="Exit status 1 if anything is worse, or nothing was compared.")
    ] = False,
) -> None:
    """Say what is worse and what is better in B than in A: accuracies with intervals, verdicts, sizes, latencies.

    Example: robustgate compare v1/results.json v2/results.json --markdown
    """
    from robustgate.engine.comparison import compare as compare_results
    from robustgate.reports.results_json import load

    try:
        found = compare_results(load(before), load(after), confidence)
    except RobustgateError as error:
        raise refusal(error) from error
    if json_file is not None:
        write_whole(json_file, json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n")
    if markdown:
        typer.echo(_markdown(found))
    else:
        _show(found, Console(markup=False, highlight=False))
    raise typer.Exit(1 if fail_on_worse and (found.is_worse or not found.compared) else 0)


def _show(found: Comparison, console: Console) -> None:
    for line in [_title(found), *_heading(found), *_tally(found)]:
        typer.echo(line)
    for section in _sections(found):
        table = Table(title=f"\n{section.title}", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for place, head in enumerate(section.heads):
            is_text = place == 0 or head == "why"
            table.add_column(head, overflow="fold", justify="left" if is_text else "right", no_wrap=not is_text)
        for row in section.shown:
            table.add_row(*row)
        console.print(table)
        if section.rest:
            console.print(section.rest, style="dim")


def _markdown(found: Comparison) -> str:
    parts = [
        f"## robustgate: {_title(found)}",
        *(escape(line) for line in _heading(found)),
        *map(escape, _tally(found)),
    ]
    for section in _sections(found):
        rule = ["---" if head in (section.heads[0], "why") else "---:" for head in section.heads]
        rows = [section.heads, rule, *(map(escape, row) for row in section.shown)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        title = f"{section.title} ({len(section.rows):,})"
        opening = f"<details><summary>{title}</summary>" if section.folded else f"### {title}"
        parts += [opening, table, *filter(None, [section.rest]), *(["</details>"] if section.folded else [])]
    return "\n\n".join(parts)


def _title(found: Comparison) -> str:
    counts = Counter(one.change for one in found.cases)
    told = [f"{counts[change]:,} {change}" for change in ("worse", "better") if counts[change]]
    slower = sum(one.speed == "slower" for one in found.variants)
    told += [f"{slower:,} slower"] if slower else []
    if not found.compared:
        return "nothing could be compared"
    return ", ".join(told) or "nothing is worse or better, as far as the samples tell"


def _heading(found: Comparison) -> list[str]:
    return [f"{letter}: {_run(run)}" for letter, run in (("A", found.before), ("B", found.after))]


def _run(run: RunRecord) -> str:
    return f"run {run.id} of {run.started[:10]}, policy {run.policy}, seed {run.seed}: {run.verdict}"


def _tally(found: Comparison) -> Iterator[str]:
    counts = Counter(one.change for one in found.cases)
    words: dict[Change, str] = {
        "worse": "worse",
        "better": "better",
        "unclear": "within chance",
        "same": "the same, sample by sample",
        "gone": "gone",
        "incomparable": "not comparable",
        "new": "new",
    }
    told = [f"{counts[change]:,} {word}" for change, word in words.items() if counts[change]]
    yield f"{figures.counted(found.compared, 'case')} compared" + (f": {', '.join(told)}" if told else "")
    if found.counted:
        yield (
            f"{figures.level(found.confidence)} sure that all which is called worse or better is: over "
            f"{figures.counted(found.counted, 'comparison')} (Holm), so each interval is at "
            f"{100 * found.each:.6g} %; it speaks of new data"
        )
    partial = sum(one.drop is not None and one.drop.n < one.before.n_total for one in found.cases if one.before)
    if partial:
        yield f"{figures.counted(partial, 'case')} stopped early: compared on the first samples, which both measured"
    if found.before.config_sha256 != found.after.config_sha256:
        yield "the two configurations differ: a verdict may have changed because its rule did"


def _sections(found: Comparison) -> Iterator[Section]:
    """Yield what there is to tell, worst first."""
    of = {
        change: [one for one in found.cases if one.change == change] for change in {one.change for one in found.cases}
    }
    yield from _decided("Worse", of.get("worse", []))
    changed = [(one.subject, f"{one.before} → {one.after}") for one in found.verdicts]
    yield from _some("Verdicts that changed", ("of", "verdict"), changed)
    yield from _some("Gone", ("case", "accuracy, %", "why"), map(_alone, of.get("gone", [])), folded=True)
    incomparable = [(one.name, _accuracies(one), one.reason) for one in of.get("incomparable", [])]
    yield from _some("Not comparable", ("case", "accuracy, %", "why"), incomparable)
    yield from _decided("Better", of.get("better", []))
    yield from _decided("Within chance", of.get("unclear", []), folded=True)
    yield from _some("New", ("case", "accuracy, %", "why"), map(_alone, of.get("new", [])), folded=True)
    resized = [_resized(one) for one in found.variants if one.before.size_bytes != one.after.size_bytes]
    yield from _some("Sizes", ("variant", "size", "change"), resized, folded=True)
    timed = [(one.name, _ratios(one), one.speed) for one in found.variants if one.speed]
    yield from _some("Times of one image", ("variant", "of the reference's", "so it is"), timed, folded=True)


def _decided(title: str, cases: Sequence[Difference], *, folded: bool = False) -> Iterator[Section]:
    """Yield cases that were compared: those that are paired, and those that are not, each with its own interval."""
    heads = ("case", "accuracy, %", "drop, points", "lost, gained, of")
    paired = [(one.name, _accuracies(one), *_drop(one.drop)) for one in cases if one.drop]
    yield from _some(title, heads, paired, folded=folded)
    alone = [(one.name, _accuracies(one), one.reason) for one in cases if not one.drop]
    yield from _some(f"{title}; unpaired, by two intervals", ("case", "accuracy, %", "why"), alone, folded=folded)


def _some(
    title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, folded: bool = False
) -> Iterator[Section]:
    if listed := [tuple(" ".join(cell.split()) for cell in row) for row in rows]:
        yield Section(title=title, heads=heads, rows=listed, folded=folded)


def _drop(drop: Drop) -> tuple[str, str]:
    interval = figures.interval(drop.low, drop.high)
    return f"{figures.tenths(drop.value)} {interval}", f"{drop.lost:,}, {drop.gained:,}, {drop.n:,}"


def _alone(one: Difference) -> tuple[str, ...]:
    side = one.before or one.after
    return one.name, _accuracy(side) if side else "", one.reason


def _accuracies(one: Difference) -> str:
    return " → ".join(_accuracy(side) for side in (one.before, one.after) if side)


def _accuracy(side: Figure) -> str:
    return f"{figures.tenths(side.value)} {figures.interval(side.low, side.high)}".strip()


def _resized(one: CostChange) -> tuple[str, ...]:
    old, new = one.before.size_bytes, one.after.size_bytes
    change = f"{100 * (new / old - 1):+.1f} %" if old else figures.NOTHING
    return one.name, f"{figures.size(old)} → {figures.size(new)}", change


def _ratios(one: CostChange) -> str:
    return " → ".join(
        f"{cost.ratio:.3g} [{cost.ratio_low:.3g}, {cost.ratio_high:.3g}]" for cost in (one.before, one.after)
    )
