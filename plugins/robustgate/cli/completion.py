"""What a shell completes beside commands and options: names that stand in the configuration, or in the package.

What cannot be read completes nothing: the command itself says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from robustgate.config import Configuration, find, load
from robustgate.core.catalog import shelf
from robustgate.core.errors import RobustgateError

SCHEMAS = ("config", "results")


def policies(context: typer.Context, incomplete: str) -> list[str]:
    """Return the policies, of several with commas between the last one."""
    configuration = _configuration(context)
    return _last_of(incomplete, configuration.policies if configuration else ())


def variants(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the variants of the plan."""
    from robustgate.engine.plan import make_plan

    configuration = _configuration(context)
    if configuration is None:
        return []
    try:
        made = make_plan(configuration, next(iter(configuration.policies)))  # whichever: the variants are the same
    except RobustgateError:
        return []
    return [one.name for one in made.variants if one.name.startswith(incomplete)]


def models(context: typer.Context, incomplete: str) -> list[str]:
    """Return the models."""
    configuration = _configuration(context)
    return [name for name in (configuration.models if configuration else ()) if name.startswith(incomplete)]


def sources(context: typer.Context, incomplete: str) -> list[str]:
    """Return the domains that the model which is named before has weights for."""
    configuration = _configuration(context)
    model = configuration.models.get(context.params.get("model", "")) if configuration else None
    return [name for name in (model.weights if model else ()) if name.startswith(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Return the recipes that are installed."""
    return [name for name in shelf("training").names if name.startswith(incomplete)]


def objectives(incomplete: str) -> list[str]:
    """Return the objectives of an assessment, of several with commas between the last one."""
    from robustgate.engine.candidates import OBJECTIVES

    return _last_of(incomplete, OBJECTIVES)


def schemas(incomplete: str) -> list[str]:
    """Return what there is a schema of."""
    return [name for name in SCHEMAS if name.startswith(incomplete)]


def _configuration(context: typer.Context) -> Configuration | None:
    try:
        source = context.params.get("config") or find(Path.cwd())
        return load(Path(source)) if source is not None else None
    except RobustgateError:
        return None


def _last_of(incomplete: str, known: Iterable[str]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in known if name.startswith(last) and name not in taken]
