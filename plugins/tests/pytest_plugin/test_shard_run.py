"""`--robustgate-shard`: the parts of a run are disjoint, leave nothing out, and make the whole again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustgate.cli import app

OWN = """
import pytest

def test_of_the_user():
    pass

@pytest.mark.clean
def test_of_a_case(case, gate):
    gate.check(case)
"""


def run(*words: str, status: int) -> str:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--robustgate-config",
        "robustgate.toml",
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def collected(*words: str) -> list[str]:
    """The names of the tests that would run; of part `of` alone where that is asked for."""
    out = run(
        "--pyargs",
        "robustness_tests",
        "own",
        "--collect-only",
        "-q",
        "-o",
        "python_files=own.py test_*.py",
        *words,
        status=0,
    )
    return re.findall(r"::(test_\S+)$", out, re.MULTILINE)


@pytest.mark.parametrize("of", [2, 3])
def test_parts_are_disjoint_even_and_leave_nothing_out(tiny, of: int) -> None:
    tiny.configure()
    Path("own").mkdir()
    Path("own/own.py").write_text(OWN)
    whole = collected()
    parts = [collected("--robustgate-shard", f"{number}/{of}") for number in range(1, of + 1)]
    assert sorted(name for part in parts for name in part) == sorted(whole)
    assert [("test_of_the_user" in part) for part in parts] == [True] + [False] * (of - 1)
    sizes = [len([name for name in part if "[" in name]) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    # Two variants: only one part has cases of both, where a part ends within one of them.
    both = [part for part in parts if len({"fp25" in name for name in part if "[" in name}) == 2]
    assert len(both) <= 1


def test_parts_make_the_run_again(tiny) -> None:
    tiny.configure()
    for number, workers in ((1, ()), (2, ("-n", "2"))):
        words = ("--robustgate-shard", f"{number}/2", "--robustgate-report", f"part{number}", *workers)
        run("--pyargs", "robustness_tests", *words, status=0)
        assert not json.loads(Path(f"part{number}/results.json").read_text())["run"]["complete"]
    done = CliRunner().invoke(app, ["merge", "part1/results.json", "part2/results.json", "--output", "whole"])
    assert done.exit_code == 0, done.output
    verdict = CliRunner().invoke(app, ["verdict", "whole/results.json", "--complete"])
    assert verdict.exit_code == 0, verdict.output


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b"])
def test_what_is_no_part_is_refused(tiny, text: str) -> None:
    tiny.configure()
    for workers in ((), ("-n", "1")) if text == "1" else ((),):
        out = run("--pyargs", "robustness_tests", f"--robustgate-shard={text}", *workers, status=4)
        assert f"--robustgate-shard: expected a part of a whole, 1/4 to 4/4, got {text!r}" in out
        assert "INTERNALERROR" not in out
