"""The README tells the truth: its configuration plans, its component lists are complete, its links resolve."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from robustgate.config import load
from robustgate.core.catalog import shelf
from robustgate.engine.plan import make_plan

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_configuration_plans_as_it_stands(tmp_path: Path) -> None:
    configuration, waiver = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet18-amazon.safetensors").touch()
    path = tmp_path / "robustgate.toml"
    path.write_text(configuration + waiver)
    plan = make_plan(load(path))
    assert [case.name for case in plan.cases] == [
        "resnet18-none-amazon",
        "resnet18-none-amazon_to_webcam",
        "resnet18-none-amazon-pgd",
        "resnet18-int8-amazon",
        "resnet18-int8-amazon_to_webcam",
        "resnet18-int8-amazon-pgd",
    ]
    assert len([line for line in configuration.splitlines() if line and not line.startswith("[")]) <= 15


@pytest.mark.parametrize("name", ["attacks", "compression", "corruptions", "domains", "rules"])
def test_it_names_every_component(name: str) -> None:
    missing = {component for component in shelf(name).names if f"`{component}`" not in README} - {"size"}
    assert not missing


def test_its_links_resolve() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
