"""The gate with and without early stop, beside the script that it replaces, and repeated with other seeds.

    python plugins/benchmarks/gate.py [--images N] [--seeds N] [--scripted N] [--quick] [--json FILE]

The published ResNet-20 and three compressions of it that torch runs, on 2,000 CIFAR-10 images: clean, corrupted,
attacked. All is measured once in full to learn the truth, and each case then gets a limit of its own, 10 points below
the truth and above it in turn. Then three sides take turns, case by case, so that a busy machine slows all alike. Each
gate begins with an empty cache but for the built artifacts:

- the gate with early_stop = false,
- the gate with early_stop = "confident",
- the script: torchattacks in batches of 100, the package `imagecorruptions` image by image, on every image.

One thread each. The package has its severities for 224 px only: the gate uses them here too, so that both do the same.
It runs in a process of its own; the files that images travel by take 10 ms of a case. The script takes over 20 minutes
for all variants: unless `--scripted 4` says so it has the first two, and its time is compared with the gate's for them.
Last, pytest runs the suite with early stop, as a user does.

Repetitions: each of 100 seeds draws the samples in an order of its own, for a policy whose limits lie 2 points below
the truth. What a case without randomness comes to does not depend on the seed: the outcomes of the reference under such
shifts are measured once, and the engine's own loop judges them in the order of each seed. Seed 1 is measured anew too.

ROBUSTGATE_DATA names the folder of real data. Exits 1 where a figure is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch
import torchattacks
from _cifar import DATA
from _gate_project import ATTACKS, CORRUPTIONS, WITHOUT_RANDOMNESS, write_configuration, write_data
from _published import Published

from robustgate.config import load
from robustgate.core import severity
from robustgate.core.components import Samples
from robustgate.core.records import REFERENCE, Case, CaseResult, Shift
from robustgate.engine.figures import Figure
from robustgate.engine.gate import Gate
from robustgate.engine.measured import Measured, Some
from robustgate.engine.measurements import Measurements
from robustgate.engine.plan import Plan, make_plan
from robustgate.reports import results_json

T = TypeVar("T")

BATCH, STEPS = 100, 20
OFF, CLEAR, WRONG_RUNS = 0.10, 0.02, 0.01
FEW = 500
# The suite in a process of its own, with the severities for 224 px.
SUITE = "import sys, pytest; from robustgate.core import severity; severity.SMALL_SIDE = 0; sys.exit(pytest.main())"


@dataclass(frozen=True)
class Row:
    """A case: its accuracy and limit, what each side says of it, and how long it took; the script's may be absent."""

    case: str
    truth: float
    limit: float
    full: str
    early: str
    script: str | None
    n: int
    script_value: float | None
    full_s: float
    early_s: float
    script_s: float | None


@dataclass(frozen=True)
class Line:
    """A figure, how it must compare with which limit, and whether it does."""

    figure: str
    value: float
    sign: str = ""
    limit: float = 0

    @property
    def met(self) -> bool:
        """Whether the limit is kept; there need not be one."""
        return {"": True, "<=": self.value <= self.limit, "==": self.value == self.limit}[self.sign]

    def show(self) -> None:
        """Print it."""
        verdict = f"{self.sign} {self.limit:g}  {'met' if self.met else 'MISSED'}" if self.sign else ""
        print(f"{self.figure:<72} {self.value:>9.4g}  {verdict}", flush=True)


def opened(plan: Plan) -> Gate:
    """Return a gate that has measured nothing yet."""
    return Gate(plan, today=datetime.now(UTC).date())


def timed(run: Callable[..., T], *given: object) -> tuple[T, float]:
    """Return what a call gives, and the seconds that it took."""
    began = time.perf_counter()
    found = run(*given)
    return found, time.perf_counter() - began


def ten_points_off(truth: Mapping[str, float]) -> dict[str, float]:
    """Return a limit for each case: 10 points below the truth and above it in turn, or where a limit may lie at all."""
    limits = {}
    for index, (case, value) in enumerate(truth.items()):
        below, above = value - OFF, value + OFF
        limits[case] = below if (index % 2 == 0 and below > 0) or above > 1 else above
    return limits


def scripted(module: torch.nn.Module, test: Samples, shift: Shift, package: Published, steps: int) -> float:
    """Return an accuracy as the script finds it."""
    images = test.images[:]
    if shift.corruption is not None and shift.severity is not None:
        images = package.corrupt(images, shift.corruption, shift.severity)[0]
    attack, right = library_attack(module, shift, steps), 0
    for start in range(0, len(test), BATCH):
        labels = torch.from_numpy(test.labels[start : start + BATCH])
        batch = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).contiguous().float() / 255
        if attack is not None:
            batch = attack(batch, labels)
        with torch.no_grad():
            right += int((module(batch).argmax(1) == labels).sum())
    return right / len(test)


