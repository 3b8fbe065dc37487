"""Runs of the suite on a pseudo-terminal, and what a person sees on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pyte

# The display is on the screen when its cursor has returned to pytest's place.
DRAWN = "\x1b8"


def on_a_terminal(folder: Path, *words: str, columns: int = 120, rows: int = 30, **variables: str) -> str:
    """Run the suite on a terminal of this size and return every byte that it wrote."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    inherited = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "CI")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", "-p", "no:cacheprovider", *words],
        cwd=folder,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**inherited, "TERM": "xterm-256color", **variables},
    )
    os.close(follower)
    chunks = []
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(leader)
    assert process.wait(timeout=60) in (0, 1)
    return b"".join(chunks).decode()


class Terminal:
    """A terminal of a size, and all that has scrolled off its top."""

    def __init__(self, columns: int = 120, rows: int = 30) -> None:
        self.columns = columns
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self.stream = pyte.Stream(self.screen)

    def lines(self) -> list[str]:
        """All lines so far, without what is blank at the end."""
        gone = ["".join(line[x].data for x in range(self.columns)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in (*gone, *self.screen.display)).rstrip().split("\n")

    def frames(self, output: str) -> Iterator[list[str]]:
        """Write what a run wrote, and yield the lines whenever the display has been drawn."""
        for part in re.split(f"(?<={DRAWN})", output):
            self.stream.feed(part)
            if part.endswith(DRAWN):
                yield self.lines()

    def end(self, output: str) -> list[str]:
        """Write what a run wrote, and return the lines that are left."""
        self.stream.feed(output)
        return self.lines()
