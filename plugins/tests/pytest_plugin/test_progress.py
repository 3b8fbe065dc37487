"""The live line: on a terminal it says case, samples and time left; elsewhere it is silent."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
SUITE = [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", "-p", "no:cacheprovider"]


def on_a_terminal(tiny, *words: str) -> str:
    """Run the suite on a pseudo-terminal of 120 columns and return every byte that it wrote."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    process = subprocess.Popen(
        [*SUITE, *words], cwd=tiny.folder, stdin=follower, stdout=follower, stderr=follower, env=environment
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
    assert process.wait(timeout=60) == 0
    return b"".join(chunks).decode()


def live_lines(output: str) -> list[str]:
    return re.findall(r"\x1b\[s  \x1b\[2m(.*?)\x1b\[0m", output)


def test_a_terminal_shows_case_samples_and_time_left_and_is_left_clean(tiny) -> None:
    output = on_a_terminal(tiny)
    lines = live_lines(output)
    assert "tiny-none-day-fgsm  preparing" in lines[0]
    assert any(re.search(r"about \d+:\d\d left", line) for line in lines)
    # Each line that is written is erased again before pytest goes on.
    assert output.count("\x1b[s") == output.count("\x1b[u\x1b[K") == len(lines)
    assert re.sub(r"\x1b\[s.*?\x1b\[u\x1b\[K", "", output).count("test_clean.py") == 1


def test_workers_report_to_the_same_line(tiny) -> None:
    lines = live_lines(on_a_terminal(tiny, "-n", "2"))
    assert any(re.match(r"\d+/12 cases  tiny-", line) for line in lines)


def test_a_pipe_gets_no_live_line(tiny) -> None:
    done = subprocess.run(SUITE, cwd=tiny.folder, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    assert "preparing" not in done.stdout