def library_attack(module: torch.nn.Module, shift: Shift, steps: int) -> Any:
    """Return the attack of torchattacks that does what a shift does, or None."""
    if shift.attack is None:
        return None
    method, eps = ATTACKS[shift.attack]
    if method == "fgsm":
        return torchattacks.FGSM(module, eps=eps)
    # The steps are as long as Foolbox's.
    return torchattacks.PGD(module, eps=eps, alpha=2.5 * eps / steps, steps=steps)


def race(
    truth: Gate, plans: tuple[Plan, Plan], test: Samples, limits: Mapping[str, float], variants: int, steps: int
) -> list[Row]:
    """Let the gate in full, the gate with early stop and the script take turns, case by case."""
    rows = []
    full, early = map(opened, plans)
    with Published() as package:
        for name in CORRUPTIONS:  # what it compiles or loads once is not the script's fault
            package.corrupt(test.images[:2], name, 1)
        for case in truth.plan.cases:
            whole, full_s = timed(full.result, case)
            some, early_s = timed(early.result, case)
            value = script_s = None
            if case.variant in truth.plan.variants[:variants]:
                module = truth.subject(case.variant).differentiable()
                value, script_s = timed(scripted, module, test, case.shift, package, steps)
            limit = limits[case.name]
            script = None if value is None else "pass" if value >= limit else "fail"
            verdicts = (whole.verdict, some.verdict, script)
            seconds = (full_s, early_s, script_s)
            rows.append(Row(case.name, known(whole), limit, *verdicts, some.n, value, *seconds))
            show(rows[-1])
    return rows


def known(result: CaseResult) -> float:
    """Return the accuracy that was measured."""
    if result.value is None:
        raise RuntimeError(f"{result.name} was not measured: {result.message}")
    return result.value


def show(row: Row) -> None:
    """Print a case."""
    script = (
        "" if row.script_s is None else f"{100 * (row.script_value or 0):6.2f} {row.script:<5} {row.script_s:7.2f} s"
    )
    print(
        f"{row.case:<47} {100 * row.truth:6.2f} {100 * row.limit:6.2f}  {row.full:<5} {row.full_s:7.2f} s  "
        f"{row.early:<9} {row.n:>5} {row.early_s:7.2f} s  {script}",
        flush=True,
    )


def run_suite(file: Path) -> tuple[dict[str, str], float]:
    """Run the shipped suite by pytest; return each case's verdict, and the seconds from start to end."""
    report = file.with_name("report")
    words = ["--pyargs", "robustness_tests", "--robustgate-config", str(file), "--robustgate-report", str(report), "-q"]
    command = [sys.executable, "-c", SUITE, *words, "-p", "no:cacheprovider"]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if not (report / "results.json").exists():
        raise RuntimeError(f"the suite wrote no results:\n{done.stdout}{done.stderr}")
    return {case.name: case.verdict for case in results_json.load(report / "results.json").cases}, seconds


class Replayed(Measurements):
    """What was measured before, in split order, drawn in the order of this plan's seed."""

    def __init__(self, plan: Plan, before: Gate, whole: Mapping[str, Measured]) -> None:
        super().__init__(plan, before.foundry)
        self.whole = whole

    def of(self, case: Case, figure: Figure | None = None, upto: int | None = None) -> Measured:  # noqa: ARG002
        """Return the outcome of the first samples drawn."""
        return Some(whole=self.whole[case.name], rows=self.drawn(case)[:upto])


def seeded(plan: Plan, seed: int) -> Plan:
    """Return the plan of a run with another seed."""
    configuration = plan.configuration
    return replace(plan, configuration=replace(configuration, gate=replace(configuration.gate, seed=seed)))


def repeated(truth: Gate, plan: Plan, limits: Mapping[str, float], seeds: int) -> list[Line]:
    """Judge the same outcomes in the orders of many seeds; say how many runs have a verdict that is not "pass"."""
    cases = [case for case in plan.cases if case.name in limits]
    whole = {case.name: truth.measurements.in_split_order(case, truth.measurements.of(case))[0] for case in cases}
    wrong, wrong_few, shares = 0, 0, []
    first: list[tuple[str, int]] = []
    for seed in range(1, seeds + 1):
        gate = opened(seeded(plan, seed))
        gate.foundry = truth.foundry  # the model is unchanged
        gate.measurements = gate.stopping.measurements = Replayed(gate.plan, truth, whole)
        results = [gate.result(case) for case in cases]
        first = first or [(result.verdict, result.n) for result in results]
        wrong += any(result.verdict != "pass" for result in results)
        few = [whole[case.name].outcome.correct[gate.measurements.drawn(case)[:FEW]].mean() for case in cases]
        wrong_few += any(value < limit for value, limit in zip(few, limits.values(), strict=True))
        shares += [result.n / result.n_total for result in results]
    anew = opened(seeded(plan, 1))
    same = sum((one.verdict, one.n) == then for one, then in zip(map(anew.result, cases), first, strict=True))
    title = f"runs of {seeds} with a wrong verdict, {len(cases)} cases each"
    return [
        Line(title, wrong, "<=", WRONG_RUNS * seeds),
        Line(f"the same by the accuracy of the first {FEW} images alone", wrong_few),
        Line("samples that these runs used, median, %", 100 * statistics.median(shares)),
        Line("cases of seed 1 that end alike when measured anew", same, "==", len(cases)),
    ]


