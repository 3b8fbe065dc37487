"""Real domain pairs through the gate: float and compressed networks, in the table that the field prints.

    python plugins/benchmarks/domain_pairs.py [--json FILE] [--projects office cifar digits] [--keep FOLDER]

Office's amazon, webcam and dslr in ten classes, six pairs: MobileNetV2 at 96 px from published weights, with a linear
probe on 80 % of each source, quantized, pruned, and pruned and taught. CIFAR-10 against its own images as JPEG copies,
and against Tiny-ImageNet's of eight of its classes. MNIST against USPS. Each project is a robustgate.toml and an
ordinary pytest run of it; the float figures must meet those of the data's own README. ROBUSTGATE_DATA names the folder
of real data. Exits 1 where a figure is missed. `--keep` leaves projects and reports in a folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from _mobilenet import MobileNetV2, mobilenet_v2, published, unfold
from PIL import Image
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from robustgate.config import load
from robustgate.core.records import REFERENCE, Results
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.reports import results_json

DATA = Path(os.environ.get("ROBUSTGATE_DATA", ""))
POLICY = 'policies.any.rules = [{ name = "anything", min = 0.0 }]\n'
HELD_OUT = 5  # every so many images of an Office domain, in the order of the files, is its test split
L2 = 1e-3
# (x - 128) / 128 of values from 0 to 255
CENTRE = 128 / 255
RECIPE = "{ epochs = 12, lr = 0.002, batch_size = 16, weight_decay = 0.0001, flip = true }"
OFFICE = f"""
shifts.pairs = "all"
[compressions]
int8.steps = [{{ method = "static_quantization" }}]
fp_1_50M.steps = [{{ method = "filter_pruning", parameters = "1.50M", finetune = {RECIPE} }}]
fp_1_50M_int8.steps = [{{ use = "fp_1_50M" }}, {{ method = "static_quantization" }}]
kd_1_50M.steps = [
    {{ method = "filter_pruning", parameters = "1.50M" }},
    {{ method = "distillation", teacher = "mobilenet_v2", training = {RECIPE} }},
]
[models.mobilenet_v2]
build = "_mobilenet:mobilenet_v2"
args = {{ num_classes = 10 }}
normalize = {{ mean = {[CENTRE] * 3}, std = {[CENTRE] * 3} }}
weights = {{ amazon = "amazon.safetensors", webcam = "webcam.safetensors", dslr = "dslr.safetensors" }}
"""
OFFICE_DOMAIN = """
[domains.{name}]
kind = "npz"
files = {{ train = "{name}_train.npz", test = "{name}_test.npz" }}
calibration = 0.1
"""
CIFAR = f"""
[shifts]
pairs = [["cifar10", "cifar10_jpeg"], {{ source = "cifar10", target = "tiny_imagenet", missing = "drop" }}]
[compressions]
int8.steps = [{{ method = "static_quantization" }}]
[domains.cifar10]
kind = "npz"
files = {{ train = "{DATA}/cifar/cifar10_train_10000.npz", test = "{DATA}/cifar/cifar10_test_2000.npz" }}
calibration = 0.1
[domains.cifar10_jpeg]
kind = "npz"
files = {{ test = "{DATA}/cifar/cifar10_test_2000_jpeg75.npz" }}
[domains.tiny_imagenet]
kind = "npz"
files = {{ test = "{DATA}/cifar/tinyimagenet_as_cifar10_920.npz" }}
""" + "".join(
    f"""
