"""Every compression and the sixteen combinations, built through the engine, and whether they keep what they promise.

    python plugins/benchmarks/chains.py [--json FILE] [--networks resnet20 resnet50 vgg19_bn mobilenet_v2]

The published ResNet-20 is built with one epoch of fine-tuning on 4,000 CIFAR-10 images in each step, and measured on
2,000; the torchvision networks have random weights (no others exist here) and see 64 images. ROBUSTGATE_DATA names the
folder of real data. Prints a table for each network; exits 1 where a promise or a limit on time is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.torch import load_file, save_file

from robustgate.config import load
from robustgate.core.catalog import import_factory
from robustgate.core.errors import RobustgateError
from robustgate.core.records import Case, Variant
from robustgate.engine.gate import Gate
from robustgate.engine.plan import Plan, make_plan

DATA = Path(os.environ.get("ROBUSTGATE_DATA", ""))
FINETUNE = "{ epochs = 1, lr = 0.002 }"
FIRST_LIMIT_S, SECOND_LIMIT_S = 15 * 60, 5
NETWORKS = {
    "resnet20": ("robustgate.zoo:cifar_resnet", "{ depth = 20, num_classes = 10 }"),
    "resnet50": ("torchvision.models:resnet50", "{ num_classes = 31 }"),
    "vgg19_bn": ("torchvision.models:vgg19_bn", "{ num_classes = 10 }"),
    "mobilenet_v2": ("torchvision.models:mobilenet_v2", "{ num_classes = 10 }"),
}
CONFIGURATION = """
gate.threads = 2
[domains.cifar10]
kind = "npz"
files = {{ train = "train.npz", calibration = "calibration.npz", test = "test.npz" }}
[models.{name}]
build = "{build}"
args = {args}
normalize = {{ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }}
weights = {{ cifar10 = "{weights}" }}
[policies.any]
[[policies.any.rules]]
name = "anything"
min = 0.0
[compressions]
preset = {{ name = "clustered-pruned-quantized", finetune = {finetune} }}
"""
# Beyond the preset: each method at least once. The promises are read off these names below.
METHODS = """
fp_l1.steps = [{{ method = "filter_pruning", ratio = 0.5, finetune = {finetune} }}]
fp_l2_global.steps = [{{ method = "filter_pruning", ratio = 0.3, criterion = "l2", scope = "global" }}]
fp_taylor.steps = [{{ method = "filter_pruning", ratio = 0.3, criterion = "taylor", taylor_images = 64 }}]
fp_random.steps = [{{ method = "filter_pruning", ratio = 0.3, criterion = "random" }}]
fp_half_parameters.steps = [{{ method = "filter_pruning", parameters = {half}, rounds = 2, finetune = {finetune} }}]
fp_half_macs.steps = [{{ method = "filter_pruning", macs = {half_macs} }}]
sparse90_global.steps = [{{ method = "magnitude_pruning", sparsity = 0.9, scope = "global", finetune = {finetune} }}]
low_rank.steps = [{{ method = "low_rank", ratio = 0.3 }}]
distilled.steps = [{{ method = "distillation", build = "{build}", args = {args}, training = {finetune} }}]
dynamic.steps = [{{ method = "dynamic_quantization" }}]
per_tensor.steps = [{{ method = "static_quantization", per_channel = false, calibration = "percentile" }}]
entropy.steps = [{{ method = "static_quantization", calibration = "entropy", calibration_images = 20 }}]
"""
TARGETS = """
fp_21M.steps = [{ method = "filter_pruning", parameters = "21.30M" }]
fp_11M.steps = [{ method = "filter_pruning", parameters = "11.19M" }]
fp_4M.steps = [{ method = "filter_pruning", parameters = "4.51M" }]
"""
SEARCH = """
[[compressions.searched.steps]]
method = "width_search"
build = "robustgate.zoo:cifar_resnet"
args = { depth = 20, num_classes = 10 }
search = { widths = [[8, 12], [16, 24], [32, 48]] }
parameters = "100k"
trials = 3
proxy = { epochs = 1 }
training = { epochs = 1 }
"""


@dataclass(frozen=True)
class Row:
    """One variant: its figures, and the promises that it broke."""

    variant: str
    format: str
    parameters: int | None
    macs: int | None
    size_bytes: int
    compression_ratio: float | None
    zeros: float
    most_values: int
    accuracy: float | None
    seconds: float
    broken: list[str]


def write_project(folder: Path, name: str, *, small: bool) -> None:
    """Write data, weights and configuration of one network."""
    for split, file, count in (("train", "train_10000", 400), ("test", "test_2000", 200)):
        with np.load(DATA / "cifar" / f"cifar10_{file}.npz", allow_pickle=False) as arrays:
            images, labels, classes = (arrays[key] for key in ("images", "labels", "classes"))
        rows = [np.flatnonzero(labels == label) for label in range(10)]
        take = 8 if small else count
        save_split(folder / f"{split}.npz", images, labels, classes, np.concatenate([one[:take] for one in rows]))
        if split == "train":
            held = np.concatenate([one[-(4 if small else 20) :] for one in rows])
            save_split(folder / "calibration.npz", images, labels, classes, held)
    build, args = NETWORKS[name]
    torch.manual_seed(0)
    settings = {"num_classes": 31 if name == "resnet50" else 10} | ({"depth": 20} if name == "resnet20" else {})
    module = import_factory(build)(**settings).eval()
    weights = str(DATA / "weights" / "cifar10_resnet20.safetensors")
    if name != "resnet20":
        weights = f"{name}.safetensors"
        save_file(module.state_dict(), folder / weights)
    if name == "resnet50":  # 31 classes, as in the study whose sizes are the targets; the data must have as many
        for split in ("train", "calibration", "test"):
            with np.load(folder / f"{split}.npz") as arrays:
                parts = dict(arrays)
            parts["classes"] = np.array([f"class{number}" for number in range(31)])
            np.savez(folder / f"{split}.npz", **parts)
    from robustgate.core.counts import count_macs, count_parameters

    text = CONFIGURATION + METHODS
    filled = text.format(
        name=name,
        build=build,
        args=args,
        weights=weights,
        finetune=FINETUNE,
        half=count_parameters(module) // 2,
        half_macs=count_macs(module, torch.zeros(1, 3, 32, 32)) // 2,
    )
    extra = {"resnet50": TARGETS, "resnet20": SEARCH}.get(name, "")
    (folder / "robustgate.toml").write_text(filled + extra)


def save_split(file: Path, images: np.ndarray, labels: np.ndarray, classes: np.ndarray, rows: np.ndarray) -> None:
    """Write some rows of a data set."""
    np.savez(file, images=images[rows], labels=labels[rows], classes=classes)


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    """Return the weight tensors of an artifact; those of an int8 file as their codes."""
    if (folder / "weights.safetensors").exists():
        state = load_file(folder / "weights.safetensors")
        return {name: value.numpy() for name, value in state.items() if value.dim() >= 2}
    graph = onnx.load(folder / "model.onnx").graph
    arrays = {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}
    return {name: value for name, value in arrays.items() if value.ndim >= 2 and value.dtype in (np.int8, np.uint8)}


def broken_promises(name: str, found: dict[str, np.ndarray], row: Row, reference: Row) -> list[str]:
    """Return what a compression's name promises and its artifact does not hold."""
    broken: list[str] = []
    if name.startswith("control"):
        return broken
    quantized = name.endswith("int8") or name in ("dynamic", "per_tensor", "entropy")
    if quantized and not any(value.dtype == np.int8 for value in found.values()) and name != "dynamic":
        broken.append("no int8 initializer")
    if quantized and not found:
        broken.append("no 8-bit initializer")
    if (name.startswith("p") and name != "per_tensor") and row.zeros < 0.5:
        broken.append(f"sparsity {row.zeros:.3f} < 0.5")
    if name == "sparse90_global" and row.zeros < 0.9:
        broken.append(f"sparsity {row.zeros:.3f} < 0.9")
    clustered = "clustered" in name or name.startswith(("cqat", "pcqat"))
    if clustered and row.most_values > 16:
        broken.append(f"{row.most_values} values in a layer")
    targets = {
        "fp_21M": 21.30e6,
        "fp_11M": 11.19e6,
        "fp_4M": 4.51e6,
        "fp_half_parameters": (reference.parameters or 0) / 2,
    }
    if name in targets and abs((row.parameters or 0) / targets[name] - 1) > 0.02:
        broken.append(f"{row.parameters:,} parameters, target {targets[name]:,.0f}")
    if name == "fp_half_macs" and abs((row.macs or 0) / ((reference.macs or 1) / 2) - 1) > 0.02:
        broken.append(f"{row.macs:,} MACs of {reference.macs:,}")
    if name == "low_rank" and (row.parameters or 0) >= (reference.parameters or 0):
        broken.append("no fewer parameters")
    return broken