def compared(rows: list[Row]) -> list[Line]:
    """Return the figures of the race."""
    full, early = sum(row.full_s for row in rows), sum(row.early_s for row in rows)
    both = [row for row in rows if row.script_s is not None]
    script, beside = sum(row.script_s or 0 for row in both), sum(row.early_s for row in both)
    known_verdicts = sum(row.full == ("pass" if row.limit < row.truth else "fail") for row in rows)
    by_script = f"the script, on {len(both)} of {len(rows)} cases"
    return [
        Line("in full: cases with the verdict that their limit was made for", known_verdicts, "==", len(rows)),
        Line("early stop: cases with the same verdict", sum(row.early == row.full for row in rows), "==", len(rows)),
        Line("in full, s", full),
        Line("early stop, s", early),
        Line("early stop, % of the time in full", 100 * early / full, "<=", 30),
        Line("samples that early stop used, median, n", statistics.median(row.n for row in rows)),
        Line(f"{by_script}, s", script),
        Line("the script: cases with the same verdict", sum(row.script == row.full for row in both), "==", len(both)),
        Line("early stop, % of the script's time on its cases", 100 * beside / script, "<=", 10),
        Line("in full, % of the script's time on its cases", 100 * sum(row.full_s for row in both) / script),
    ]


def measured(folder: Path, images: int, seeds: int, variants: int, steps: int) -> tuple[list[Row], list[Line]]:
    """Measure all of it, and print it as it comes."""
    test = write_data(folder, images)
    truth = opened(make_plan(load(write_configuration(folder, "truth", {}, steps))))
    cases = truth.plan.cases
    print(f"{len(cases)} cases, {images} images: the truth first", flush=True)
    values = {case.name: known(truth.result(case)) for case in cases}
    limits = ten_points_off(values)
    full = write_configuration(folder, "full", limits, steps)
    early = write_configuration(folder, "early", limits, steps, early_stop=True)
    print("case, accuracy, limit | in full | early stop, images used | script's accuracy, verdict", flush=True)
    rows = race(truth, (make_plan(load(full)), make_plan(load(early))), test, limits, variants, steps)
    lines = compared(rows)
    verdicts, seconds = run_suite(write_configuration(folder, "suite", limits, steps, early_stop=True))
    lines.append(Line("early stop as a user runs it, by pytest, with its report, s", seconds))
    same = sum(verdicts[row.case] == row.full for row in rows)
    lines.append(Line("by pytest: cases with the same verdict", same, "==", len(rows)))
    steady = [
        case.name
        for case in cases
        if case.variant.compression == REFERENCE
        and (case.shift.corruption or case.shift.attack or case.shift.kind) in WITHOUT_RANDOMNESS
    ]
    clear = {name: values[name] - CLEAR for name in steady if values[name] > CLEAR}
    plan = make_plan(load(write_configuration(folder, "repeat", clear, steps, early_stop=True)))
    lines += repeated(truth, plan, clear, seeds)
    return rows, lines


def main() -> int:
    """Measure, print, and say by the exit status whether the limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--scripted", type=int, default=2, help="variants that the script sees, the first ones")
    parser.add_argument("--quick", action="store_true", help="a trial: 300 images, 5 seeds, 5 steps, one variant")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not (DATA / "cifar").is_dir():
        parser.error("ROBUSTGATE_DATA must name the folder of real data")
    torch.set_num_threads(1)
    severity.SMALL_SIDE = 0  # "auto" then takes what `imagecorruptions` has
    size = (300, 5, 1, 5) if arguments.quick else (arguments.images, arguments.seeds, arguments.scripted, STEPS)
    with tempfile.TemporaryDirectory() as place:
        rows, lines = measured(Path(place), *size)
    print()
    for line in lines:
        line.show()
    if arguments.json:
        found = {"cases": [asdict(row) for row in rows], "figures": [{**asdict(one), "met": one.met} for one in lines]}
        arguments.json.write_text(json.dumps(found, indent=1))
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
