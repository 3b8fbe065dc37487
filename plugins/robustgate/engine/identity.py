"""What decides what an artifact or a measurement is: components with their parameters and their source."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from robustgate.core.catalog import is_part
from robustgate.core.files import sha256


def source_of(made: object) -> str:
    """Return a hash of the source file of a class or function, so that what it makes is made again when it changes."""
    try:
        file = inspect.getsourcefile(made)  # type: ignore[arg-type]
    except TypeError:
        file = None
    return sha256(Path(file)) if file else repr(made)


def component_identity(component: object) -> Any:
    """Return what a component is, for a key: its class, its source, its fields."""
    if not is_dataclass(component):
        return repr(component)
    parameters = {name: _plain(getattr(component, name)) for name in (field.name for field in fields(component))}
    kind = type(component)
    return {"class": f"{kind.__module__}:{kind.__qualname__}", "source": source_of(kind), "fields": parameters}


def parameters_of(component: Any) -> Any:
    """Return the parameters of a component as JSON keeps them, or None where there is none.

    One that is a parameter itself, as a recipe's attack, tells its class beside its own.
    """
    if component is None:
        return None
    parameters = {field.name: getattr(component, field.name) for field in fields(component)}
    return {name: _told(value) for name, value in parameters.items()}


def _told(value: Any) -> Any:
    if is_part(value):
        return {"component": type(value).__name__, **parameters_of(value)}
    return to_jsonable_python(value)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return component_identity(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return sha256(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
