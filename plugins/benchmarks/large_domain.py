"""A domain larger than the memory it may take: 100,000 images at 64 px through the gate's own path.

    python plugins/benchmarks/large_domain.py [--json FILE] [--images N] [--distinct N] [--only KIND]

As JPEG and PNG files, and as arrays. Each row is a process of its own that loads the domain by the engine's Library and
measures a small network on it, twice with the same store: its peak resident memory beyond the interpreter with torch
imported and such a network run once, which may be 1 GiB, and the images per second of loading (the first time files are
decoded, then they are only hashed) and of measuring. Exits 1 where the limit is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = 10
SIDE = 64
LIMIT_MB = 1024.0


@dataclass(frozen=True)
class Row:
    """What one pass over a domain took: megabytes beyond the start, and images a second."""

    domain: str
    run: str
    images_mb: float
    peak_mb: float
    load_s: float
    load_rate: float
    measure_rate: float
    limit_mb: float = LIMIT_MB

    @property
    def met(self) -> bool:
        """Say whether memory keeps to the limit."""
        return self.peak_mb <= self.limit_mb


def pictures(count: int) -> np.ndarray:
    """Return images (count, SIDE, SIDE, 3) of waves and some noise, which compress about as photographs do."""
    draws = np.random.default_rng(0)
    place = np.linspace(0, 2 * np.pi, SIDE)
    slopes, phases = draws.uniform(0.5, 4, (2, count, 1, 1, 3)), draws.uniform(0, 6, (count, 1, 1, 3))
    waves = np.sin(slopes[0] * place[:, None, None] + slopes[1] * place[None, :, None] + phases)
    noise = draws.normal(0, 12, (count, SIDE, SIDE, 3))
    return np.clip(127 + 90 * waves + noise, 0, 255).astype(np.uint8)


def write_folder(suffix: str) -> Callable[[Path, int, np.ndarray], dict[str, Any]]:
    """Return what writes class folders of `count` files, most of them second names of a few."""

    def write(folder: Path, count: int, distinct: np.ndarray) -> dict[str, Any]:
        for label in range(CLASSES):
            (folder / f"class{label}").mkdir()
        first = []
        for number in range(count):
            file = folder / f"class{number % CLASSES}" / f"{number:06}.{suffix}"
            if number < len(distinct):
                Image.fromarray(distinct[number]).save(file)
                first.append(file)
            else:
                os.link(first[number % len(distinct)], file)
        return {"kind": "image_folder", "root": folder, "image_size": SIDE}

    return write


def repeated(count: int, distinct: np.ndarray) -> np.ndarray:
    """Return `count` images, the distinct ones again and again."""
    return distinct[np.arange(count) % len(distinct)]


def write_npz(folder: Path, count: int, distinct: np.ndarray) -> dict[str, Any]:
    """Write one uncompressed .npz file."""
    arrays = {"labels": np.arange(count) % CLASSES, "classes": np.array([f"class{n}" for n in range(CLASSES)])}
    np.savez(folder / "all.npz", images=repeated(count, distinct), **arrays)
    return {"kind": "npz", "files": {"test": folder / "all.npz"}}


def write_npy(folder: Path, count: int, distinct: np.ndarray) -> dict[str, Any]:
    """Write two .npy files."""
    np.save(folder / "images.npy", repeated(count, distinct))
    np.save(folder / "labels.npy", np.arange(count) % CLASSES)
    names = [f"class{n}" for n in range(CLASSES)]
    files = {name: {"test": folder / f"{name}.npy"} for name in ("images", "labels")}
    return {"kind": "npy", **files, "classes": names}


WRITERS = {
    "JPEG files": write_folder("jpg"),
    "PNG files": write_folder("png"),
    ".npz": write_npz,
    ".npy": write_npy,
}


def peak_mb() -> float:
    """Return the most memory that this process was ever resident in, as Linux tells it.

    Not by `getrusage`: that begins with what the process had which started this one.
    """
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def evaluate(parameters: dict[str, Any], store: Path) -> dict[str, float]:
    """Measure a small network on a domain, in this process; run by `measured` in a fresh one."""
    import torch

    from robustgate.core.catalog import shelf
    from robustgate.engine.data import Library
    from robustgate.engine.measure import measure_natural
    from robustgate.engine.store import Store
    from robustgate.engine.subjects import TorchSubject

    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (
            torch.nn.Conv2d(3, 8, 3, stride=4),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(4),
            torch.nn.Flatten(),
        )
        network = torch.nn.Sequential(*layers, torch.nn.Linear(128, CLASSES)).eval()
    subject = TorchSubject(network, torch.device("cpu"))
    subject.logits(torch.rand(128, 3, SIDE, SIDE))
    before = peak_mb()
    component = shelf("domains").component(parameters.pop("kind"))(**parameters)
    library = Library({"large": component}, Store(store))
    began = time.perf_counter()
    samples = library.samples("large", "whole")
    library.digest("large", "whole")
    loaded = time.perf_counter()
    outcome = measure_natural(subject, samples, "large", lambda *_: None)
    ended = time.perf_counter()
    return {
        "count": len(outcome.labels),
        "peak_mb": peak_mb() - before,
        "load_s": loaded - began,
        "measure_s": ended - loaded,
    }


def measured(parameters: dict[str, Any], store: Path) -> dict[str, float]:
    """Run `evaluate` in a process of its own."""
    code = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import large_domain as here; "
        "given = here.paths(json.loads(sys.argv[2])); print(json.dumps(here.evaluate(given, Path(sys.argv[3]))))"
    )
    words = [sys.executable, "-c", code, str(Path(__file__).parent), json.dumps(parameters, default=str), str(store)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def paths(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters from JSON with their paths as paths, and lists as tuples."""

    def typed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: typed(item) for key, item in value.items()}
        if isinstance(value, list):
            return tuple(value)
        return Path(value) if isinstance(value, str) and value.startswith("/") else value

    return {key: typed(value) for key, value in parameters.items()}


