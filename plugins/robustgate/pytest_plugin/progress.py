"""The live display of a run: two lines below pytest's own. Silent where output is not a terminal."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, TextIO

import pytest
from rich.console import Console, Group
from rich.padding import Padding

from robustgate.core.records import Case, CaseResult
from robustgate.engine.progress import Reached
from robustgate.engine.results import VARIANT_TESTS, key
from robustgate.pytest_plugin import display
from robustgate.pytest_plugin.pace import Key, Pace

EVERY_SECONDS = 0.2
# A smaller screen has no room below pytest's line.
FEWEST_ROWS, FEWEST_COLUMNS = 4, 40
INDENT = 2
# Every terminal that moves its cursor knows these. Whatever is drawn, the cursor is back where pytest left it.
DOWN, NEXT_LINE, SAVE, RESTORE, ERASE_BELOW = "\x1bD", "\x1b[B\r", "\x1b7", "\x1b8", "\x1b[J"


class LiveDisplay:
    """The case at work and what its samples tell so far, the run, and the time left.

    It is taken away before pytest, or a plugin that prints through it, writes on. Where a test's own output reaches
    the terminal (``-s``) nothing is shown: that would run into it, and pytest's own progress is not shown there either.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.pace = Pace()
        self.confidence = 0.99
        self._at_work: Reached | None = None
        self._draws: dict[Key, Reached] = {}
        self._came_in: CaseResult | None = None
        self._has_workers = False
        self._heard = self._last = 0.0
        self._shown = False

    def show(self, reached: Reached) -> None:
        """Show how far a case is, but not more often than anyone can read."""
        if self._reporter is None:
            return
        now, case = time.perf_counter(), key(reached.case)
        if reached.is_draw:
            self._draws[case] = reached
        elif reached.total:
            self.pace.work(case, now - self._heard)
        self._heard, self._at_work = now, reached
        if not reached.total or now - self._last > EVERY_SECONDS:
            self._last = now
            self._draw()

    def count(self, result: CaseResult | None) -> None:
        """Count a finished case."""
        if result is None:
            return
        case = result.shift.kind, result.name
        self.pace.finish(case, kept=result.cached)
        if self._has_workers and not result.cached:
            self.pace.work(case, result.seconds)
        self._came_in, self._at_work = result, None

    def clear(self) -> None:
        """Take the display away."""
        if self._shown:
            self._shown = False
            self._emit(ERASE_BELOW)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: Sequence[Any]) -> None:
        """Learn how many workers measure at the same time."""
        self._has_workers, self.pace.workers = True, len(specs)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        """Where workers measure, show the last case that came in, after what pytest writes of it."""
        if self._has_workers and self._reporter is not None:
            self._draw()

    @cached_property
    def _reporter(self) -> Any:
        """What pytest prints with; None where nothing is to be shown."""
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        captured = self.config.getoption("capture", "no") == "fd"
        moves = os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        if reporter is None or not reporter.isatty or reporter.verbosity < 0 or not captured or not moves:
            return None
        reporter._tw._file = Curtain(reporter._tw._file, self.clear)
        return reporter

    @cached_property
    def _console(self) -> Console:
        colours: Any = "auto" if self._reporter.hasmarkup else None
        return Console(force_terminal=True, color_system=colours, markup=False, highlight=False, legacy_windows=False)

    def _draw(self) -> None:
        columns, rows = shutil.get_terminal_size()
        written = self._reporter._tw.width_of_current_line
        self.clear()
        # After a full line the cursor is on neither this one nor the next, and not every terminal returns there.
        if rows < FEWEST_ROWS or columns < FEWEST_COLUMNS or (written and written % columns == 0):
            return
        with self._console.capture() as capture:
            self._console.print(Padding(Group(*self._lines()), (0, 0, 0, INDENT)), width=columns - 1)
        lines = capture.get().splitlines()
        # Going down and up again makes room at the foot of the screen: the place that is saved does not move any more.
        room = DOWN * len(lines) + f"\x1b[{len(lines)}A"
        self._shown = True
        self._emit(room + SAVE + "".join(f"{NEXT_LINE}{line}" for line in lines) + RESTORE)

    def _lines(self) -> list[Any]:
        if self._at_work is None:
            told = [display.came_in(self._came_in)] if self._came_in is not None else []
            return [*told, display.run(self.pace, 0, self.pace.seconds_left())]
        case, done, total = key(self._at_work.case), self._at_work.done, self._at_work.total
        line = display.at_work(self._at_work, self._draws.get(case), self.confidence)
        share = done / total if total else 0.0
        return [line, display.run(self.pace, share, self.pace.seconds_left(case, share))]

    def _emit(self, text: str) -> None:
        capture: Any = self.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled():
            self._reporter._tw._file.behind(text)


class Curtain:
    """The stream that pytest prints to: the display goes before anything else is written."""

    def __init__(self, stream: TextIO, clear: Callable[[], None]) -> None:
        self._stream = stream
        self._clear = clear

    def write(self, text: str) -> int:
        """Write what pytest, or a plugin, has to say: from within a test too, as a live log does."""
        self._clear()
        return self._stream.write(text)

    def behind(self, text: str) -> None:
        """Write the display itself."""
        self._stream.write(text)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def named(ids: Iterable[str], cases: Iterable[Case]) -> list[Key]:
    """Return which of the planned `cases` tests of these ids are about: ``test_x.py::test_clean[NAME]``.

    The ids are all that the process that started the workers knows of what they collected.
    """
    known = {case.name: key(case) for case in cases}
    found = []
    for one in ids:
        test, _, name = one.rpartition("::")[2].removesuffix("]").partition("[")
        # A variant has the name of its case on clean images.
        if name in known and test not in {f"test_{kind}" for kind in VARIANT_TESTS}:
            found.append(known[name])
    return found
