"""Train the reference networks of the embedded `digits` gate, and write them with a manifest.

    python plugins/tools/build_fixtures.py            trains (about two minutes), writes, exits 1 if a target is missed
    python plugins/tools/build_fixtures.py --check    trains nothing: the kept files, their hashes and accuracies

The weights are those of the bare network. Whoever runs it divides images by 255 and normalises them with MEAN and STD
first, as `robustgate.toml` says with ``normalize``.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import tomllib
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from robustgate.core.components import Samples
from robustgate.core.files import sha256, write_whole
from robustgate.core.seeds import derive
from robustgate.domains.digits import Digits
from robustgate.engine import course
from robustgate.training.supervised import Supervised
from robustgate.zoo.cifar_resnet import cifar_resnet

FIXTURES = Path(__file__).parents[2] / "fixtures"
SEED = 0
BUILD = "robustgate.zoo.cifar_resnet:cifar_resnet"
ARGS = {"depth": 8, "width": 16, "num_classes": 10}
MEAN = STD = (0.5, 0.5, 0.5)
RECIPE = Supervised(epochs=25, lr=0.05, batch_size=16, label_smoothing=0.1)

STYLES = ("handwritten", "printed", "scene")
FLOORS = {"handwritten": 0.97, "printed": 0.97, "scene": 0.90}
PAIR_FLOOR, PAIR_CEILING = 0.40, 0.95
"""Below the one a threshold says nothing; above the other the domains hardly differ."""
ROOM = 2_000_000
"""Bytes of all weights together."""
DRIFT = 0.01
"""How far an accuracy may lie from the manifest's: other libraries decode the photographs and round otherwise."""

SCANS = (
    "scikit-learn's load_digits: UCI Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak (CC BY 4.0)"
)
FONTS = "matplotlib's font files: DejaVu (Bitstream Vera licence), STIX (STIX Fonts licence), Computer Modern (BaKoMa)"
PHOTOGRAPHS = "scikit-learn's load_sample_images: china.jpg by danielbuechele, flower.jpg by vultilion (CC BY 2.0)"
ORIGINS = {"handwritten": [SCANS], "printed": [FONTS], "scene": [SCANS, FONTS, PHOTOGRAPHS]}


class Normalised(nn.Module):
    """A bare network behind the normalisation of its input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) in [0, 1] to logits."""
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, STD))
        logits: Tensor = self.network((images - mean) / std)
        return logits


def main() -> int:
    """Train and write, or check; return the exit status."""
    parser = argparse.ArgumentParser(description="Train the reference networks of the embedded gate.")
    parser.add_argument("--check", action="store_true", help="train nothing, verify the files that are there")
    parser.add_argument("--fixtures", type=Path, default=FIXTURES, help="folder of models/ and MANIFEST.toml")
    options = parser.parse_args()
    # One thread adds in one order: the same machine gives the same bytes.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    problems = check(options.fixtures) if options.check else build(options.fixtures)
    for problem in problems:
        print(f"missed: {problem}", file=sys.stderr)
    return 1 if problems else 0


def build(folder: Path) -> list[str]:
    """Train every network; write weights and manifest when all targets are met. Return the targets missed."""
    networks = {style: train(style) for style in STYLES}
    table = {style: accuracies(style, network) for style, network in networks.items()}
    show(table)
    weights = {style: save(networks[style].state_dict()) for style in STYLES}
    problems = missed(table, sum(len(data) for data in weights.values()))
    if problems:
        return problems
    for style, data in weights.items():
        write_whole(path_of(folder, style), data)
    write_whole(folder / "MANIFEST.toml", manifest(folder, table))
    return []


def check(folder: Path) -> list[str]:
    """Return what is wrong with the kept files: hashes; else targets, or accuracies other than the manifest's."""
    entries = tomllib.loads((folder / "MANIFEST.toml").read_text(encoding="utf-8"))["files"]
    paths = {style: path_of(folder, style) for style in STYLES}
    kept = {style: entries[path.relative_to(folder).as_posix()] for style, path in paths.items()}
    if damaged := [
        f"{path}: its SHA-256 is {sha256(path)}, the manifest says {kept[style]['sha256']}"
        for style, path in paths.items()
        if sha256(path) != kept[style]["sha256"]
    ]:
        return damaged
    table = {style: accuracies(style, load(path)) for style, path in paths.items()}
    show(table)
    drifted = [
        f"{source} on {target}: {value:.2%}, the manifest says {kept[source]['accuracy'][target]:.2%}"
        for source, row in table.items()
        for target, value in row.items()
        if abs(value - kept[source]["accuracy"][target]) > DRIFT
    ]
    return drifted + missed(table, sum(path.stat().st_size for path in paths.values()))


