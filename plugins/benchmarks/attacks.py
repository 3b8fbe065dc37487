"""Attacks side by side with torchattacks and Foolbox: images per second, strength, memory; a GPU where there is one.

    python plugins/benchmarks/attacks.py [--speed] [--strength] [--memory] [--gpu] [--only NAME ...] [--rounds N]
                                         [--scale SHARE] [--threads N] [--json FILE] [--markdown]

The published ResNet-20 on CIFAR-10, two threads; without a flag every part runs. Speed: ours and each peer that has the
attack take turns at the same budget, and at the same steps where the row does not say otherwise, and the median of the
rounds' ratios of images per second counts. Ours is the whole measurement, its clean pass and its count on the artifact
included; a peer's is its attack alone, called as its users do, on all images in batches of 100. A slow peer sees fewer
images. On the images that both saw, ours may leave no more than half a point more standing, and the norms of a
minimum-norm attack may be no more than 1 % larger, by the geometric mean of their ratios. Strength: the same on 500
images, 50 of each class. ROBUSTGATE_DATA names the folder of real data. Exits 1 where a figure is missed, a peer is
absent or an attack is missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _attack_rows import EIGHT, SPEED, STRENGTH, Peer, Row, evenly
from _cifar import DATA, as_images, attacked, network, part, pictures
from torch import Tensor, nn

from robustgate.attacks.pgd import Pgd
from robustgate.core.budget import Budget
from robustgate.core.catalog import shelf
from robustgate.core.components import Attack, Samples
from robustgate.engine.adversarial import Terms
from robustgate.engine.measure import Outcome
from robustgate.engine.networks import Normalized
from robustgate.engine.subjects import TorchSubject

THREADS, BATCH = 2, 100
SLACK, LARGER = 0.5, 1.01
# What attacking 10,000 images may add to the peak of attacking 500: their float32 images alone are 123 MB.
MANY, FEW, MEMORY_LIMIT_MB = 10_000, 500, 60

Points = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Found:
    """A row's figures for one peer; a problem stands in their place."""

    row: str
    peer: str
    at_least: float = 0
    ours_per_s: float | None = None
    theirs_per_s: float | None = None
    ratio: float | None = None
    ours_robust: float | None = None
    theirs_robust: float | None = None
    norms: float | None = None
    """Our norms over theirs, of a minimum-norm attack."""
    problems: list[str] = field(default_factory=list)


def peer_attack(library: str, peer: Peer, module: nn.Module) -> Points:
    """Return a library's attack as a function of a batch. Raises ImportError where it is not installed."""
    place: Any = importlib.import_module(library)
    if library == "torchattacks":
        made = getattr(place, peer.name)(module, **peer.made)
        return lambda images, labels: made(images, labels).detach()
    attack = getattr(place.attacks, peer.name)(**peer.made)
    device = next(module.parameters()).device
    model = place.PyTorchModel(module, bounds=(0, 1), device=device)
    return lambda images, labels: attack(model, images, place.Misclassification(labels), epsilons=peer.epsilon)[1]


def in_batches(run: Points, images: Tensor, labels: Tensor) -> Tensor:
    """Attack batch by batch, as a library's users do."""
    pairs = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    return torch.cat([run(*pair) for pair in pairs])


def standing(subject: TorchSubject, found: Tensor, samples: Samples, budget: Budget) -> float:
    """Return the share that a peer leaves standing, counted as ours is: its point, or that projected to eps."""
    images, labels = as_images(samples)
    fooled = (subject.logits(found).argmax(1) != labels) & budget.contains(budget.size(found - images))
    projected = subject.logits(budget.project(found, images)).argmax(1) != labels
    wrong = subject.logits(images).argmax(1) != labels
    return float((~(fooled | projected | wrong)).float().mean())


def larger(outcome: Outcome, subject: TorchSubject, found: Tensor, samples: Samples, budget: Budget) -> float:
    """Return the geometric mean of our norms over a peer's; infinite where the peer fooled and ours did not."""
    images, labels = as_images(samples)
    ours = torch.tensor(outcome.norms)[: len(labels)]
    fooled = (ours > 0) & (subject.logits(found).argmax(1) != labels)
    return float((ours[fooled] / budget.size(found - images)[fooled]).log().mean().exp())


def ours_of(row: Row) -> Attack:
    """Return our attack. Raises LookupError where it is not on the shelf, or not as this file knows it."""
    if row.method not in shelf("attacks").names:
        raise LookupError(f"missing: {row.method}")
    try:
        attack: Attack = shelf("attacks").component(row.method)(**row.parameters)
    except (ImportError, TypeError, ValueError) as error:
        raise LookupError(f"missing: {row.method}: {error}") from error
    return attack


