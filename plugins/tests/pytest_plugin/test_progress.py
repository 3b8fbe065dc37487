"""The live display: on a terminal it tells case, samples, run and time left; pytest's own lines stay as they are."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import pairwise

import pytest

pytest.importorskip("pty", reason="needs a pseudo-terminal")
from terminal import DRAWN, Terminal, on_a_terminal

SUITE = [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", "-p", "no:cacheprovider"]
LOGS = ("-v", "-o", "log_cli=true", "--log-cli-level=WARNING")
TALKS = """
    import logging
    logging.getLogger("theirs").warning("a network is built, and says so in a line of its own")
    return Net(**given)
"""


def told(lines: list[str]) -> list[str]:
    """What a run prints, but for what differs from run to run: times, what took longest, and blank lines."""
    text = "\n".join(line for line in lines if line)
    text = re.sub(r"What took longest\n.*?(?=^report:)", "", text, flags=re.DOTALL | re.MULTILINE)
    # Workers take tests in turns of their own.
    text = re.sub(r"^(\[gw\d\] \[ *\d+%\]|.*\bxdist\b.*workers).*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"in \d+\.\d+s[^=]*=*|=+", "", text).split("\n")


@pytest.mark.parametrize("words", [(), LOGS, ("-n", "2")], ids=["dots", "logs", "workers"])
def test_what_pytest_writes_is_what_it_writes_without_the_display(tiny, words: tuple[str, ...]) -> None:
    network = tiny.folder / "tiny_network.py"
    network.write_text(network.read_text().replace("net = Net", f"def net(**given):{TALKS}"))
    # A screen so low that all of it scrolls, and where lines of -v fill a row.
    size = {"columns": 100, "rows": 12}
    output = on_a_terminal(tiny.folder, *words, **size)
    shutil.rmtree(tiny.folder / "cache")
    # Where pytest does not capture all output the display does not run.
    without = on_a_terminal(tiny.folder, *words, "--capture=sys", **size)
    assert DRAWN in output
    assert DRAWN not in without
    found = told(Terminal(**size).end(output))
    assert found == told(Terminal(**size).end(without))
    assert not any("about" in line or "preparing" in line for line in found)
    assert any("says so in a line of its own" in line for line in found) == (words is LOGS)


def test_a_terminal_shows_case_samples_and_time_left(tiny) -> None:
    frames = list(Terminal().frames(on_a_terminal(tiny.folder)))
    displays = [frame[-2:] for frame in frames]
    assert re.match(r"  tiny-none-day-fgsm +preparing$", displays[0][0])
    assert re.match(r"  ━+ +0/12 cases$", displays[0][1])
    assert any(re.search(r"\d+/12 cases +about \d+:\d\d left$", run) for _, run in displays)
    # It stands below the line on which pytest writes its dots, which it leaves alone.
    assert re.match(r"test_adversarial\.py *$", frames[0][-3])
    for before, after in pairwise(frames):
        assert after[-3].startswith("test_")
        assert before[:-3] == after[: len(before) - 3]


def test_the_estimate_of_a_case_that_may_stop_early_has_its_interval(tiny) -> None:
    tiny.configure(("[policies.edge]\n", '[policies.edge]\nearly_stop = "certain"\n'), ("min = 0.3", "min = 0.6"))
    # Redrawn at every sample that is done, however fast they are.
    (tiny.folder / "impatient.py").write_text(
        "from robustgate.pytest_plugin import progress\nprogress.EVERY_SECONDS = 0\n"
    )
    output = on_a_terminal(tiny.folder, "-k", "tiny-none-day", "-p", "impatient")
    displays = [frame[-2:] for frame in Terminal().frames(output)]
    assert any(re.search(r"100/144 +\d+\.\d % \[\d+\.\d, \d+\.\d\]", case) for case, _ in displays)
    assert any(re.search(r"50/144 +\d+\.\d to \d+\.\d %", case) for case, _ in displays)


def test_what_was_kept_is_counted_and_takes_no_time(tiny) -> None:
    on_a_terminal(tiny.folder)
    runs = [frame[-1] for frame in Terminal().frames(on_a_terminal(tiny.folder))]
    assert re.search(r"11/12 cases, 11 kept$", runs[-1])
    assert not any("left" in run for run in runs)


def test_workers_report_to_the_same_lines(tiny) -> None:
    frames = list(Terminal().frames(on_a_terminal(tiny.folder, "-n", "2")))
    for case, run in (frame[-2:] for frame in frames):
        assert re.match(r"  tiny-\S+ +\d+/\d+ +\d+\.\d % (\[.*\] )?pass", case)
        assert re.match(r"  [━╸╺]+ +\d+/12 cases( +about \d+:\d\d left)?$", run)
    done = [int(found[1]) for frame in frames if (found := re.search(r"(\d+)/12", frame[-1]))]
    assert done == sorted(done)
    assert done[-1] == 12
    # The dots of the cases that came in stand above it.
    assert frames[-1][-3].startswith("." * 12)


@pytest.mark.parametrize(
    ("words", "variables"),
    [(("-q",), {}), (("-s",), {}), ((), {"TERM": "dumb"}), (("-p", "no:terminal"), {})],
    ids=["quiet", "output of tests", "dumb", "no reporter"],
)
def test_a_terminal_where_nothing_is_to_be_shown(tiny, words: tuple[str, ...], variables: dict[str, str]) -> None:
    output = on_a_terminal(tiny.folder, "-k", "fp25 and fgsm", *words, **variables)
    assert "preparing" not in output
    assert DRAWN not in output


def test_without_colours_the_display_has_none(tiny) -> None:
    output = on_a_terminal(tiny.folder, "-k", "fp25 and fgsm", NO_COLOR="1")
    assert "preparing" in output
    assert not re.search(r"\x1b\[[\d;]*m", output)


@pytest.mark.parametrize("words", [(), ("-v",), ("-n", "2")])
def test_a_pipe_gets_no_live_line_and_no_escape(tiny, words: tuple[str, ...]) -> None:
    tiny.configure(("min = 0.3", "min = 0.99"))
    done = subprocess.run([*SUITE, *words], cwd=tiny.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "What failed" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "preparing" not in done.stdout