def measure(plan: Plan, gate: Gate, variant: Variant, *, accuracy: bool) -> Row:
    """Build or fetch one variant and read its figures."""
    record = gate.record(variant)
    found = weights_of(gate.foundry.artifact(variant).folder)
    everything = sum(value.size for value in found.values())
    zeros = sum(int((value == 0).sum()) for value in found.values()) / max(everything, 1)
    most = max((len(np.unique(value)) for value in found.values()), default=0)
    case: Case = next(one for one in plan.cases if one.variant == variant and one.shift.kind == "clean")
    value = gate.result(case).value
    return Row(
        variant=variant.compression,
        format=record.format,
        parameters=record.parameters,
        macs=record.macs,
        size_bytes=record.size_bytes,
        compression_ratio=record.compression_ratio,
        zeros=zeros,
        most_values=most,
        accuracy=value if accuracy else None,
        seconds=record.seconds_to_build,
        broken=[],
    )


def compress(folder: Path, patterns: list[str]) -> float:
    """Build variants by the command line, and return the seconds that it took."""
    began = time.perf_counter()
    words = [str(Path(sys.executable).with_name("robustgate")), "compress", *patterns]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr)
    return time.perf_counter() - began


def check_network(name: str, folder: Path) -> tuple[list[Row], dict[str, float]]:
    """Build everything for one network; return its rows, and for ResNet-20 the times of the sixteen."""
    write_project(folder, name, small=name != "resnet20")
    os.chdir(folder)
    plan = make_plan(load(folder / "robustgate.toml"))
    times: dict[str, float] = {}
    sixteen = [one.name for one in plan.variants if one.compression in preset_names(plan)]
    if name == "resnet20":
        times = {"first_s": compress(folder, sixteen), "second_s": compress(folder, sixteen)}
    gate = Gate(plan, today=datetime.now(UTC).date())
    rows: list[Row] = []
    for variant in plan.variants:
        try:
            row = measure(plan, gate, variant, accuracy=name == "resnet20")
        except RobustgateError as error:
            row = Row(variant.compression, "-", None, None, 0, None, 0, 0, None, 0, [str(error)])
        else:
            found = weights_of(gate.foundry.artifact(variant).folder)
            row.broken.extend(broken_promises(variant.compression, found, row, (rows or [row])[0]))
        rows.append(row)
        show(row)
    return rows, times


