"""What a collected test is about: its case, and whether the gate gave it one."""

from __future__ import annotations

import pytest

from robustgate.core.records import Case
from robustgate.pytest_plugin import FIXTURES

NOT_PLANNED = "not_planned"


def id_of(item: pytest.Item) -> str | None:
    """Return what stands in the brackets of a parametrized test's name."""
    callspec = getattr(item, "callspec", None)
    return callspec.id if callspec else None


def variant_of(item: pytest.Item) -> str:
    """Return the name of the variant that a test measures, or an empty text."""
    case = case_of(item)
    return case.variant.name if case is not None else ""


def case_of(item: pytest.Item) -> Case | None:
    """Return the planned case of a test, if it has one."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec else None
    return case if isinstance(case, Case) else None


def is_ours(metafunc: pytest.Metafunc, name: str) -> bool:
    """Say whether a test gets `name` from this plugin, and not from a fixture or a parameter of its own."""
    definitions = metafunc._arg2fixturedefs.get(name, ())
    if not definitions or definitions[-1].func.__module__ != FIXTURES:
        return False
    own = {"case", "variant", "shift"}
    for marker in metafunc.definition.iter_markers("parametrize"):
        names = marker.args[0] if marker.args else marker.kwargs.get("argnames", ())
        listed = names.replace(",", " ").split() if isinstance(names, str) else names
        if own & set(listed):
            return False
    return True
