"""What became of each image: networks built and measured by the engine, one process a task, and kept by the study."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from materials import Place, configuration
from numpy.typing import NDArray
from sharpness import sharpness

from robustgate.core.errors import RobustgateError
from robustgate.core.files import write_whole
from robustgate.core.records import Variant
from robustgate.engine.gate import Gate
from robustgate.engine.packed import pack, unpack
from robustgate.engine.plan import make_plan
from robustgate.engine.processor import processor
from robustgate.engine.store import code_version
from robustgate.engine.subjects import TorchSubject


@dataclass(frozen=True)
class Task:
    """One network of one seed, asked on one part of its setting's test split."""

    seed: int
    setting: str
    model: str
    source: str
    compression: str
    part: str = "whole"

    @property
    def name(self) -> str:
        """Its name among the results."""
        return "/".join([self.setting, self.part, str(self.seed), self.model, self.source, self.compression])


@dataclass
class Results:
    """What is kept of every task: facts of the artifact, and of each shift which images came out right."""

    file: Path
    tasks: dict[str, dict[str, Any]]
    machine: dict[str, Any]

    @staticmethod
    def read(file: Path) -> Results:
        """Return what is kept, nothing where there is no file yet."""
        kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return Results(file, kept.get("tasks", {}), kept.get("machine", {}))

    def add(self, task: Task, found: dict[str, Any]) -> None:
        """Keep what a task found."""
        self.tasks[task.name] = found
        text = json.dumps({"machine": self.machine, "tasks": self.tasks}, indent=0, sort_keys=True)
        write_whole(self.file, text + "\n")

    def has(self, task: Task) -> bool:
        """Say whether a task is done."""
        return task.name in self.tasks

    def right(self, task: Task, shift: str) -> NDArray[np.bool_]:
        """Return which images (N,), in the order of their split, came out right under a shift. Raises KeyError."""
        kept = self.tasks[task.name]["shifts"][shift]
        return unpack(kept["right"], kept["n"])

    def facts(self, task: Task) -> dict[str, Any]:
        """Return what is known of a task's artifact. Raises KeyError."""
        found: dict[str, Any] = self.tasks[task.name]
        return found


def measure(where: Place, task: Task) -> dict[str, Any]:
    """Build a task's network, and ask it about every image of its part under every shift of its kind.

    The whole test split is asked clean, under corruptions and on other domains; what is attacked is attacked, and
    checked for masking.
    """
    # The networks that the configurations name are modules of this folder, which the process has on its path.
    plan = make_plan(configuration(where, task.setting, task.part, task.seed), None)
    variant = _variant(plan.controls, task)
    gate = Gate(plan, today=datetime.now(UTC).date(), device=where.device)
    began = time.perf_counter()
    record = gate.record(variant)
    found: dict[str, Any] = {
        "parameters": record.parameters,
        "bytes": record.deflated_bytes,
        "built_s": record.seconds_to_build,
        "shifts": {},
    }
    subject = gate.subject(variant)
    if isinstance(subject, TorchSubject) and task.part == "whole":
        found["sharpness"] = sharpness(subject.module, gate.library.samples(task.source, "train"), gate.device)
    kinds = ("adversarial", "masking") if task.part == "attacked" else ("clean", "corruption", "domain_shift")
    for case in plan.cases:
        if case.variant != variant or case.shift.kind not in kinds:
            continue
        if case.shift.kind == "masking":
            result = gate.result(case)
            failing = [one.message for one in result.findings if one.verdict == "fail"]
            found.setdefault("masking", {})[case.shift.name] = {"verdict": result.verdict, "failing": failing}
            continue
        outcome = gate.measurements.of(case).outcome
        right = np.empty(len(outcome.labels), dtype=bool)
        right[gate.measurements.drawn(case)] = outcome.correct
        found["shifts"][case.shift.name] = {"n": len(right), "right": pack(right)}
    found["seconds"] = round(time.perf_counter() - began, 1)
    return found


def _variant(controls: Any, task: Task) -> Variant:
    """Return the variant that a task is about; ``control:half`` stands for the control of the compression half."""
    compression = task.compression
    if compression.startswith("control:"):
        compression = controls[compression.removeprefix("control:")]
    return Variant(model=task.model, source=task.source, compression=compression)


def run(
    where: Place, tasks: Iterable[Task], results: Results, *, workers: int, minutes: float, say: Callable[[str], None]
) -> int:
    """Measure the tasks that are not kept yet, in their order, while there is time; return how many are left.

    What is begun when the time is over is finished: a task takes minutes, and what it has measured is kept anyway.
    """
    ends = time.monotonic() + 60 * minutes
    waiting = [task for task in tasks if not results.has(task)]
    running: dict[Future[dict[str, Any]], Task] = {}
    failed = 0
    # A process for each task: what one leaves in memory is no other's; and torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, max_tasks_per_child=1, initializer=os.nice, initargs=(5,)
    ) as pool:
        while running or (waiting and time.monotonic() < ends):
            while waiting and len(running) < workers and time.monotonic() < ends:
                task = waiting.pop(0)
                running[pool.submit(measure, where, task)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    found = future.result()
                except RobustgateError as error:
                    failed += 1
                    say(f"{task.name}: {error}")
                    continue
                results.add(task, found)
                minutes_left = (ends - time.monotonic()) / 60
                say(f"{task.name}: {found['seconds']:.0f} s; {len(waiting)} left, {minutes_left:.0f} min")
    return len(waiting) + failed


def described(where: Place, workers: int) -> dict[str, Any]:
    """Return what computed the results."""
    versions = {
        key: version for key, version in code_version().items() if key in ("torch", "torchvision", "onnxruntime")
    }
    return {"processor": processor(), "workers": workers, "device": where.device, **versions}
