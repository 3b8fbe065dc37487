"""The README tells the truth: its configuration plans, its component lists are complete, its links resolve."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from robustgate.config import Masking, load
from robustgate.core.benchmark import BENCHMARK_CORRUPTIONS
from robustgate.core.catalog import shelf
from robustgate.engine.plan import make_plan

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)


def test_its_configuration_plans_as_it_stands(tmp_path: Path) -> None:
    configuration, _, rule, _, _, _, _, policies = BLOCKS
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet18-amazon.safetensors").touch()
    path = tmp_path / "robustgate.toml"
    path.write_text(configuration + rule + policies)
    plan = make_plan(load(path), "edge,release")
    edge, release = (judging.policy for judging in plan.policies)
    assert (edge.scope, edge.early_stop, edge.on_undecided) == ("population", "confident", "pass")
    assert (release.scope, release.early_stop) == ("population", False)
    assert [rule.name for rule in release.case_rules] == ["holds", "no worse than the last release"]
    assert [waiver.reason for waiver in release.waivers] == ["retraining, ticket 4711"]
    assert [case.name for case in plan.cases] == [
        "resnet18-none-amazon",
        "resnet18-none-amazon_to_webcam",
        "resnet18-none-amazon-pgd",
        "resnet18-none-amazon-linf",
        "resnet18-int8-amazon",
        "resnet18-int8-amazon_to_webcam",
        "resnet18-int8-amazon-pgd",
        "resnet18-int8-amazon-linf",
    ]
    assert len([line for line in configuration.splitlines() if line and not line.startswith("[")]) <= 15


def test_its_attacks_plan_as_they_stand(tmp_path: Path) -> None:
    configuration, _, _, _, _, _, attacks, _ = BLOCKS
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet18-amazon.safetensors").touch()
    own = [line for line in configuration.splitlines(keepends=True) if not line.startswith("attacks.")]
    path = tmp_path / "robustgate.toml"
    path.write_text("".join(own) + attacks)
    plan = make_plan(load(path))
    names = {case.shift.name for case in plan.cases if case.shift.kind == "adversarial"}
    assert names == {"pgd", "auto", "near", "worst", "theirs"}
    assert {case.shift.name for case in plan.cases if case.shift.kind == "masking"} == {"linf", "l2"}
    assert plan.configuration.masking == Masking()


def test_its_domains_and_rules_over_shifts_plan_as_they_stand(tmp_path: Path) -> None:
    _, _, _, _, domains, rules, _, _ = BLOCKS
    (tmp_path / "resnet20.safetensors").touch()
    for name in BENCHMARK_CORRUPTIONS:
        file = tmp_path / "data" / "CIFAR-10-C" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.zeros((50, 32, 32, 3), np.uint8))
    np.save(tmp_path / "data" / "CIFAR-10-C" / "labels.npy", np.zeros(50, np.int64))
    model = """
    [models.resnet20]
    build = "robustgate.zoo:cifar_resnet"
    normalize = "inside"
    weights = { cifar10 = "resnet20.safetensors" }
    [compressions]
    int8.steps = [{ method = "static_quantization" }]
    """
    path = tmp_path / "robustgate.toml"
    path.write_text(domains + rules + model)
    plan = make_plan(load(path))
    kinds = Counter((case.variant.compression, case.shift.kind) for case in plan.cases)
    assert kinds["int8", "corruption"] == 75
    assert kinds["int8", "domain_shift"] == kinds["int8", "stability"] == kinds["none", "stability"] == 1
    assert {name: [rule.name for rule in found] for name, found in plan.policies[0].run_rules.items()} == {
        "resnet20-int8-cifar10": ["no worse than the float network, over the benchmark"]
    }


def test_its_compressions_plan_as_they_stand(tmp_path: Path) -> None:
    configuration, compressions, *_ = BLOCKS
    for file in ("weights/resnet18-amazon.safetensors", "resnet50.safetensors", "build/resnet18-int8.tflite"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    teacher = """
    [models.resnet50]
    build = "torchvision.models:resnet50"
    normalize = "inside"
    weights = { amazon = "resnet50.safetensors" }
    """
    own = [line for line in configuration.splitlines(keepends=True) if not line.startswith("compressions.")]
    path = tmp_path / "robustgate.toml"
    path.write_text("".join(own) + compressions + teacher)
    plan = make_plan(load(path))
    chains = {name: [step.method for step in steps] for name, steps in plan.configuration.compressions.items()}
    assert chains["fp_4M"] == ["filter_pruning"] * 3
    assert chains["sparse_clustered_int8"] == ["magnitude_pruning", "weight_clustering", "static_quantization"]
    assert chains["taught"] == ["filter_pruning", "distillation"]
    # The vendor's file is for one of the two models.
    assert [one.model for one in plan.variants if one.compression == "vendor"] == ["resnet18"]


def test_its_recipes_plan_as_they_stand(tmp_path: Path) -> None:
    configuration, _, _, recipes, *_ = BLOCKS
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet18-amazon.safetensors").touch()
    path = tmp_path / "robustgate.toml"
    path.write_text(configuration + recipes)
    plan = make_plan(load(path))
    made = {name: [type(step.finetune).__name__ for step in plan.chains[name]] for name in ("half", "taught_int8")}
    assert made == {"half": ["AdaSap"], "taught_int8": ["Distillation", "AdCorDa"]}
    assert plan.chains[plan.controls["half"]][0].finetune.pruning is None


@pytest.mark.parametrize("name", ["attacks", "compression", "corruptions", "domains", "rules", "training"])
def test_it_names_every_component(name: str) -> None:
    missing = {component for component in shelf(name).names if f"`{component}`" not in README}
    assert not missing


def test_its_links_resolve() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
