"""The gate of one run: plan in, measured and judged cases out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from robustgate.config import RunRule
from robustgate.core.components import Reading, Samples, Timed
from robustgate.core.errors import ConfigurationError
from robustgate.core.files import write_whole
from robustgate.core.records import REFERENCE, Case, CaseResult, Finding, Variant, VariantRecord
from robustgate.core.seeds import derive
from robustgate.engine.adversarial import measure_adversarial
from robustgate.engine.artifacts import Foundry
from robustgate.engine.bench import isolated
from robustgate.engine.data import Library, as_tensor
from robustgate.engine.identity import component_identity
from robustgate.engine.judge import Counted, judge_case, judge_variant
from robustgate.engine.latency import Rounds, one_by_one, time_in_turn
from robustgate.engine.measure import Outcome, Progress, measure_natural
from robustgate.engine.memory import UNMEASURED, Probe, peak_memory
from robustgate.engine.plan import Plan
from robustgate.engine.processor import processor
from robustgate.engine.results import rules_of
from robustgate.engine.store import SEAL, Store, code_version
from robustgate.engine.subjects import Subject, fingerprint

OUTCOMES, DETAILS = "outcomes.npz", "details.json"
BATCH = 32


class Gate:
    """Measures and judges the cases of a plan, each once; `progress` hears (case, samples done, samples in all)."""

    def __init__(
        self,
        plan: Plan,
        *,
        today: date,
        device: str | None = None,
        progress: Callable[[Case, int, int], None] | None = None,
    ) -> None:
        configuration = plan.configuration
        self.plan = plan
        self.today = today
        self.device = resolve_device(device or configuration.gate.device)
        self.progress = progress
        self.opened = time.time()
        self.library = Library(configuration.domains)
        self.store = Store(configuration.gate.cache)
        self.foundry = Foundry(configuration, plan.chains, self.store, self.library, self.device)
        self._outcomes: dict[str, tuple[Outcome, str, bool]] = {}

    def subject(self, variant: Variant) -> Subject:
        """Build or fetch a variant and load it. Raises RobustgateError."""
        with steady(self.plan.configuration.gate.threads):
            return self.foundry.subject(variant)

    def record(self, variant: Variant) -> VariantRecord:
        """Build or fetch a variant and return what is known of it, unmeasured. Raises RobustgateError."""
        with steady(self.plan.configuration.gate.threads):
            record = self.foundry.artifact(variant).record
            reference = self.foundry.artifact(reference_of(variant)).record
        return replace(record, compression_ratio=reference.deflated_bytes / record.deflated_bytes)

    def cost(self, variant: Variant) -> tuple[VariantRecord, tuple[Finding, ...]]:
        """Apply the rules on a variant's exact figures and its memory, which is measured where a rule asks for it.

        Raises RobustgateError.
        """
        rules, record = rules_of("cost", self._rules(variant)), self.record(variant)
        if any(rule.component.measures == "memory" for rule in rules):
            record = replace(record, memory_bytes=peak_memory(self._probe(variant)))
        unmeasured = {"memory": UNMEASURED, None: "the weights in its file, or in its reference's, cannot be counted"}
        return record, self._judged(record, variant, rules, unmeasured)

    def latency(
        self, variant: Variant, rounds: Rounds = one_by_one, unmeasured: str = ""
    ) -> tuple[VariantRecord, tuple[Finding, ...]]:
        """Time a variant in turn with its reference and apply the rules on latency.

        A single image, through `rounds`, and the batches that the rules name, or else 32. The caller sees to it that
        nothing else runs; where it cannot, `unmeasured` says why, and nothing is timed. Raises RobustgateError.
        """
        rules, record = rules_of("latency", self._rules(variant)), self.record(variant)
        if not unmeasured:
            sizes = {1, *(cast("Timed", rule.component).batch for rule in rules)}
            batches = {size: self._batch(variant.source, size) for size in (sizes if len(sizes) > 1 else {1, BATCH})}
            with steady(self.plan.configuration.gate.threads):
                subjects = self.foundry.subject(variant), self.foundry.subject(reference_of(variant))
                timings = time_in_turn(*subjects, batches, self.plan.policy.confidence, rounds)
            record = replace(record, latency_ms=timings[0].median_ms, timings=timings)
        return record, self._judged(record, variant, rules, {"latency": unmeasured})

    def _rules(self, variant: Variant) -> tuple[RunRule, ...]:
        return self.plan.run_rules.get(variant.name, ())

    def _judged(
        self, record: VariantRecord, variant: Variant, rules: tuple[RunRule, ...], unmeasured: Mapping[str | None, str]
    ) -> tuple[Finding, ...]:
        reference = self.record(reference_of(variant))
        return judge_variant(record, reference, rules, self.plan.policy, self.today, unmeasured)

    def _probe(self, variant: Variant) -> Probe:
        artifact = self.foundry.artifact(variant)
        _, channels, height, width = self.foundry.example(variant.source).shape
        return Probe(
            name=variant.name,
            path=artifact.file,
            shape=(channels, height, width),
            threads=self.plan.configuration.gate.threads,
            architecture=artifact.architecture,
            reading=artifact.reading or Reading(),
        )

    def _batch(self, source: str, size: int) -> Tensor:
        """Return a batch of test images of a domain; a domain of fewer images repeats them."""
        samples = self.library.samples(source, "test")
        return as_tensor(samples, np.arange(size) % len(samples), self.device)[0]

    def result(self, case: Case) -> CaseResult:
        """Measure a case, and what its rules compare it with, and judge it. Raises RobustgateError."""
        began = time.perf_counter()
        if self.progress:
            self.progress(case, 0, 0)  # its variant may have to be built first
        rules = self.plan.case_rules.get(case.name, ())
        with steady(self.plan.configuration.gate.threads):
            outcome, key, cached = self._outcome(case)
            counted = self._counted(case)
            opponents = {name: self._counted(opponent) for name, opponent in self.plan.opponents(case).items()}
        result = judge_case(case, counted, opponents, rules, self.plan.policy, self.today)
        seconds = round(time.perf_counter() - began, 3)
        return replace(result, details=outcome.details, measurement=key, cached=cached, seconds=seconds)

    def _counted(self, case: Case) -> Counted:
        outcome, _, _ = self._outcome(case)
        classes = self.library.samples(case.variant.source, "test").classes
        return Counted(correct=outcome.correct, labels=outcome.labels, classes=classes)

    def _outcome(self, case: Case) -> tuple[Outcome, str, bool]:
        """Return a case's outcome, the key that it is kept under, and whether it was kept from before."""
        name = f"{case.shift.kind}/{case.name}"
        if name not in self._outcomes:
            samples = self._samples(case)

            def build(folder: Path) -> None:
                with isolated(derive(self.plan.configuration.gate.seed, "measure", case.name)):
                    outcome = self._measure(case, samples)
                outcome.save(folder / OUTCOMES)
                write_whole(folder / DETAILS, json.dumps(outcome.details, sort_keys=True))

            folder, cached = self.store.entry("measurements", self._identity(case), build)
            # What another worker of this run has measured meanwhile is not from before.
            cached = cached and (folder / SEAL).stat().st_mtime < self.opened
            details = json.loads((folder / DETAILS).read_text(encoding="utf-8"))
            self._outcomes[name] = Outcome.load(folder / OUTCOMES, details), folder.name, cached
        return self._outcomes[name]

    def _samples(self, case: Case) -> Samples:
        if case.shift.target is not None:
            return self.library.target(case.variant.source, case.shift.target)
        return self.library.samples(case.variant.source, "test")

    def _digest(self, case: Case) -> str:
        if case.shift.target is not None:
            return self.library.digest(case.shift.target, "whole")
        return self.library.digest(case.variant.source, "test")

    def _component(self, case: Case) -> Any:
        configuration = self.plan.configuration
        if case.shift.corruption is not None:
            return configuration.corruptions[case.shift.corruption]
        return configuration.attacks[case.shift.attack] if case.shift.attack is not None else None

    def _identity(self, case: Case) -> dict[str, Any]:
        source = case.variant.source
        return {
            "artifact": self.foundry.artifact(case.variant).folder.name,
            # The code of a network is not in its file: a change of it shows in what it answers.
            "answers": fingerprint(self.foundry.subject(case.variant), self.foundry.example(source)),
            "data": self._digest(case),
            "classes": self.library.samples(source, "test").classes,
            "kind": case.shift.kind,
            "component": component_identity(self._component(case)),
            "severity": case.shift.severity,
            "seed": self._seed(case),
            "device": self.device.type,
            # Moved to a machine whose 8-bit products are otherwise, a cache does not speak for it.
            "processor": processor(),
            "threads": self.plan.configuration.gate.threads,
            "code": code_version(),
        }

    def _seed(self, case: Case) -> int:
        """Return the seed of a case's stream; for a corruption the same for all variants, whose drops are paired."""
        names = (case.variant.source, case.shift.name) if case.shift.kind == "corruption" else (case.name,)
        return derive(self.plan.configuration.gate.seed, case.shift.kind, *names)

    def _measure(self, case: Case, samples: Samples) -> Outcome:
        subject, component, seed = self.foundry.subject(case.variant), self._component(case), self._seed(case)
        progress: Progress = lambda done, total: self.progress(case, done, total) if self.progress else None  # noqa: E731
        if case.shift.kind == "adversarial":
            return measure_adversarial(subject, samples, case.name, progress, component, seed)
        corruption = (component, int(case.shift.severity or 0), seed) if case.shift.corruption else None
        return measure_natural(subject, samples, case.name, progress, corruption)


def reference_of(variant: Variant) -> Variant:
    """Return the uncompressed variant of the same model and source domain."""
    return replace(variant, compression=REFERENCE)


def resolve_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` stands for. Raises ConfigurationError."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(["device 'cuda': torch finds no CUDA device here; use 'auto' or 'cpu'"])
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


@contextmanager
def steady(threads: int) -> Iterator[None]:
    """Run a block with settings that decide the last bits of a result, and put the caller's back."""
    cudnn = torch.backends.cudnn
    before = (torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    torch.set_num_threads(threads)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before[1:]
