"""Tables into dataclasses, collecting every mistake with its place."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from robustgate.core.catalog import shelf
from robustgate.core.components import Attack, Pruning, Recipe
from robustgate.core.errors import ConfigurationError, listing, nearest

T = TypeVar("T")

# Fields of components that are components: from which shelf, which key names them, and what stands for no name.
NESTED: dict[object, tuple[str, str, str | None]] = {
    Recipe: ("training", "recipe", "supervised"),
    Attack: ("attacks", "method", None),
    Pruning: ("compression", "method", "filter_pruning"),
}


class Reader:
    """Reads tables; `problems` holds every mistake found so far, one line each. Paths are relative to `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []

    def complain(self, place: str, problem: str) -> None:
        """Note a mistake at `place`, the dotted name of a table or key."""
        self.problems.append(f"{place}: {problem}" if place else problem)

    def table(self, value: object, place: str) -> dict[str, Any] | None:
        """Return `value` if it is a table, else complain."""
        if isinstance(value, Mapping):
            return dict(value)
        self.complain(place, f"expected a table, got {_show(value)}")
        return None

    def unknown(self, place: str, key: str, known: list[str]) -> None:
        """Complain of a key that is not among the known ones."""
        self.complain(place, f"unknown key {key!r}{nearest(key, known)}; known: {listing(known)}")

    def known(self, name: str, names: Mapping[str, object], place: str, noun: str) -> None:
        """Complain unless `name` is one of `names`."""
        if name not in names:
            self.complain(place, f"no {noun} {name!r}{nearest(name, names)}; known: {listing(names)}")

    def read(self, cls: type[T], value: object, place: str, **given: object) -> T | None:
        """Build the dataclass `cls` from a table, or complain and return None. Fields in `given` are not keys."""
        table = self.table(value, place)
        if table is None:
            return None
        before = len(self.problems)
        try:
            hints = get_type_hints(cls)
        except NameError as error:
            why = "the types of its fields are read at run time: import them, but not under TYPE_CHECKING"
            self.complain(place, f"{cls.__module__}.{cls.__qualname__}: {error}; {why}")
            return None
        known = {field.name: field for field in fields(cls) if field.name not in given}  # type: ignore[arg-type]
        for key in table.keys() - known.keys():
            self.unknown(place, key, list(known))
        values = {}
        for name, field in known.items():
            if name in table:
                values[name] = self.value(hints[name], table[name], f"{place}.{name}")
            elif field.default is MISSING and field.default_factory is MISSING:
                self.complain(place, f"missing key {name!r}, expected {_expected(hints[name])}")
        if len(self.problems) > before:
            return None
        try:
            return cls(**values, **given)
        except ValueError as error:
            self.complain(place, str(error))
            return None

    def value(self, hint: Any, value: object, place: str) -> Any:
        """Return `value` as the type `hint`, or complain."""
        options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        if isinstance(value, Mapping):
            for option in options:
                if option in NESTED:
                    return self._nested(option, value, place)
                if is_dataclass(option):
                    return self.read(option, value, place)  # type: ignore[arg-type]
        if isinstance(value, list) and (members := _members(options)) is not None:
            return tuple(self.value(members, one, f"{place}[{index}]") for index, one in enumerate(value))
        if NESTED.keys() & set(options):
            self.complain(place, f"expected a table, got {_show(value)}")
            return None
        try:
            checked = TypeAdapter(hint).validate_python(value)
        except ValidationError as error:
            got = error.errors(include_url=False)[0]
            where = place + "".join(f".{part}" for part in got["loc"] if isinstance(part, str) and part.isidentifier())
            allowed = [
                str(choice) for option in options if get_origin(option) is Literal for choice in get_args(option)
            ]
            hint_of = nearest(value, allowed) if isinstance(value, str) else ""
            inner = got["input"] if len(options) == 1 else value
            self.complain(
                where if len(options) == 1 else place, f"expected {_expected(hint)}, got {_show(inner)}{hint_of}"
            )
            return None
        return self._absolute(checked)

    def component(self, shelf_name: str, value: object, place: str, *, key: str, default: str | None = None) -> Any:
        """Build the component of a shelf that the table's `key` names from the table's other keys."""
        table = self.table(value, place)
        if table is None:
            return None
        name = table.pop(key, default)
        if not isinstance(name, str):
            problem = "missing" if name is None else f"expected a name, got {_show(name)}"
            self.complain(
                f"{place}.{key}", f"{problem}; components of {shelf_name}/: {listing(shelf(shelf_name).names)}"
            )
            return None
        try:
            cls = shelf(shelf_name).component(name)
        except ConfigurationError as error:
            for problem in error.problems:
                self.complain(f"{place}.{key}", problem)
            return None
        return self.read(cls, table, place)

    def _nested(self, hint: object, value: object, place: str) -> Any:
        """Return a component that is a field of another."""
        shelf_name, key, default = NESTED[hint]
        component = self.component(shelf_name, value, place, key=key, default=default)
        if hint is Pruning and component is not None and not is_pruning(component):
            kinds = [name for name in shelf(shelf_name).names if is_pruning(shelf(shelf_name).component(name))]
            self.complain(f"{place}.{key}", f"no step that training can repeat; those that it can: {listing(kinds)}")
            return None
        return component

    def check_extra(self, component: object, name: object, place: str) -> None:
        """Complain of a component whose package is not installed."""
        extra = getattr(component, "missing_extra", None)
        if extra is not None:
            self.complain(place, f'{name} needs a package that is not installed: pip install "robustgate[{extra}]"')

    def _absolute(self, value: Any) -> Any:
        if isinstance(value, Path):
            return (self.folder / value.expanduser()).absolute()
        if isinstance(value, dict):
            return {key: self._absolute(item) for key, item in value.items()}
        return value


def is_pruning(component: object) -> bool:
    """Say whether a compression, or its class, goes in rounds that can be made again."""
    return hasattr(component, "next_round") and hasattr(component, "redo")


def _members(options: tuple[Any, ...]) -> Any:
    """Return what a list's members may be where some may be tables: their keys are read here, not by pydantic."""
    for option in options:
        member, *rest = get_args(option) or (None,)
        if get_origin(option) is tuple and rest == [Ellipsis] and any(map(is_dataclass, get_args(member))):
            return member
    return None


def _show(value: object) -> str:
    names = {str: "the text", bool: "the truth value", int: "the number", float: "the number", list: "the list"}
    name = names.get(type(value))
    return f"{name} {value!r}" if name else "a table" if isinstance(value, Mapping) else repr(value)


def _expected(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(option) for option in args if option is not type(None))
    if origin is Literal:
        choices = [str(choice).lower() if isinstance(choice, bool) else repr(choice) for choice in args]
        return "one of " + ", ".join(choices) if len(choices) > 1 else choices[0]
    if origin is tuple:
        return (
            f"a list of {_expected(args[0])}s" if len(args) == 2 and args[1] is Ellipsis else f"a list of {len(args)}"
        )
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    names |= {Path: "a path", date: "a date"}
    if origin in (dict, Mapping) or is_dataclass(hint) or hint in NESTED:
        return "a table"
    return names.get(hint, getattr(hint, "__name__", str(hint)))