def compare(row: Row, subject: TorchSubject, samples: Samples, rounds: int, scale: float) -> list[Found]:
    """Run ours and the peers in turn; return a line for each peer."""
    found = {library: Found(row.name, library, row.at_least) for library in row.peers}
    try:
        attack = ours_of(row)
    except LookupError as error:
        for line in found.values():
            line.problems.append(str(error))
        return list(found.values())
    if row.no_loss:
        right = subject.logits(as_images(samples)[0]).argmax(1).numpy() == samples.labels
        samples = part(samples, np.flatnonzero(right))
    ours = part(samples, slice(max(2, round(scale * row.images))))
    theirs: dict[str, tuple[Points, Samples]] = {}
    for library, peer in row.peers.items():
        try:
            run = peer_attack(library, peer, subject.module)
        except ImportError:
            found[library].problems.append("absent")
        else:
            theirs[library] = run, part(samples, slice(min(max(2, round(scale * peer.images)), len(ours))))
    speeds, outcome, points = take_turns(subject, ours, attack, theirs, rounds)
    for library, (_, few) in theirs.items():
        line = found[library]
        line.ours_robust = float(outcome.correct[: len(few)].mean())
        budget = Budget(attack.norm, attack.eps)
        line.theirs_robust = standing(subject, points[library], few, budget)
        if attack.minimizes:
            line.norms = larger(outcome, subject, points[library], few, budget)
        judge(line, row.method, speeds["ours"], speeds[library])
        if row.no_loss and outcome.details["fallen"]:
            line.problems.append(f"{outcome.details['fallen']} samples fell")
    return list(found.values())


def take_turns(
    subject: TorchSubject, ours: Samples, attack: Attack, theirs: Mapping[str, tuple[Points, Samples]], rounds: int
) -> tuple[dict[str, list[float]], Outcome, dict[str, Tensor]]:
    """Return everybody's images per second in each round, our outcome, and the peers' points of the last round."""
    speeds: dict[str, list[float]] = {name: [] for name in ("ours", *theirs)}
    points: dict[str, Tensor] = {}
    for turn in range(rounds):
        began = time.perf_counter()
        outcome = attacked(subject, ours, attack)
        speeds["ours"].append(len(ours) / (time.perf_counter() - began))
        for library, (run, few) in theirs.items():
            images, labels = as_images(few)
            torch.manual_seed(turn)
            began = time.perf_counter()
            points[library] = in_batches(run, images, labels)
            speeds[library].append(len(few) / (time.perf_counter() - began))
    return speeds, outcome, points


def judge(line: Found, method: str, ours: list[float], theirs: list[float]) -> None:
    """Fill in the speeds, and say which limits are missed."""
    line.ours_per_s, line.theirs_per_s = statistics.median(ours), statistics.median(theirs)
    line.ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    if line.ratio < line.at_least:
        line.problems.append(f"MISSED: {line.ratio:.2f} < {line.at_least:g} times")
    gap = 100 * ((line.ours_robust or 0) - (line.theirs_robust or 0))
    if gap > SLACK or (method == "autoattack" and abs(gap) > SLACK):
        line.problems.append(f"MISSED: {gap:+.1f} points")
    if line.norms and line.norms > LARGER:
        line.problems.append(f"MISSED: norms {line.norms:.3f} times theirs")


def show(lines: list[Found], *, markdown: bool) -> None:
    """Print lines of a table."""
    for line in lines:
        limit = f"{line.at_least:g}x" if line.at_least else ""
        cells = [line.row, line.peer, number(line.ours_per_s), number(line.theirs_per_s), number(line.ratio), limit]
        cells += [number(line.ours_robust, 100), number(line.theirs_robust, 100)]
        cells += [number(line.norms), "; ".join(line.problems) or "met"]
        widths = (28, 13, 9, 9, 8, 6, 8, 8, 8, 0)
        text = " ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        print("| " + " | ".join(cells) + " |" if markdown else text, flush=True)


def number(value: float | None, factor: float = 1) -> str:
    """Return a figure with three digits, or a dash."""
    return "-" if value is None else f"{factor * value:.1f}" if factor * value >= 10 else f"{factor * value:.2f}"


def heading(part_name: str, *, markdown: bool) -> None:
    """Print a table's head."""
    words = ["attack", "peer", "ours/s", "theirs/s", "ratio", "limit", "ours %", "theirs %", "norms", ""]
    print(f"\n{part_name}: images per second, their ratio, accuracy left standing in percent, our norms / theirs")
    print("| " + " | ".join(words) + " |\n" + "|---" * len(words) + "|" if markdown else " ".join(words), flush=True)