def preset_names(plan: Plan) -> set[str]:
    """Return the names of the sixteen: the reference and what the preset file lists."""
    from robustgate.config.chains import PRESETS

    text = (PRESETS / "clustered-pruned-quantized.toml").read_text()
    return {"none", *(name for name in plan.chains if f"\n{name}.steps" in text)}


def show(row: Row) -> None:
    """Print one line."""
    accuracy = "" if row.accuracy is None else f"{100 * row.accuracy:6.2f} %"
    ratio = "" if row.compression_ratio is None else f"{row.compression_ratio:5.2f}x"
    print(
        f"{row.variant:<24} {row.format:<6} {row.parameters or 0:>13,} {row.size_bytes / 1e3:>11,.0f} kB {ratio:>7} "
        f"{100 * row.zeros:>6.1f} % {row.most_values:>9,} {accuracy:>9} {row.seconds:>7.1f} s  "
        + ("kept" if not row.broken else "BROKEN: " + "; ".join(row.broken)),
        flush=True,
    )


def main() -> int:
    """Build, print, and say by the exit status whether all promises and limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    arguments = parser.parse_args()
    if not (DATA / "cifar").is_dir():
        parser.error("ROBUSTGATE_DATA must name the folder of real data")
    output = arguments.json.absolute() if arguments.json else None
    kept, report = True, {}
    for name in arguments.networks:
        with tempfile.TemporaryDirectory() as place:
            print(
                f"\n{name}: variant, format, parameters, file, deflated ratio, zeros, most values in a layer, accuracy"
            )
            rows, times = check_network(name, Path(place))
            os.chdir("/")
        if times:
            met = times["first_s"] <= FIRST_LIMIT_S and times["second_s"] <= SECOND_LIMIT_S
            print(
                f"the sixteen: {times['first_s']:.0f} s (limit {FIRST_LIMIT_S}), again {times['second_s']:.1f} s "
                f"(limit {SECOND_LIMIT_S})  {'met' if met else 'MISSED'}"
            )
            kept &= met
        kept &= not any(row.broken for row in rows)
        report[name] = {"rows": [asdict(row) for row in rows], **times}
    if output:
        output.write_text(json.dumps(report, indent=1))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
