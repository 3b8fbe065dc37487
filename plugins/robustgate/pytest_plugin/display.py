"""What the live display says, as lines of rich: the case at work, or the last one that came in, and the run."""

from __future__ import annotations

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from robustgate.core.records import CaseResult
from robustgate.engine.progress import Reached
from robustgate.pytest_plugin.pace import Pace
from robustgate.reports import figures

WIDEST_BAR = 40
GAP = 2


def at_work(reached: Reached, draw: Reached | None, confidence: float) -> Table:
    """Return the line of a case that is measured; `draw` are those of its samples that tell of all, if there are."""
    kept = f"{reached.kept:,} kept" if reached.kept else ""
    count = f"{reached.done:,}/{reached.total:,}" if reached.total else "preparing"
    told = estimate(reached, draw, confidence) if reached.total else ""
    return _line(reached.case.name, count, told, kept)


def came_in(result: CaseResult) -> Table:
    """Return the line of a finished case."""
    value = "" if result.value is None else figures.percent(result.value)
    told = " ".join(f"{value} {figures.interval(result.low, result.high)} {result.verdict}".split())
    return _line(result.name, f"{result.n:,}/{result.n_total:,}", told, "kept" if result.cached else "")


def run(pace: Pace, underway: float, seconds_left: float | None) -> Table:
    """Return the line of the run; `underway` is the share that is done of the case at work."""
    counts = f"{pace.done:,}/{pace.total:,} cases" + (f", {pace.kept:,} kept" if pace.kept else "")
    bar = ProgressBar(total=max(1, pace.total), completed=pace.done + underway, width=WIDEST_BAR)
    left = "" if seconds_left is None else f"about {clock(seconds_left)} left"
    return _row(bar, Text(counts), Text(left))


def estimate(reached: Reached, draw: Reached | None, confidence: float) -> str:
    """Return what the samples so far tell of all.

    Of those drawn at random that is the share which came out right, with its interval (Wilson): ``41.2 % [36.9,
    45.6]``. Of samples in any order it is what the rest can still make of it, which is certain.
    """
    if draw is not None and draw.right is not None:
        from robustgate.statistics.proportion import wilson

        interval = wilson(draw.right, draw.done, confidence)
        return f"{figures.percent(draw.right / draw.done)} {figures.interval(interval.low, interval.high)}"
    if reached.right is None or not reached.done:
        return ""
    low, high = reached.right / reached.total, (reached.right + reached.total - reached.done) / reached.total
    return figures.percent(low) if low == high else f"{figures.tenths(low)} to {figures.percent(high)}"


def clock(seconds: float) -> str:
    """Return ``0:05``, ``12:34`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _line(name: str, count: str, told: str, kept: str) -> Table:
    """Return a line of which only the name gives way on a narrow screen."""
    shown = Text(name, style="bold", no_wrap=True, overflow="ellipsis")
    return _row(shown, Text(count), Text(told, style="cyan"), Text(kept, style="dim"))


def _row(first: RenderableType, *others: Text) -> Table:
    texts = [text for text in others if text.plain]
    columns = [Column(no_wrap=True) for _ in texts]
    grid = Table.grid(Column(), *columns, padding=(0, GAP, 0, 0))
    grid.add_row(first, *texts)
    return grid
