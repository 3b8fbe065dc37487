"""The configuration that a command is about, and the plan that is made of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from robustgate.cli.completion import policies
from robustgate.cli.refusal import refusal
from robustgate.config import Configuration, expose, find, load
from robustgate.core.errors import RobustgateError
from robustgate.engine.plan import Plan, make_plan

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The configuration; default: robustgate.toml or pyproject.toml here.")
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy", help="The policy, or several: edge,cloud; instead of gate.policy.", autocompletion=policies
    ),
]


def configured(config: Path | None, otherwise: str = "", *, has_weights: bool = True) -> Configuration:
    """Return the configuration that is named, or that of the current folder; `otherwise` tells how to do without.

    Unless it `has_weights`, the weight files that it names need not be there yet. While the command runs, what lies
    beside it can be imported, as in a run. Raises RobustgateError.
    """
    source = config or find(Path.cwd())
    if source is None:
        problem = "no robustgate.toml here, and no [tool.robustgate] in pyproject.toml; name one: --config"
        raise RobustgateError(f"{problem}{otherwise}")
    expose(source)
    return load(source, has_weights=has_weights)


def planned(config: Path | None, policy: str | None) -> Plan:
    """Return the plan of a configuration, or say what is wrong with it and end the command."""
    try:
        return make_plan(configured(config), policy)
    except RobustgateError as error:
        raise refusal(error) from error


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules of `folder` be imported, as ``python -m pytest`` does, which the gate is run by.

    Whatever else becomes importable in the block ends with it.
    """
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before
