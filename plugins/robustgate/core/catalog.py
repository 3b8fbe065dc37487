"""Shelves: a folder of components, where a file's stem is its component's name.

A component's module names its class in a one-name ``__all__``. Third parties add components by an entry point in
the shelf's group (``robustgate.attacks``, ...), whose name is the component's name and whose value is its class.
Listing a shelf imports nothing; a component is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from robustgate.core.errors import ConfigurationError, listing, nearest

SHELVES = ("attacks", "compression", "corruptions", "domains", "rules", "training")


@dataclass(frozen=True)
class Shelf:
    """One shelf: what stands on it, by name."""

    name: str
    modules: frozenset[str]
    plugins: dict[str, EntryPoint]

    @property
    def names(self) -> tuple[str, ...]:
        """Every component's name, sorted."""
        return tuple(sorted(self.modules | self.plugins.keys()))

    def component(self, name: str) -> type:
        """Return the component class called `name`.

        Raises ConfigurationError for an unknown name, with the nearest known one.
        """
        if name in self.modules:
            module = importlib.import_module(f"robustgate.{self.name}.{name}")
            exported = module.__all__
            if len(exported) != 1:
                raise ConfigurationError(
                    [f"{module.__name__}: __all__ must name the one component class, it names {list(exported)}"]
                )
            found = getattr(module, exported[0])
        elif name in self.plugins:
            found = self.plugins[name].load()
        else:
            raise ConfigurationError(
                [f"unknown name {name!r} in {self.name}{nearest(name, self.names)}; known: {listing(self.names)}"]
            )
        if not isinstance(found, type):
            raise ConfigurationError([f"{self.name}/{name} must be a class, it is {type(found).__name__}"])
        return found


@cache
def shelf(name: str) -> Shelf:
    """Return the shelf called `name`, one of SHELVES. Duplicate component names are refused."""
    spec = importlib.util.find_spec(f"robustgate.{name}")
    if name not in SHELVES or spec is None or spec.submodule_search_locations is None:
        raise ConfigurationError([f"no shelf {name!r}; shelves: {listing(SHELVES)}"])
    modules = frozenset(
        module.name
        for module in pkgutil.iter_modules(list(spec.submodule_search_locations))
        if not module.name.startswith("_")
    )
    plugins: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"robustgate.{name}"):
        if point.name in modules or point.name in plugins:
            raise ConfigurationError(
                [f"two components called {point.name!r} in {name}: {point.value} comes second; rename its entry point"]
            )
        plugins[point.name] = point
    return Shelf(name=name, modules=modules, plugins=plugins)


def import_factory(path: str) -> Callable[..., object]:
    """Import the callable that ``package.module:name`` names, and nothing else.

    Raises ConfigurationError where the path has another form, cannot be imported, or is not callable.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError([f"a factory is written 'package.module:name', got {path!r}"])
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module raises as it is imported
        raise ConfigurationError([f"factory {path!r}: cannot import {module_name!r}: {error}"]) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigurationError([f"factory {path!r}: no {part!r} in it{nearest(part, dir(found))}"])
        found = getattr(found, part)
    if not callable(found):
        raise ConfigurationError([f"factory {path!r} is not callable, it is {type(found).__name__}"])
    return found


def is_part(value: object) -> bool:
    """Say whether a component's parameter is a component itself: an attack, a recipe or a compression."""
    return is_dataclass(value) and any(hasattr(value, method) for method in ("run", "train", "apply"))
