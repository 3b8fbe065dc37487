"""The house: imports point down, shelves do not see one another, heavy packages are imported where they are used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import robustgate
from robustgate.core.catalog import SHELVES

ROOT = Path(robustgate.__file__).parent
FLOORS = {
    "core": 0,
    **dict.fromkeys([*SHELVES, "config", "statistics", "twin", "zoo", "reports"], 1),
    "engine": 2,
    **dict.fromkeys(["pytest_plugin", "cli", "testing"], 3),
}
FILES = sorted(ROOT.rglob("*.py"))
HEAVY = {"torch", "torchvision", "onnx", "onnxruntime", "torch_pruning", "matplotlib", "sklearn", "scipy", "PIL"}
# Rooms that a plan passes through must be importable without anything heavy; the shelves import it in their methods.
LIGHT = {"core", "config", "pytest_plugin", "cli", *SHELVES} - {"statistics"}


def imports(file: Path, *, top_level: bool = False) -> list[str]:
    """Return the modules that a file imports; with `top_level`, only those that importing the file imports too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.append(node.module or "")
    return found


def room(name: str) -> str:
    return [*name.split("."), ""][1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_down(file: Path) -> None:
    here = file.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(file):
        if not name.startswith("robustgate.") or here == "__init__":
            continue
        there = room(name)
        if there == here:
            continue
        assert FLOORS[there] <= FLOORS[here], f"{here} imports {name} from a floor above"
        if FLOORS[there] == FLOORS[here] == 1:
            assert (here, there) in {("compression", "twin")}, (
                f"{here} imports {name}: rooms of floor 1 do not see one another"
            )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_plan_passes_through_is_light(file: Path) -> None:
    if file.relative_to(ROOT).parts[0] not in LIGHT:
        return
    heavy = {name.split(".")[0] for name in imports(file, top_level=True)} & HEAVY
    assert not heavy, f"{file}: imports {heavy} at its top; import it where it is used"


def test_core_uses_the_standard_library_only() -> None:
    import sys

    for file in (ROOT / "core").glob("*.py"):
        outside = {name.split(".")[0] for name in imports(file, top_level=True)} - set(sys.stdlib_module_names)
        assert outside <= {"robustgate"}, f"{file}: {outside}"


def test_no_asserts_in_the_package() -> None:
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)], f"{file}: python -O drops asserts"


def test_no_room_is_called_utils() -> None:
    assert not {file.stem for file in FILES} & {"utils", "helpers", "common", "misc", "base"}
