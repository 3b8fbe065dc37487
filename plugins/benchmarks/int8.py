"""The int8 file of the published ResNet-20 against its float network: accuracy, size, speed, twin.

    python plugins/benchmarks/int8.py [--json FILE] [--rounds N]

Built through the engine from 200 calibration images, measured on 2,000 CIFAR-10 test images. Speed is images per second
in batches of 100 on two threads, ONNX Runtime on the file and PyTorch on the float network in turn; the median of the
rounds' ratios counts. ROBUSTGATE_DATA names the folder of real data. Exits 1 where a figure is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from robustgate.compression._onnx_export import export, save, silence
from robustgate.config import load
from robustgate.engine.data import as_tensor
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan

DATA = Path(os.environ.get("ROBUSTGATE_DATA", ""))
THREADS = 2
CONFIGURATION = f"""
gate.threads = {THREADS}
compressions.int8.steps = [{{ method = "static_quantization" }}]
policies.any.rules = [{{ name = "anything", min = 0.0 }}]
[domains.cifar10]
kind = "npz"
files = {{ train = "{DATA}/cifar/cifar10_train_10000.npz", test = "{DATA}/cifar/cifar10_test_2000.npz" }}
calibration = 0.1
[models.resnet20]
build = "robustgate.zoo:cifar_resnet"
args = {{ depth = 20, num_classes = 10 }}
normalize = {{ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }}
weights = {{ cifar10 = "{DATA}/weights/cifar10_resnet20.safetensors" }}
"""


def seconds(run: Callable[[], object]) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure(folder: Path, rounds: int) -> list[tuple[str, float, str, float]]:
    """Return what is asked: name, value, and how it compares with which limit."""
    (folder / "robustgate.toml").write_text(CONFIGURATION)
    plan = make_plan(load(folder / "robustgate.toml"))
    gate = Gate(plan, today=datetime.now(UTC).date())
    torch.set_num_threads(THREADS)
    reference, variant = (next(one for one in plan.variants if one.compression == name) for name in ("none", "int8"))
    accuracy = {
        case.variant.compression: gate.result(case).value or 0.0 for case in plan.cases if case.shift.kind == "clean"
    }
    floating, quantized = gate.subject(reference), gate.subject(variant)
    with silence():
        save(export(floating.differentiable(), gate.foundry.example("cifar10"), method="float"), folder / "float.onnx")
    samples = gate.library.samples("cifar10", "test")
    twin, agree = quantized.differentiable(), 0
    for start in range(0, len(samples), 100):
        images = as_tensor(samples, slice(start, start + 100), gate.device)[0]
        with torch.no_grad():
            agree += int((twin(images).argmax(1) == quantized.logits(images).argmax(1)).sum())
    module = floating.differentiable()
    images = as_tensor(samples, slice(0, 100), gate.device)[0]

    def run_float() -> None:
        with torch.inference_mode():
            module(images)

    for _ in range(5):
        run_float(), quantized.logits(images)
    ratios = [seconds(run_float) / seconds(lambda: quantized.logits(images)) for _ in range(rounds)]
    size = gate.record(variant).size_bytes / (folder / "float.onnx").stat().st_size
    return [
        ("accuracy, float, %", 100 * accuracy["none"], "", 0),
        ("accuracy, int8 file, %", 100 * accuracy["int8"], ">=", 100 * accuracy["none"] - 0.5),
        ("file, share of the float ONNX file", size, "<=", 0.33),
        ("images per second, times PyTorch's", statistics.median(ratios), ">=", 1.8),
        ("twin and file agree, %", 100 * agree / len(samples), ">=", 99.5),
    ]


def main() -> int:
    """Measure, print, and say by the exit status whether the limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    if not (DATA / "cifar").is_dir():
        parser.error("ROBUSTGATE_DATA must name the folder of real data")
    with tempfile.TemporaryDirectory() as place:
        rows = measure(Path(place), arguments.rounds)
    met = [not sign or (value >= limit if sign == ">=" else value <= limit) for _, value, sign, limit in rows]
    for (name, value, sign, limit), held in zip(rows, met, strict=True):
        print(f"{name:<38} {value:>8.2f}  " + (f"{sign} {limit:.2f}  {'met' if held else 'MISSED'}" if sign else ""))
    if arguments.json:
        found = [
            {"figure": name, "value": value, "met": held} for (name, value, *_), held in zip(rows, met, strict=True)
        ]
        arguments.json.write_text(json.dumps(found, indent=1))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