[models.resnet{depth}]
build = "robustgate.zoo:cifar_resnet"
args = {{ depth = {depth}, num_classes = 10 }}
normalize = {{ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }}
weights = {{ cifar10 = "{DATA}/weights/cifar10_resnet{depth}.safetensors" }}
"""
    for depth in (20, 56)
)
DIGITS = f"""
shifts.pairs = [["mnist", "usps"]]
compressions.dynamic.steps = [{{ method = "dynamic_quantization" }}]
[domains.mnist]
kind = "npz"
files = {{ test = "{DATA}/digits/mnist_test_2000.npz" }}
classes = {list("0123456789")}
[domains.usps]
kind = "npz"
files = {{ test = "{DATA}/digits/usps_test_1000.npz" }}
classes = {list("0123456789")}
resize = [20, 20]
pad = 4
[models.provably_robust]
build = "_digits:mnist_network"
normalize = "inside"
weights = {{ mnist = "{DATA}/weights/mnist_provably_robust.safetensors" }}
"""
# Percent right without compression, from the README of the data: tables E, A and D.
EXPECTED = {
    "office": {
        "mobilenet_v2-none-amazon_to_webcam": 70.2,
        "mobilenet_v2-none-amazon_to_dslr": 68.8,
        "mobilenet_v2-none-webcam_to_amazon": 74.1,
        "mobilenet_v2-none-webcam_to_dslr": 97.5,
        "mobilenet_v2-none-dslr_to_amazon": 74.5,
        "mobilenet_v2-none-dslr_to_webcam": 94.2,
    },
    "cifar": {
        "resnet20-none-cifar10": 91.80,
        "resnet20-none-cifar10_to_cifar10_jpeg": 82.00,
        "resnet20-none-cifar10_to_tiny_imagenet": 59.46,
        "resnet56-none-cifar10": 92.55,
        "resnet56-none-cifar10_to_cifar10_jpeg": 82.90,
        "resnet56-none-cifar10_to_tiny_imagenet": 63.26,
    },
    "digits": {"provably_robust-none-mnist": 98.6, "provably_robust-none-mnist_to_usps": 82.3},
}
# Points: a probe's figure hangs on which 80 % it saw; the published networks have nothing to hang on.
TOLERANCE = {"office": 3.0, "cifar": 0.1, "digits": 0.1}


@dataclass(frozen=True)
class Figure:
    """What was measured, beside what must come out, where anything must."""

    name: str
    value: float
    expected: float | None = None
    tolerance: float = 0.0

    @property
    def is_met(self) -> bool:
        """Whether it is as near as it must be; 1e-9 is for the float's last digits."""
        return self.expected is None or abs(self.value - self.expected) <= self.tolerance + 1e-9


def centred(images: np.ndarray) -> Tensor:
    """Return uint8 images (N, H, W, 3) as MobileNetV2 wants them (N, 3, H, W)."""
    return (torch.tensor(images).permute(0, 3, 1, 2).float() - 128) / 128


