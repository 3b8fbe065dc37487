"""What a collected test is about: its case, and whether the gate gave it one."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from robustgate.core.records import Case, Variant
from robustgate.engine.results import VariantTest
from robustgate.pytest_plugin import FIXTURES

NOT_PLANNED = "not_planned"


def id_of(item: pytest.Item) -> str | None:
    """Return what stands in the brackets of a parametrized test's name."""
    callspec = getattr(item, "callspec", None)
    return callspec.id if callspec else None


def variant_of(item: pytest.Item) -> str:
    """Return the name of the variant that a test measures, or an empty text."""
    case = case_of(item)
    if case is not None:
        return case.variant.name
    callspec = getattr(item, "callspec", None)
    variant = callspec.params.get("variant") if callspec else None
    return variant.name if isinstance(variant, Variant) else ""


def case_of(item: pytest.Item) -> Case | None:
    """Return the planned case of a test, if it has one."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec else None
    return case if isinstance(case, Case) else None


def variant_test(markers: Collection[str]) -> VariantTest | None:
    """Return which rules on variants a test with these markers judges; one that times may be called a cost too."""
    return next((test for test in ("latency", "overall", "cost") if test in markers), None)


def judged_by(item: pytest.Item) -> tuple[VariantTest, str] | None:
    """Return the rules that a test judges, and the name of the variant; None where it judges a case, or nothing."""
    test = variant_test({marker.name for marker in item.iter_markers()})
    return (test, variant_of(item)) if test is not None and case_of(item) is None and variant_of(item) else None


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
