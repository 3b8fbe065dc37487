"""`--help` of every command: one screen, with an example that can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from robustgate.cli import app

LINES, COLUMNS = 24, 80
ROOT = typer.main.get_command(app)


def commands(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """Yield the names of a command and of all below it."""
    yield names
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, *names, name)


def shown(names: tuple[str, ...]) -> str:
    done = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": str(COLUMNS)}, terminal_width=COLUMNS)
    assert done.exit_code == 0
    return done.stdout


def parsed(command: Any, words: list[str]) -> list[str]:
    """Return the commands that words call; raises KeyError or Click's UsageError for what does not exist."""
    if not (found := getattr(command, "commands", {})):
        command.make_context(command.name, words)
        return []
    name, *rest = words
    return [name, *parsed(found[name], rest)]


EVERY = list(commands(ROOT))


def test_the_walk_comes_to_all() -> None:
    assert {(), ("plan",), ("baseline",), ("baseline", "accept"), ("schema",)} <= set(EVERY)
    assert len(EVERY) >= 15


@pytest.mark.parametrize("names", EVERY, ids=" ".join)
def test_help_fits_one_screen_and_shows_an_example_that_parses(names: tuple[str, ...]) -> None:
    lines = shown(names).splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    found = re.search(r"Example: robustgate (.*?)(?:\n\n|\Z)", "\n".join(lines), flags=re.DOTALL)
    assert found, lines
    words = shlex.split(" ".join(found[1].split()).partition(" > ")[0])
    assert tuple(parsed(ROOT, words))[: len(names)] == names


def test_an_example_with_an_unknown_option_would_not_parse() -> None:
    # Typer has a copy of Click of its own, or the installed one: the text of the error is the same.
    for words, error in (
        (["plan", "--nmaes"], "No such option: --nmaes"),
        (["plna"], "plna"),
        (["report"], "Missing parameter: results"),
    ):
        with pytest.raises(Exception, match=error):
            parsed(ROOT, words)


@pytest.mark.parametrize(
    "names",
    [("verdict",), ("lint",), ("run",), ("compress",), ("merge",), ("baseline", "accept"), ("compare",)],
    ids=" ".join,
)
def test_where_it_matters_the_exit_status_is_told(names: tuple[str, ...]) -> None:
    assert "Exit status" in shown(names)


def test_the_list_tells_each_command_in_one_whole_line() -> None:
    listed = shown(()).split("Commands:\n")[1].splitlines()
    assert len(listed) == len([names for names in EVERY if len(names) == 1])
    assert all(re.fullmatch(r"  [a-z]+ +[A-Z].*[^.]\.", line) for line in listed), listed


def test_the_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"robustgate {version('robustgate')}\n")
