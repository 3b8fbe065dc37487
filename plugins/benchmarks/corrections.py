"""AdCorDA's first stage: how many misclassified training images it corrects, how far they move, and how long it takes.

    python plugins/benchmarks/corrections.py [--json FILE] [--images 10000]

The published ResNet-8 on CIFAR-100's training images, under the recipe's own attack. ROBUSTGATE_DATA names the folder
of real data. Exits 1 where less than 99 % is corrected, where a corrected image is not classified right as it is
stored, or where one was moved that was right before.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from robustgate.core.components import Samples
from robustgate.engine.networks import Normalized, load_weights
from robustgate.engine.turned import corrections
from robustgate.training.adcorda import AdCorDa

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "studies"))
from networks import distiller_resnet

DATA = Path(os.environ.get("ROBUSTGATE_DATA", ""))
LIMIT = 99.0


def network() -> torch.nn.Module:
    """Return the published ResNet-8 behind its normalisation."""
    module = distiller_resnet(depth=8, num_classes=100)
    load_weights(module, DATA / "weights" / "distiller_resnet8_cifar100.safetensors", "the published ResNet-8")
    return Normalized(module, (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)).eval()


def images(count: int) -> Samples:
    """Return the first so many training images, the classes in turn."""
    with np.load(DATA / "cifar" / "cifar100_train_10000.npz", allow_pickle=False) as arrays:
        pixels, labels, classes = (arrays[key] for key in ("images", "labels", "classes"))
    turns = np.concatenate(list(zip(*(np.flatnonzero(labels == label) for label in range(100)), strict=False)))
    rows = turns.ravel()[:count]
    return Samples(images=pixels[rows], labels=labels[rows], classes=tuple(classes), names=("cifar100",) * len(rows))


def right(module: torch.nn.Module, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which images (N,) are classified right."""
    with torch.inference_mode():
        parts = torch.from_numpy(pixels).permute(0, 3, 1, 2).split(250)
        found = torch.cat([module(part.float().div(255)).argmax(dim=1) for part in parts])
    return found.numpy() == labels


def main() -> int:
    """Measure, print, and say by the exit status whether the limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    asked = parser.parse_args()
    if not (DATA / "cifar").is_dir():
        parser.error("ROBUSTGATE_DATA must name the folder of real data")
    torch.set_num_threads(1)
    module, samples = network(), images(asked.images)
    wrong = np.flatnonzero(~right(module, samples.images, samples.labels))
    began = time.perf_counter()
    rows, moved = corrections(module, samples, AdCorDa(epochs=1).attack, seed=0, device=torch.device("cpu"))
    seconds = time.perf_counter() - began
    held = right(module, moved, samples.labels[rows])
    far = np.linalg.norm((moved.astype(float) - samples.images[rows]).reshape(len(rows), -1) / 255, axis=1)
    figures = {
        "images": len(samples),
        "misclassified": len(wrong),
        "corrected, %": 100 * len(rows) / len(wrong),
        "right as they are stored, %": 100 * float(held.mean()),
        "not misclassified before": len(np.setdiff1d(rows, wrong)),
        "median distance, l2 in [0, 1]": float(np.median(far)),
        "largest distance": float(far.max()),
        "seconds": seconds,
    }
    for name, value in figures.items():
        print(f"{name:<32} {value:>10,.2f}")
    met = figures["corrected, %"] >= LIMIT and bool(held.all()) and not figures["not misclassified before"]
    print(f"at least {LIMIT:g} % corrected: {'met' if met else 'MISSED'}")
    if asked.json:
        asked.json.write_text(json.dumps({**figures, "met": met}, indent=1))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