def compare(domain: str, count: int, distinct: np.ndarray) -> list[Row]:
    """Write a domain and evaluate it twice with one store."""
    with tempfile.TemporaryDirectory() as place:
        folder, store = Path(place) / "data", Path(place) / "store"
        folder.mkdir()
        parameters = WRITERS[domain](folder, count, distinct)
        rows = []
        for run in ("first", "second"):
            found = measured(parameters, store)
            if found["count"] != count:
                raise SystemExit(f"{domain}: {found['count']} of {count} images were measured")
            rows.append(
                Row(
                    domain=domain,
                    run=run,
                    images_mb=count * SIDE * SIDE * 3 / 2**20,
                    peak_mb=found["peak_mb"],
                    load_s=found["load_s"],
                    load_rate=count / found["load_s"],
                    measure_rate=count / found["measure_s"],
                )
            )
    return rows


def main() -> int:
    """Measure, print, and say by the exit status whether the limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--distinct", type=int, default=500)
    parser.add_argument("--only", choices=list(WRITERS), action="append")
    arguments = parser.parse_args()
    distinct = pictures(arguments.distinct)
    rows = [row for name in arguments.only or WRITERS for row in compare(name, arguments.images, distinct)]
    print(f"{arguments.images:,} images at {SIDE} px on {os.cpu_count()} processors")
    heads = ("domain", "run", "images", "peak more", "limit", "load", "load", "measure")
    units = ("", "", "MB", "MB", "MB", "s", "images/s", "images/s")
    for line in (heads, units):
        print(f"{line[0]:<12} {line[1]:<7} " + " ".join(f"{word:>9}" for word in line[2:]))
    for row in rows:
        numbers = (row.images_mb, row.peak_mb, row.limit_mb, row.load_s, row.load_rate, row.measure_rate)
        told = " ".join(f"{number:>9,.{1 if number < 100 else 0}f}" for number in numbers)
        print(f"{row.domain:<12} {row.run:<7} {told}  {'met' if row.met else 'MISSED'}")
    if arguments.json:
        arguments.json.write_text(json.dumps([{**asdict(row), "met": row.met} for row in rows], indent=1))
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
