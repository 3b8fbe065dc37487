"""The end of a run on the terminal: its verdict, what failed, what took long.

Whether there are colours pytest alone decides: by what it writes to, ``--color``, ``NO_COLOR`` and ``FORCE_COLOR``.
"""

from __future__ import annotations

import re

import pytest
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustgate.core.records import Results, Verdict
from robustgate.reports import figures
from robustgate.reports.summary import failures, heading, slowest, summarize

MOST_FAILURES, MOST_SLOW = 10, 5
LONGEST_FIGURE = len("drop -10.0 [-10.0, -10.0]")
# Below this pytest prints next to nothing.
LEAST_VERBOSITY = -1
# What of the width a name, and a reason, may take before it goes on on the next line: 80 columns hold them all in two.
NAMES_SHARE, REASONS_SHARE = 0.33, 0.16
COLOURS: dict[Verdict, str] = {"pass": "green", "waived": "yellow", "incomplete": "yellow"}


def write_summary(results: Results, reporter: pytest.TerminalReporter) -> None:
    """Write the verdict of the run, and what a reader must know of it."""
    reporter.section(f"robustgate: {heading(results)}", sep="=")
    first, *others = summarize(results)
    reporter.write_line(first, **{COLOURS.get(results.run.verdict, "red"): True, "bold": True})
    for line in others:
        reporter.write_line(line)


def write_tables(results: Results, reporter: pytest.TerminalReporter) -> None:
    """Write what failed, worst first, and the cases that took longest; nothing where there is nothing to tell."""
    if reporter.verbosity < LEAST_VERBOSITY:
        return
    width = reporter._tw.fullwidth
    for table in (_failures(results, width), _slowest(results, width)):
        if table.row_count:
            reporter.write(_text(table, reporter))


def broken(name: str, width: int) -> str:
    """Return a name in lines of at most `width` characters, broken after hyphens where it can be."""
    lines = [""]
    for part in re.findall(rf"[^-]{{0,{width - 1}}}-|[^-]{{1,{width}}}", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _failures(results: Results, width: int) -> Table:
    found = failures(results)
    left = len(found) - MOST_FAILURES
    table = _table("What failed", f"and {left:,} more: see the report" if left > 0 else None)
    table.add_column("case", no_wrap=True)
    # A case's figures are of one form; a variant's may be sentences.
    longest = max((len(line) for one in found for line in (one.figure, one.limit)), default=0)
    table.add_column("figure, limit", overflow="fold", no_wrap=longest <= LONGEST_FIGURE)
    table.add_column("rule (policy)", overflow="fold")
    table.add_column("why", overflow="fold", max_width=int(REASONS_SHARE * width))
    for one in found[:MOST_FAILURES]:
        colour = "red" if one.verdict in ("fail", "error") else "yellow"
        name, figure = broken(one.name, int(NAMES_SHARE * width)), f"{one.figure}\n{one.limit}".strip()
        table.add_row(name, figure, one.rule, Text(one.why, style=colour))
    return table


def _slowest(results: Results, width: int) -> Table:
    table = _table("What took longest")
    table.add_column("case", no_wrap=True)
    for head in ("samples", "seconds", "samples per second"):
        table.add_column(head, justify="right")
    for case in slowest(results, MOST_SLOW):
        rate = f"{case.n / case.seconds:,.1f}"
        table.add_row(broken(case.name, width // 2), figures.count(case.n), f"{case.seconds:,.1f}", rate)
    return table


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=f"\n{title}",
        title_style="bold",
        title_justify="left",
        caption=caption,
        caption_style="",
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _text(table: Table, reporter: pytest.TerminalReporter) -> str:
    """Return a table as pytest would write it: as wide as its terminal, and with colours where it has them."""
    console = Console(
        file=reporter._tw._file,
        width=reporter._tw.fullwidth,
        force_terminal=reporter.hasmarkup,
        color_system="standard" if reporter.hasmarkup else None,
        legacy_windows=False,
        markup=False,
        highlight=False,
        emoji=False,
    )
    with console.capture() as capture:
        console.print(table)
    # Rich fills each line up to the table's width.
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