def load(path: Path) -> nn.Module:
    """Return the bare network with the weights of a file."""
    network = cifar_resnet(**ARGS)
    network.load_state_dict(load_file(path))
    return network.eval()


def train(style: str) -> nn.Module:
    """Return the bare network trained on one style's train split; seeds depend on the style's name only."""
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(SEED, "initial weights", style))
        network = cifar_resnet(**ARGS)
    samples = Digits(style=style).load("train")  # type: ignore[arg-type]
    course.train(Normalised(network), RECIPE, samples, seed=derive(SEED, "training", style))
    print(f"{style}: trained on {len(samples):,} images in {time.perf_counter() - started:.0f} s", flush=True)
    return network.eval()


def accuracies(style: str, network: nn.Module) -> dict[str, float]:
    """Return the accuracy on the style's own test split, and on the whole of each other style."""
    return {
        target: accuracy(network, Digits(style=target).load("test" if target == style else "whole"))  # type: ignore[arg-type]
        for target in STYLES
    }


@torch.no_grad()
def accuracy(network: nn.Module, samples: Samples) -> float:
    """Return the share of samples whose largest logit is their label's."""
    images = torch.tensor(samples.images).permute(0, 3, 1, 2).float().div(255)
    guesses = torch.cat([Normalised(network)(batch).argmax(dim=1) for batch in torch.split(images, 256)])
    return (guesses == torch.tensor(samples.labels)).double().mean().item()


def missed(table: dict[str, dict[str, float]], size: int) -> list[str]:
    """Return the targets that the accuracies or the weights' size miss, one line each."""
    problems = [] if size <= ROOM else [f"the weights have {size:,} bytes, at most {ROOM:,}"]
    for source, row in table.items():
        for target, value in row.items():
            low, high = (FLOORS[source], 1.0) if source == target else (PAIR_FLOOR, PAIR_CEILING)
            if not low <= value <= high:
                problems.append(f"{source} on {target}: {value:.2%}, expected {low:.0%} to {high:.0%}")
    return problems


def show(table: dict[str, dict[str, float]]) -> None:
    """Print the accuracies: trained on (rows), tested on (columns); the diagonal is the test split."""
    print(f"{'accuracy, %':<12}" + "".join(f"{target:>13}" for target in STYLES))
    for source, row in table.items():
        print(f"{source:<12}" + "".join(f"{100 * row[target]:>13.2f}" for target in STYLES))


def path_of(folder: Path, style: str) -> Path:
    """Return where a style's weights lie."""
    return folder / "models" / f"resnet8-{style}.safetensors"


def manifest(folder: Path, table: dict[str, dict[str, float]]) -> str:
    """Return MANIFEST.toml: for each file its hash, size, origin, licence, and how it was made."""
    recipe = {field.name: getattr(RECIPE, field.name) for field in fields(RECIPE)}
    versions = {name: version(name) for name in ("matplotlib", "numpy", "pillow", "scikit-learn", "scipy", "torch")}
    lines = ["# Written by plugins/tools/build_fixtures.py; `--check` verifies it.", ""]
    for style in STYLES:
        path = path_of(folder, style)
        lines += [
            f"[files.{literal(path.relative_to(folder).as_posix())}]",
            f"sha256 = {literal(sha256(path))}",
            f"bytes = {path.stat().st_size}",
            'origin = "trained by plugins/tools/build_fixtures.py"',
            'licence = "Apache-2.0"',
            f"trained_on = {literal(ORIGINS[style])}",
            f"domain = {literal({'kind': 'digits', 'style': style})}",
            f"build = {literal(BUILD)}",
            f"args = {literal(ARGS)}",
            "# Applied to images in [0, 1] before the network; not part of the weights.",
            f"normalize = {literal({'mean': MEAN, 'std': STD})}",
            f"seed = {SEED}",
            f"recipe = {literal({'method': 'supervised', **recipe})}",
            "# On the own test split, and on the whole of the other two.",
            f"accuracy = {literal({target: round(value, 4) for target, value in table[style].items()})}",
            f"versions = {literal({'python': platform.python_version(), **versions})}",
            "",
        ]
    return "\n".join(lines)


def literal(value: Any) -> str:
    """Return a value as TOML writes it; text without control characters, quotes or backslashes."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case dict():
            return "{ " + ", ".join(f"{key} = {literal(item)}" for key, item in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(literal(item) for item in value) + "]"
        case _:
            return repr(value)


if __name__ == "__main__":
    sys.exit(main())
