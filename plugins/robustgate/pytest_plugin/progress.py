"""A live line behind pytest's own: the case, its samples, the time left. Silent where output is not a terminal."""

from __future__ import annotations

import shutil
import time
from typing import Any

import pytest

from robustgate.core.records import Case, CaseResult

EVERY_SECONDS = 0.2
ROOM = 30


class LiveLine:
    """Written after what pytest has on the current line, and erased again before pytest goes on."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.total = 0
        self.done = 0
        self.began = time.perf_counter()
        self._last = 0.0
        self._shown = False

    def show(self, case: Case, done: int, total: int) -> None:
        """Show that `done` of `total` samples of a case are measured; before there are any, that it is prepared."""
        if not done or time.perf_counter() - self._last > EVERY_SECONDS:
            samples = f"{done:,}/{total:,}" if total else "preparing"
            self._write(f"{case.name}  {samples}{self._left()}")

    def count(self, result: CaseResult | None) -> None:
        """Count a finished case; where workers measure, show the last one that came in."""
        if result is None:
            return
        self.done += 1
        if hasattr(self.config.option, "dist") and self.config.option.dist != "no":
            self.clear()
            self._write(f"{self.done:,}/{self.total:,} cases  {result.name}{self._left()}")

    def clear(self) -> None:
        """Erase the line."""
        if self._shown:
            self._emit("\x1b[u\x1b[K")
            self._shown = False

    def _left(self) -> str:
        if not self.done or self.done >= self.total:
            return ""
        seconds = (time.perf_counter() - self.began) / self.done * (self.total - self.done)
        return f"  about {int(seconds) // 60}:{int(seconds) % 60:02d} left"

    def _write(self, text: str) -> None:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or not reporter.isatty or reporter.verbosity < 0:
            return
        self._last = time.perf_counter()
        self.clear()
        room = shutil.get_terminal_size().columns - reporter._tw.width_of_current_line - 3
        if room >= ROOM:
            # Save the place, write in grey, and come back to erase: pytest never knows.
            self._emit(f"\x1b[s  \x1b[2m{text[:room]}\x1b[0m")
            self._shown = True

    def _emit(self, text: str) -> None:
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = self.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled():
            reporter._tw._file.write(text)
            reporter._tw._file.flush()
