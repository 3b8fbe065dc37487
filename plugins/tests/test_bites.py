"""The embedded gate bites: damaged weights and raised thresholds fail exactly the cases that they concern."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from robustgate.config import load
from robustgate.domains.digits import Digits
from robustgate.engine.plan import make_plan
from robustgate.zoo import cifar_resnet

FIXTURES = Path(__file__).parents[2] / "fixtures"
DOMAINS = ("handwritten", "printed", "scene")
SELECTION = ["-m", "clean or domain_shift", "-k", "none"]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A copy of the embedded gate, with a cache of its own."""
    shutil.copytree(FIXTURES, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "robustgate.toml"
    path.write_text(path.read_text().replace('cache = "../.robustgate"', 'cache = "cache"'))
    return tmp_path


def run(folder: Path) -> tuple[int, str, dict[str, str]]:
    """Run the references, clean and on other domains; return exit status, output and each case's verdict."""
    command = [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", "-p", "no:cacheprovider", *SELECTION]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    cases = json.loads((folder / "robustgate-report" / "results.json").read_text())["cases"]
    return done.returncode, done.stdout, {case["name"]: case["verdict"] for case in cases if case["selected"]}


def expected_verdicts(folder: Path) -> dict[str, str]:
    """Judge every case anew: plain forward passes, and the share that is right against the policy's highest floor."""
    plan = make_plan(load(folder / "robustgate.toml"))
    verdicts = {}
    for source in DOMAINS:
        network = cifar_resnet(depth=8, width=16, num_classes=10).eval()
        network.load_state_dict(load_file(folder / "models" / f"resnet8-{source}.safetensors"))
        for target in DOMAINS:
            samples = Digits(style=target).load("test" if source == target else "whole")
            images = (torch.tensor(samples.images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
            with torch.inference_mode():
                right = int((network(images).argmax(1) == torch.tensor(samples.labels)).sum())
            name = f"resnet8-none-{source}" + ("" if source == target else f"_to_{target}")
            floor = max(rule.min for rule in plan.policies[0].case_rules[name])
            verdicts[name] = "pass" if right / len(samples) >= floor else "fail"
    return verdicts


def test_the_kept_weights_pass(gate: Path) -> None:
    code, output, verdicts = run(gate)
    assert code == 0, output
    assert verdicts == expected_verdicts(gate)
    assert set(verdicts.values()) == {"pass"}


def test_ten_percent_of_one_layers_filters_zeroed_turn_it_red(gate: Path) -> None:
    file = gate / "models" / "resnet8-scene.safetensors"
    state = load_file(file)
    filters = state["layer3.0.conv1.weight"]
    assert len(filters) == 64
    filters[:6] = 0
    save_file(state, file)
    code, output, verdicts = run(gate)
    assert code == 1
    assert verdicts == expected_verdicts(gate)
    assert {name for name, verdict in verdicts.items() if verdict != "pass"} == {
        "resnet8-none-scene",
        "resnet8-none-scene_to_handwritten",
        "resnet8-none-scene_to_printed",
    }
    assert "3 failed, 6 passed" in output


def test_a_threshold_above_the_measured_value_turns_it_red(gate: Path) -> None:
    path = gate / "robustgate.toml"
    path.write_text(path.read_text().replace("min = 0.94", "min = 0.999"))
    code, output, verdicts = run(gate)
    assert code == 1
    assert {name for name, verdict in verdicts.items() if verdict != "pass"} == {
        "resnet8-none-handwritten",
        "resnet8-none-printed",
        "resnet8-none-scene",
    }
    lines = output.splitlines()
    at = lines.index("resnet8 / none / scene on clean images")
    assert lines[at + 1 : at + 4] == [
        "  accuracy 98.5 % on 467 images",
        '  rule "the references know their own domain" of policy bench: min 99.9 %; the accuracy is 98.5',
        '  pytest --pyargs robustness_tests --robustgate-config robustgate.toml -k "test_clean[resnet8-none-scene]"',
    ]
