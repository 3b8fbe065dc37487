"""What `robustgate plan` says that a run costs."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from robustgate.engine.cost import Cost, Minutes, cost
from robustgate.engine.plan import Plan
from robustgate.engine.stock import extents, kept
from robustgate.reports.figures import counted, minute
from robustgate.reports.history import History, read

# So many of the last runs are asked how long they took.
RUNS = 20
LARGE = ((10**9, "billion"), (10**6, "million"))


def show_cost(plan: Plan, console: Console) -> None:
    """Print what a run of a plan takes where nothing is kept: passes, minutes, artifacts. Raises ResultsError."""
    found = cost(plan, extents(plan), _history(plan))
    console.print("passes of images, at most, where no measurement is kept:")
    table = Table(box=None)
    for heading in ("", "cases", "forward", "backward"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for one in found.kinds:
        is_known = one.unknown < one.cases
        figures = (in_words(one.passes.forward), in_words(one.passes.backward)) if is_known else ("unknown", "unknown")
        table.add_row(one.kind, f"{one.cases:,}", *figures)
    console.print(table)
    console.print(_summary(found))
    console.print(_minutes(found.minutes))
    there = len(kept(plan))
    console.print(f"artifacts: {len(plan.variants) - there:,} to build, {there:,} kept already")
    for remark in found.remarks:
        console.print(remark, style="yellow")


def in_words(count: int) -> str:
    """Return a number as it is read: 12,345 or 1.2 million."""
    for size, name in LARGE:
        if count >= size:
            return f"{count / size:,.1f} {name}"
    return f"{count:,}"


def _history(plan: Plan) -> History | None:
    file = plan.configuration.gate.history_file
    return read(file, RUNS) if file is not None and file.is_file() else None


def _summary(found: Cost) -> str:
    passes = found.passes
    told = f"passes: {in_words(passes.forward)} forward, {in_words(passes.backward)} backward"
    return told + (f", and {counted(found.unknown, 'case')} of unknown cost" if found.unknown else "")


def _minutes(found: Minutes | None) -> str:
    if found is None:
        return "minutes: no run yet to tell them by"
    minutes = f"about {found.minutes:,.0f}" if found.minutes >= 1 else "under 1"
    started = minute(found.run.started)
    return f"minutes: {minutes}, by the run of {started} on {found.run.device} ({found.cases:,} of these cases)"