def peak(count: int) -> dict[str, float]:
    """Attack `count` images in this process; return its peak memory, the images' and the outcomes' bytes, in MB."""
    torch.set_num_threads(THREADS)
    samples = pictures()
    many = part(samples, np.arange(count) % len(samples))
    outcome = attacked(network(), many, Pgd(eps=EIGHT, steps=10))
    arrays = [outcome.labels, outcome.predictions, outcome.norms, outcome.queries, outcome.gradients]
    kept = sum(array.nbytes for array in arrays if array is not None)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    return {"peak_mb": used, "images_mb": many.images.nbytes / 2**20, "outcomes_mb": kept / 2**20}


def memory() -> tuple[dict[str, Any], bool]:
    """Compare the peaks of fresh processes; the uint8 images are the caller's and do not count."""
    runs = []
    # The C library then gives freed memory back at once: the peak is of what is held, not of what it keeps in store.
    returning = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for count in (FEW, MANY):
        command = [sys.executable, __file__, "--peak", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **returning})
        runs.append(json.loads(done.stdout))
    few, many = runs
    growth = (many["peak_mb"] - many["images_mb"]) - (few["peak_mb"] - few["images_mb"])
    held = growth < MEMORY_LIMIT_MB
    print(
        f"\nmemory: {MANY:,} images {many['peak_mb']:.0f} MB at the peak, {FEW} images {few['peak_mb']:.0f} MB; "
        f"{growth:+.1f} MB without the caller's images, outcomes {many['outcomes_mb']:.1f} MB "
        f"(limit {MEMORY_LIMIT_MB} MB)  {'met' if held else 'MISSED'}"
    )
    return {"few": few, "many": many, "growth_mb": growth, "met": held}, held


def gpu(device: torch.device, count: int, steps: int = 40) -> dict[str, float]:
    """Print images per second of PGD for torchvision's ResNet-50 at 224 px, random weights, ours and torchattacks'."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    subject = TorchSubject(Normalized(resnet50(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), device)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)
    images = torch.tensor(pixels).permute(0, 3, 1, 2).contiguous().float().div(255).to(device)
    labels = torch.cat([subject.logits(one).argmax(1) for one in images.split(BATCH)])
    classes = tuple(map(str, range(1000)))
    samples = Samples(images=pixels, labels=labels.cpu().numpy(), classes=classes, names=("",) * count)
    ours, eps = Pgd(eps=0.004, steps=steps), 0.004
    made = {"eps": eps, "alpha": 2.5 * eps / steps, "steps": steps}
    runs: dict[str, Callable[[], object]] = {
        "ours, float32": lambda: attacked(subject, samples, ours, Terms(size=BATCH)),
        "ours, mixed": lambda: attacked(subject, samples, ours, Terms(size=BATCH, mixed=True)),
    }
    try:
        theirs = peer_attack("torchattacks", Peer("PGD", made), subject.module)
        runs["torchattacks"] = lambda: in_batches(theirs, images, labels).sum().item()
    except ImportError:
        print("torchattacks: absent")
    speeds = {}
    for name, run in runs.items():
        run()  # the first call chooses algorithms
        began = time.perf_counter()
        run()
        speeds[name] = count / (time.perf_counter() - began)
        print(f"PGD-{steps}, ResNet-50 at 224 px on {device}, {name}: {speeds[name]:.1f} images/s", flush=True)
    return speeds


def main() -> int:
    """Measure, print, and say by the exit status whether all limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("speed", "strength", "memory", "gpu", "markdown"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], help="begin with these: names of rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the images, for a quick look")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not (DATA / "cifar").is_dir():
        parser.error("ROBUSTGATE_DATA must name the folder of real data")
    if arguments.peak:
        print(json.dumps(peak(arguments.peak)))
        return 0
    torch.set_num_threads(arguments.threads)
    everything = not (arguments.speed or arguments.strength or arguments.memory or arguments.gpu)
    kept, report = True, {}
    for name, rows, rounds in (("speed", SPEED, arguments.rounds), ("strength", map(evenly, STRENGTH), 1)):
        if everything or getattr(arguments, name):
            heading(name, markdown=arguments.markdown)
            chosen = [row for row in rows if not arguments.only or row.name.startswith(tuple(arguments.only))]
            lines = table(chosen, rounds, arguments.scale, markdown=arguments.markdown)
            kept &= not any(line.problems for line in lines)
            report[name] = [asdict(line) for line in lines]
    if everything or arguments.memory:
        report["memory"], held = memory()
        kept &= held
    if everything or arguments.gpu:
        if torch.cuda.is_available():
            report["gpu"] = gpu(torch.device("cuda"), 400)
        else:
            print("\nGPU: none found, nothing measured")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    return 0 if kept else 1


def table(rows: list[Row], rounds: int, scale: float, *, markdown: bool) -> list[Found]:
    """Measure rows and print each as it is done."""
    subject, samples = network(), pictures()
    lines: list[Found] = []
    for row in rows:
        found = compare(row, subject, samples, rounds, scale)
        show(found, markdown=markdown)
        lines += found
    return lines


if __name__ == "__main__":
    sys.exit(main())
