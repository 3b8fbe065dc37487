"""The shelves: a file is a component, an entry point too; a name means one thing."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import get_type_hints

import pytest

from robustgate.attacks import fgsm, pgd
from robustgate.core import catalog
from robustgate.core.catalog import SHELVES, Shelf, import_factory, shelf
from robustgate.core.errors import ConfigurationError

COMPONENTS = [(name, component) for name in SHELVES for component in sorted(shelf(name).modules)]
CONTRACTS = {
    "attacks": {"run", "norm", "eps", "needs_gradient", "minimizes"},
    "compression": {"apply", "product", "makes", "keeps"},
    "corruptions": {"apply"},
    "domains": {"load"},
    "rules": {"measures"},
    "training": {"train"},
}
# What a rule offers besides, by what it measures; of those not named here it is one figure of a variant.
FIGURE = {"value", "interval", "show", "limit", "metric", "limit_kind"}
RULES = {
    "outcomes": {"needs", "bounds", "figures", "compares", "standards", "undefined", "counts", "remark"},
    "stability": {"max", "transformations", "samples", "examples"},
}


@pytest.mark.parametrize(("name", "component"), COMPONENTS, ids=lambda value: value)
def test_every_file_on_a_shelf_is_one_component(name: str, component: str) -> None:
    module = importlib.import_module(f"robustgate.{name}.{component}")
    assert len(module.__all__) == 1
    cls = shelf(name).component(component)
    assert cls is getattr(module, module.__all__[0])
    assert cls.__module__ == module.__name__, "it is defined here, not passed on"
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    fields = dataclasses.fields(cls)
    assert all(field.kw_only for field in fields)
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}("), "the docstring is written, not dataclass's own"
    assert get_type_hints(cls), "a reader of the configuration resolves every annotation"
    members = {*dir(cls), *(field.name for field in fields)}
    contract = CONTRACTS[name] | (RULES.get(cls.measures, FIGURE) if name == "rules" else set())
    assert contract <= members or (name, members & {"attacks", "run"}) == ("attacks", {"attacks"})  # a union


def test_every_shelf_has_something_on_it() -> None:
    assert {name for name, _ in COMPONENTS} == set(SHELVES) == set(CONTRACTS)


def test_a_file_that_begins_with_an_underscore_is_no_component() -> None:
    folder = Path(catalog.__file__).parents[1] / "domains"
    assert [file for file in folder.glob("_*.py") if file.stem != "__init__"], "the test needs one"
    assert not [name for name in shelf("domains").names if name.startswith("_")]


@pytest.fixture
def with_entry_points(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Shelf]:
    """The shelf of attacks as it is where other packages give these entry points: (name, value)."""

    def build(*points: tuple[str, str]) -> Shelf:
        def given(group: str) -> list[EntryPoint]:
            assert group == "robustgate.attacks"
            return [EntryPoint(name=name, value=value, group=group) for name, value in points]

        monkeypatch.setattr(catalog, "entry_points", given)
        return shelf.__wrapped__("attacks")

    return build


def test_an_entry_point_is_a_component_under_its_own_name(with_entry_points) -> None:
    attacks = with_entry_points(("mine", "robustgate.attacks.fgsm:Fgsm"))
    assert attacks.component("mine") is fgsm.Fgsm
    assert attacks.component("pgd") is pgd.Pgd
    assert attacks.names == tuple(sorted(["mine", *shelf("attacks").modules]))


def test_listing_a_shelf_imports_nothing(with_entry_points) -> None:
    assert "mine" in with_entry_points(("mine", "no_such_package_at_all:Attack")).names


@pytest.mark.parametrize(
    ("points", "second"),
    [
        ([("pgd", "theirs:Pgd")], "theirs:Pgd"),
        ([("mine", "one:A"), ("mine", "two:B")], "two:B"),
    ],
    ids=["a file and an entry point", "two entry points"],
)
def test_two_components_of_one_name_are_refused(with_entry_points, points, second: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        with_entry_points(*points)
    name = points[-1][0]
    assert str(caught.value) == (
        f"two components called {name!r} in attacks: {second} comes second; rename its entry point"
    )


def test_an_unknown_name_is_told_with_the_nearest_and_all_known(with_entry_points) -> None:
    attacks = with_entry_points(("mine", "a:B"))
    for wrong, expected in (
        ("pdg", "unknown name 'pdg' in attacks (did you mean 'pgd'?); known: "),
        ("min", "unknown name 'min' in attacks (did you mean 'mine'?); known: "),
        ("xxxxxx", "unknown name 'xxxxxx' in attacks; known: "),
    ):
        with pytest.raises(ConfigurationError) as caught:
            attacks.component(wrong)
        assert str(caught.value) == expected + ", ".join(attacks.names)


def test_a_component_must_be_a_class(with_entry_points) -> None:
    with pytest.raises(ConfigurationError, match=r"^attacks/mine must be a class, it is function$"):
        with_entry_points(("mine", "os.path:join")).component("mine")


def test_a_file_must_name_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fgsm, "__all__", ["Fgsm", "Budget"])
    with pytest.raises(ConfigurationError, match=r"robustgate\.attacks\.fgsm: __all__ must name the one component"):
        shelf("attacks").component("fgsm")


@pytest.mark.parametrize("name", ["atacks", "core", "engine"])
def test_what_is_no_shelf_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^no shelf {name!r}; shelves: attacks, compression, "):
        shelf(name)


# Factories.


def test_a_factory_is_what_its_path_names() -> None:
    assert import_factory("collections:Counter").__name__ == "Counter"
    assert import_factory("collections:OrderedDict.fromkeys")("ab") == {"a": None, "b": None}


def test_a_factory_imports_what_it_names_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_factory.py").write_text("def net(): return 7\n")
    (tmp_path / "other_factory.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert import_factory("named_factory:net")() == 7
    assert "other_factory" not in sys.modules


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("json", "a factory is written 'package.module:name', got 'json'"),
        ("json:", "a factory is written 'package.module:name', got 'json:'"),
        (":loads", "a factory is written 'package.module:name', got ':loads'"),
        ("no_such_module:net", "factory 'no_such_module:net': cannot import 'no_such_module': No module named"),
        (".zoo:net", "factory '.zoo:net': cannot import '.zoo': "),
        ("json:laods", "factory 'json:laods': no 'laods' in it (did you mean 'loads'?)"),
        ("json:decoder.JSONDecodr", "no 'JSONDecodr' in it (did you mean 'JSONDecoder'?)"),
        ("json:__doc__", "factory 'json:__doc__' is not callable, it is str"),
    ],
)
def test_a_factory_that_is_none_is_told(path: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        import_factory(path)
    assert expected in str(caught.value)


def test_a_factory_whose_module_breaks_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_factory.py").write_text("import no_such_dependency\n")
    (tmp_path / "crooked_factory.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigurationError, match="'broken_factory': No module named 'no_such_dependency'"):
        import_factory("broken_factory:net")
    with pytest.raises(ConfigurationError, match="cannot import 'crooked_factory': division by zero"):
        import_factory("crooked_factory:net")
