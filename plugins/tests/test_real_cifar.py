"""The whole gate on real input: CIFAR-10 test images and the published ResNet-20."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from robustgate.zoo import cifar_resnet

CONFIGURATION = """
[gate]
gradient_free_queries = 20
[domains.cifar10]
kind = "npz"
files = {{ train = "{data}/cifar/cifar10_train_10000.npz", test = "{data}/cifar/cifar10_test_2000.npz" }}
calibration = 0.1
[domains.jpeg75]
kind = "npz"
files = {{ test = "{data}/cifar/cifar10_test_2000_jpeg75.npz" }}
[models.resnet20]
build = "robustgate.zoo:cifar_resnet"
args = {{ depth = 20, num_classes = 10 }}
normalize = {{ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }}
weights = {{ cifar10 = "{data}/weights/cifar10_resnet20.safetensors" }}
[compressions.int8]
steps = [{{ method = "static_quantization" }}]
[compressions.fp50]
steps = [{{ method = "filter_pruning", ratio = 0.5, finetune = {{ epochs = 1, lr = 0.02, batch_size = 32, flip = true }} }}]
[shifts]
pairs = "all"
[attacks.fgsm]
method = "fgsm"
eps = 0.00392156862745098
[masking]
enabled = false
[policies.edge]
[[policies.edge.rules]]
name = "int8 holds"
where = {{ compression = "int8", kind = "clean" }}
max_drop = 0.01
[[policies.edge.rules]]
name = "pruned holds"
where = {{ compression = "fp50", kind = "clean" }}
max_drop = 0.02
"""


@pytest.fixture(scope="module")
def gated(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, dict[str, Any]]:
    """Run the suite as a user does; return exit status, output and results."""
    folder = tmp_path_factory.mktemp("cifar")
    (folder / "robustgate.toml").write_text(CONFIGURATION.format(data=real_data))
    command = [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", "-n", "2", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    results = json.loads((folder / "robustgate-report" / "results.json").read_text())
    return done.returncode, done.stdout, {case["name"]: case for case in results["cases"]} | {"all": results}


def test_clean_accuracy_equals_an_independent_forward_pass(gated, real_data: Path) -> None:
    network = cifar_resnet(depth=20, num_classes=10).eval()
    network.load_state_dict(load_file(real_data / "weights" / "cifar10_resnet20.safetensors"))
    for name, file in (("resnet20-none-cifar10", ""), ("resnet20-none-cifar10_to_jpeg75", "_jpeg75")):
        with np.load(real_data / "cifar" / f"cifar10_test_2000{file}.npz") as arrays:
            images = arrays["images"].astype(np.float32) / 255
            labels = arrays["labels"]
        scaled = (images - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        with torch.inference_mode():
            parts = torch.from_numpy(scaled).permute(0, 3, 1, 2).split(500)
            right = (torch.cat([network(part) for part in parts]).argmax(1).numpy() == labels).sum()
        assert (gated[2][name]["correct"], gated[2][name]["n"]) == (int(right), 2000)
    assert gated[2]["resnet20-none-cifar10"]["correct"] == 1836


def test_int8_is_within_a_point_and_three_times_smaller(gated) -> None:
    cases = gated[2]
    assert abs(cases["resnet20-int8-cifar10"]["value"] - cases["resnet20-none-cifar10"]["value"]) <= 0.01
    variants = {variant["compression"]: variant for variant in cases["all"]["variants"]}
    assert variants["int8"]["format"] == "onnx"
    assert variants["int8"]["size_bytes"] < variants["none"]["size_bytes"] / 3


def test_int8_is_attacked_through_its_twin(gated) -> None:
    quantized, reference = gated[2]["resnet20-int8-cifar10-fgsm"], gated[2]["resnet20-none-cifar10-fgsm"]
    assert quantized["details"]["twin_agreement"] >= 0.99
    # Without gradients it would look robust at 91 %; white-box it falls as its float reference does.
    assert abs(quantized["value"] - reference["value"]) <= 0.03
    assert reference["value"] < 0.5


def test_a_pruned_and_fine_tuned_network_goes_through_the_whole_gate(gated) -> None:
    code, output, cases = gated
    assert cases["all"]["run"]["complete"] is True
    assert cases["all"]["run"]["planned"] == 4 * 3
    variants = {variant["compression"]: variant for variant in cases["all"]["variants"]}
    assert variants["none"]["parameters"] == variants["control"]["parameters"] == 269_722
    assert variants["fp50"]["parameters"] == 68_050
    pruned = cases["resnet20-fp50-cifar10"]
    assert 0.5 < pruned["value"] < cases["resnet20-control-cifar10"]["value"]
    assert pruned["verdict"] == "fail"
    assert code == 1
    assert "1 failed, 11 passed" in output
    assert 'rule "pruned holds" of policy edge: max_drop 2.0 points; the drop is' in output