def check_weights(network: MobileNetV2) -> list[Figure]:
    """Return accuracies on 100 ImageNet images: that the network is the one that was published."""
    with (DATA / "imagenet" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    images = []
    for row in rows:
        with Image.open(DATA / "imagenet" / row["file"]) as opened:
            image = opened.convert("RGB")
        side = round(0.875 * min(image.size))
        left, top = ((length - side) // 2 for length in image.size)
        images.append(np.asarray(image.crop((left, top, left + side, top + side)).resize((224, 224), 2)))
    labels = torch.tensor([1 + int(row["class_index"]) for row in rows])  # class 0 is background
    with torch.no_grad():
        best = torch.cat([network(batch) for batch in centred(np.stack(images)).split(20)]).topk(5).indices
    right = best == labels[:, None]
    return [
        Figure("MobileNetV2 on 100 ImageNet images, top 1", float(right[:, 0].sum()), 83, 1),
        Figure("MobileNetV2 on 100 ImageNet images, top 5", float(right.sum()), 97, 1),
    ]


def prepare_office(folder: Path) -> list[Figure]:
    """Write Office's domains and a probed network for each of them."""
    figures = check_weights(published(DATA / "weights" / "mobilenet_v2_1.0_224_uint8.safetensors"))
    text = POLICY + OFFICE
    for name in ("amazon", "webcam", "dslr"):
        files = sorted((DATA / "office_caltech10_96" / name).glob("*/*.jpg"))
        classes = sorted({file.parent.name for file in files})
        images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        labels = np.array([classes.index(file.parent.name) for file in files])
        held_out = np.arange(len(files)) % HELD_OUT == 0
        for split, rows in (("train", ~held_out), ("test", held_out)):
            np.savez(folder / f"{name}_{split}.npz", images=images[rows], labels=labels[rows], classes=classes)
        save_file(probed(images[~held_out], labels[~held_out]).state_dict(), folder / f"{name}.safetensors")
        text += OFFICE_DOMAIN.format(name=name)
    (folder / "robustgate.toml").write_text(text)
    return figures


def probed(images: np.ndarray, labels: np.ndarray) -> MobileNetV2:
    """Return the published network with a linear classifier fitted to its features of some images."""
    network = published(DATA / "weights" / "mobilenet_v2_1.0_224_uint8.safetensors")
    inputs = centred(images)
    unfold(network, inputs)
    with torch.no_grad():
        features = torch.cat([network.features(batch) for batch in inputs.split(64)]).numpy()
    # scikit-learn sums the loss over the images, and counts half of the squared weights.
    fitted = LogisticRegression(C=1 / (L2 * len(features)), max_iter=1000).fit(features, labels)
    probe = mobilenet_v2(num_classes=len(fitted.classes_))
    probe.layers = network.layers
    with torch.no_grad():
        probe.classifier.weight.copy_(torch.tensor(fitted.coef_))
        probe.classifier.bias.copy_(torch.tensor(fitted.intercept_))
    return probe


def prepare_cifar(folder: Path) -> list[Figure]:
    """Write the configuration: data and weights are used where they lie."""
    (folder / "robustgate.toml").write_text(POLICY + CIFAR)
    return []


def prepare_digits(folder: Path) -> list[Figure]:
    """Write the configuration: data and weights are used where they lie."""
    (folder / "robustgate.toml").write_text(POLICY + DIGITS)
    return []


def run(folder: Path) -> Results:
    """Run the gate on the project in `folder` as its user would, and return what it wrote."""
    words = ["--robustgate-config", "robustgate.toml", "--robustgate-report", "report", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},  # where its factories are
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return results_json.load(folder / "report" / "results.json")


def paired(folder: Path) -> list[Figure]:
    """Return what the JPEG copies change, image by image: shares of all images, in percent."""
    plan = make_plan(load(folder / "robustgate.toml"))
    gate = Gate(plan, today=datetime.now(UTC).date())
    cases = {case.name: case for case in plan.cases}
    figures = []
    for model in plan.configuration.models:
        names = (f"{model}-{REFERENCE}-cifar10", f"{model}-{REFERENCE}-cifar10_to_cifar10_jpeg")
        original, copied = (gate.measurements.of(cases[name]).outcome.correct.astype(bool) for name in names)
        figures += [
            Figure(f"{model}, right on the original alone", 100 * float((original & ~copied).mean())),
            Figure(f"{model}, right on its JPEG copy alone", 100 * float((copied & ~original).mean())),
        ]
    return figures


PREPARE: dict[str, Callable[[Path], list[Figure]]] = {
    "office": prepare_office,
    "cifar": prepare_cifar,
    "digits": prepare_digits,
}


def measure(project: str, folder: Path) -> list[Figure]:
    """Prepare and run one project, print its table, and return its figures."""
    figures = PREPARE[project](folder)
    results = run(folder)
    print((folder / "report" / "pairs.md").read_text(), flush=True)
    for case in results.cases:
        expected = EXPECTED[project].get(case.name)
        if case.value is not None and (expected is not None or case.shift.kind == "clean"):
            figures.append(Figure(case.name, 100 * case.value, expected, TOLERANCE[project]))
    missing = EXPECTED[project].keys() - {figure.name for figure in figures}
    if missing:
        raise SystemExit(f"{project}: not measured: {', '.join(sorted(missing))}")
    return figures + (paired(folder) if project == "cifar" else [])


def show(figures: Sequence[Figure]) -> None:
    """Print the figures in lines."""
    for figure in figures:
        limit = f"{figure.expected:8.2f} ± {figure.tolerance:g}" if figure.expected is not None else ""
        print(f"{figure.name:<45} {figure.value:8.2f}  {limit}{'' if figure.is_met else '  MISSED'}", flush=True)


def main() -> int:
    """Measure, print, and say by the exit status whether all figures are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--projects", nargs="+", choices=list(PREPARE), default=list(PREPARE))
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    if not (DATA / "office_caltech10_96").is_dir():
        parser.error("ROBUSTGATE_DATA must name the folder of real data")
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as place:
        for project in arguments.projects:
            folder = (arguments.keep or Path(place)).absolute() / project
            folder.mkdir(parents=True, exist_ok=True)
            figures = measure(project, folder)
            show(figures)
            found += figures
    if arguments.json:
        rows = [asdict(figure) | {"met": figure.is_met} for figure in found]
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 0 if all(figure.is_met for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
