"""The gate of one run: plan in, measured and judged cases out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from robustgate.attacks.gradient_free import GradientFree
from robustgate.config import RunRule
from robustgate.core.components import Reading, Samples, Timed
from robustgate.core.errors import ConfigurationError
from robustgate.core.files import write_whole
from robustgate.core.records import REFERENCE, Case, CaseResult, Finding, Variant, VariantRecord
from robustgate.core.seeds import derive
from robustgate.engine.adversarial import Terms, measure_adversarial
from robustgate.engine.arena import Caps
from robustgate.engine.artifacts import Foundry
from robustgate.engine.bench import isolated
from robustgate.engine.data import Library, as_tensor
from robustgate.engine.examples import Examples, export
from robustgate.engine.figures import (
    FIGURES,
    Figure,
    Part,
    measure_transferred,
    missing_gradient,
    worst_attack,
    worst_figure,
)
from robustgate.engine.identity import component_identity
from robustgate.engine.judge import Counted, judge_case, judge_variant
from robustgate.engine.judge_masking import judge_masking
from robustgate.engine.latency import Rounds, one_by_one, time_in_turn
from robustgate.engine.masking import MaskingChecks, measure_masking
from robustgate.engine.measure import Outcome, Progress, measure_natural
from robustgate.engine.memory import UNMEASURED, Probe, peak_memory
from robustgate.engine.pictures import pictures
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
        # Looked for once for each variant, by a gradient on two images.
        self.missing_gradient = lru_cache(maxsize=None)(self._missing_gradient)
        self.terms = Terms(
            size=configuration.gate.batch,
            caps=Caps(queries=configuration.gate.attack_queries, seconds=configuration.gate.attack_seconds),
            mixed=configuration.gate.mixed_precision and self.device.type == "cuda",
        )
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
        judged = (rules, self.plan.policy, self.today)
        if case.shift.kind == "masking":
            tolerance = self.plan.configuration.masking.tolerance
            result = judge_masking(case, counted, outcome.details, tolerance, *judged)
        else:
            result = judge_case(case, counted, opponents, *judged)
        seconds = round(time.perf_counter() - began, 3)
        seen = pictures(self._folder(key), outcome, self._samples(case))
        return replace(result, details=outcome.details, pictures=seen, measurement=key, cached=cached, seconds=seconds)

    def export_examples(self, case: Case, folder: Path) -> Path:
        """Write an attacked case's adversarial examples into ``folder/<case's name>.npz``; see `examples.export`.

        Returns the file. Raises RobustgateError.
        """
        with steady(self.plan.configuration.gate.threads):
            outcome, key, _ = self._outcome(case)
        path = folder / f"{case.name}.npz"
        export(self._folder(key), outcome, self._samples(case), path)
        return path

    def _folder(self, key: str) -> Path:
        return self.store.folder / "measurements" / key

    def _counted(self, case: Case) -> Counted:
        outcome, _, _ = self._outcome(case)
        classes = self.library.samples(case.variant.source, "test").classes
        return Counted(correct=outcome.correct, labels=outcome.labels, classes=classes)

    def _outcome(self, case: Case, figure: Figure | None = None) -> tuple[Outcome, str, bool]:
        """Return a case's outcome, the key that it is kept under, and whether it was kept from before."""
        name = f"{case.shift.kind}/{case.name}" + (f"/{figure}" if figure else "")
        if name not in self._outcomes:
            samples = self._samples(case)

            def build(folder: Path) -> None:
                with isolated(derive(self.plan.configuration.gate.seed, "measure", case.name)):
                    outcome = self._measure(case, samples, folder, figure)
                outcome.save(folder / OUTCOMES)
                write_whole(folder / DETAILS, json.dumps(outcome.details, sort_keys=True))

            folder, cached = self.store.entry("measurements", self._identity(case, figure), build)
            # What another worker of this run has measured meanwhile is not from before.
            cached = cached and (folder / SEAL).stat().st_mtime < self.opened
            details = json.loads((folder / DETAILS).read_text(encoding="utf-8"))
            self._outcomes[name] = Outcome.load(folder / OUTCOMES, details), folder.name, cached
        return self._outcomes[name]

    def _part(self, case: Case, figure: Figure | None = None) -> Part:
        outcome, key, _ = self._outcome(case, figure)
        return Part(outcome=outcome, folder=self._folder(key))

    def _parts(self, case: Case) -> dict[str, tuple[Case, Figure | None]]:
        """Return what a case is the worst of, sample by sample; nothing where it is measured as it stands.

        That is the attacks of a union; or the figures of a white-box attack on an artifact whose gradient is not its
        own, without the twin's where it has none at all.
        """
        if case.shift.kind != "adversarial":
            return {}
        if joined := self.plan.joined(case):
            return {name: (one, None) for name, one in joined.items()}
        missing = self.missing_gradient(case.variant)
        own = self.foundry.subject(case.variant).has_own_gradient and missing is None
        if own or not self._component(case).needs_gradient:
            return {}
        return {figure: (case, figure) for figure in FIGURES if figure != "twin" or missing is None}

    def _missing_gradient(self, variant: Variant) -> str | None:
        return missing_gradient(self.foundry.subject(variant), self.foundry.example(variant.source))

    def _samples(self, case: Case) -> Samples:
        if case.shift.target is not None:
            return self.library.target(case.variant.source, case.shift.target)
        return self.library.samples(case.variant.source, "test")

    def _digest(self, case: Case) -> str:
        if case.shift.target is not None:
            return self.library.digest(case.shift.target, "whole")
        return self.library.digest(case.variant.source, "test")

    def _component(self, case: Case, figure: Figure | None = None) -> Any:
        configuration = self.plan.configuration
        if case.shift.corruption is not None:
            return configuration.corruptions[case.shift.corruption]
        if case.shift.kind == "masking":
            return MaskingChecks.of(case.shift, configuration.masking)
        if case.shift.attack is None or case.shift.attack in configuration.unions:
            return configuration.unions.get(case.shift.attack or "")
        attack = configuration.attacks[case.shift.attack]
        if figure != "gradient_free":
            return attack
        return GradientFree(eps=attack.eps, norm=attack.norm, queries=configuration.gate.gradient_free_queries)

    def _identity(self, case: Case, figure: Figure | None = None) -> dict[str, Any]:
        source = case.variant.source
        identity = {
            "artifact": self.foundry.artifact(case.variant).folder.name,
            # The code of a network is not in its file: a change of it shows in what it answers.
            "answers": fingerprint(self.foundry.subject(case.variant), self.foundry.example(source)),
            "data": self._digest(case),
            "classes": self.library.samples(source, "test").classes,
            "kind": case.shift.kind,
            "component": component_identity(self._component(case, figure)),
            "severity": case.shift.severity,
            "seed": self._seed(case, figure),
            "device": self.device.type,
            # Moved to a machine whose 8-bit products are otherwise, a cache does not speak for it.
            "processor": processor(),
            "threads": self.plan.configuration.gate.threads,
            "code": code_version(),
        }
        if case.shift.kind in ("adversarial", "masking"):
            identity |= {"figure": figure, "batch": self.terms.size, "mixed_precision": self.terms.mixed}
        if figure == "transferred":
            identity["reference"] = self._identity(self.plan.opponents(case)["reference"])
        if figure is None and (parts := self._parts(case)):
            identity["parts"] = {name: self._identity(*part) for name, part in parts.items()}
        return identity

    def _seed(self, case: Case, figure: Figure | None = None) -> int:
        """Return the seed of a case's stream; for a corruption the same for all variants, whose drops are paired.

        So it is for the checks of masking: they ask all variants about the same samples.

        The gradient-free figure is that of a budget, not of an attack: it is measured once for all that share it.
        """
        shift = case.shift
        shared = shift.kind in ("corruption", "masking")
        names: tuple[str, ...] = (case.variant.source, shift.name) if shared else (case.name,)
        if figure == "gradient_free":
            names = (case.variant.name, figure, str(shift.norm), str(shift.eps))
        return derive(self.plan.configuration.gate.seed, shift.kind, *names)

    def _measure(self, case: Case, samples: Samples, folder: Path, figure: Figure | None) -> Outcome:
        if case.shift.kind == "adversarial":
            height, width, channels = samples.images.shape[1:]
            with Examples(folder, len(samples), (channels, height, width)) as examples:
                return self._attacked(case, samples, figure, examples)
        subject, component, progress = self.foundry.subject(case.variant), self._component(case), self._progress(case)
        if case.shift.kind == "masking":
            missing, seed = self.missing_gradient(case.variant), self._seed(case)
            given = (subject, samples, case.name, progress, component, seed)
            return measure_masking(*given, terms=self.terms, missing=missing)
        corruption = (component, int(case.shift.severity or 0), self._seed(case)) if case.shift.corruption else None
        return measure_natural(subject, samples, case.name, progress, corruption)

    def _attacked(self, case: Case, samples: Samples, figure: Figure | None, examples: Examples) -> Outcome:
        component = self._component(case, figure)
        if figure is None and (named := self._parts(case)):
            parts = {name: self._part(*part) for name, part in named.items()}
            if case.shift.attack in self.plan.configuration.unions:
                return worst_attack(parts, comparable=case.shift.norm is not None, examples=examples)
            return worst_figure(parts, component, self.missing_gradient(case.variant), examples)
        given = (self.foundry.subject(case.variant), samples, case.name, self._progress(case), component)
        if figure == "transferred":
            reference = self._part(self.plan.opponents(case)["reference"])
            return measure_transferred(*given, reference, terms=self.terms, examples=examples)
        return measure_adversarial(*given, self._seed(case, figure), terms=self.terms, examples=examples)

    def _progress(self, case: Case) -> Progress:
        return lambda done, total: self.progress(case, done, total) if self.progress else None


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
