"""Tests that time run alone: under pytest-xdist, workers take turns with them by locks on files.

A worker holds its own lock while it runs a test. A test that times takes the turn, so that no other test begins, and
then every worker's lock, so that none is left running. Nobody waits for the turn with a lock in hand: there is no
circle to wait in.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

TURN, BUSY, FOLDER = "turn", ".busy", "robustgate_turns"


def times(item: pytest.Item) -> bool:
    """Say whether a test measures time, and so must run alone."""
    return item.get_closest_marker("latency") is not None


class Turns:
    """The plugin object of a worker: nothing else of the run happens while one of its timing tests runs."""

    def __init__(self, folder: Path, worker: str) -> None:
        self.folder = folder
        self.worker = worker
        self.alone = False
        self.needed = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Take turns only where a test of the run times: every worker has collected the same tests."""
        self.needed = any(times(item) for item in session.items)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Run a test, its fixtures' setup and teardown included, in its turn."""
        if not self.needed:
            return (yield)
        with self._alone() if times(item) else self._busy():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Iterator[None]:
        """End this worker's session in its turn too: other plugins may have much to do there."""
        if not self.needed:
            return (yield)
        with self._busy():
            return (yield)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        with ExitStack() as held:
            with FileLock(self.folder / TURN):
                held.enter_context(FileLock(self.folder / f"{self.worker}{BUSY}"))
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with ExitStack() as held:
            held.enter_context(FileLock(self.folder / TURN))
            # Whoever has run anything has a lock here, a worker that replaced a crashed one too.
            for place in sorted(self.folder.glob(f"*{BUSY}")):
                held.enter_context(FileLock(place))
            self.alone = True
            try:
                yield
            finally:
                self.alone = False


class Hall:
    """The plugin object of the process that started the workers: the folder in which they meet is its own."""

    def __init__(self) -> None:
        self.folder: Path | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where the workers of this run meet."""
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="robustgate-turns-"))
        node.workerinput[FOLDER] = str(self.folder)

    def pytest_unconfigure(self) -> None:
        """Leave nothing behind."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def turns_of(config: pytest.Config) -> Turns | None:
    """Register what makes timing tests run alone; return a worker's part in it, or None where there is no worker."""
    worker = getattr(config, "workerinput", None)
    if worker is None:
        config.pluginmanager.register(Hall(), "robustgate.hall")
        return None
    if FOLDER not in worker:
        return None
    folder = Path(worker[FOLDER])
    folder.mkdir(parents=True, exist_ok=True)  # a worker on another machine has a folder of its own there
    turns = Turns(folder, str(worker["workerid"]))
    config.pluginmanager.register(turns, "robustgate.turns")
    return turns
