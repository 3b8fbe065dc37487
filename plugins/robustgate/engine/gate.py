"""The gate of one run: plan in, measured and judged cases out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from robustgate.config import RunRule
from robustgate.core.components import OutcomeRule, Reading, StabilityRule, Timed
from robustgate.core.errors import ConfigurationError, RobustgateError
from robustgate.core.records import REFERENCE, Case, CaseResult, Finding, Shift, Variant, VariantRecord
from robustgate.core.seeds import derive
from robustgate.engine.artifacts import Foundry
from robustgate.engine.data import Library, as_tensor
from robustgate.engine.examples import export
from robustgate.engine.judge import Counted, judge_case, judge_variant
from robustgate.engine.judge_masking import judge_masking
from robustgate.engine.judge_overall import judge_overall, unjudged
from robustgate.engine.judge_stability import judge_stability
from robustgate.engine.latency import Rounds, one_by_one, time_in_turn
from robustgate.engine.measure import Outcome
from robustgate.engine.measurements import Measurements
from robustgate.engine.memory import UNMEASURED, Probe, peak_memory
from robustgate.engine.pictures import pictures
from robustgate.engine.plan import Plan
from robustgate.engine.results import rules_of
from robustgate.engine.shares import MeasuredShares, Predicted
from robustgate.engine.store import Store
from robustgate.engine.subjects import Subject

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
        store = Store(configuration.gate.cache)
        self.library = Library(configuration.domains, store, configuration.matchings.values())
        self.foundry = Foundry(configuration, plan.chains, store, self.library, self.device)
        self.measurements = Measurements(plan, self.foundry, progress)

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

    def overall(self, variant: Variant) -> tuple[VariantRecord, tuple[Finding, ...]]:
        """Apply the rules on a variant's outcomes over its shifts; the cases that they need are measured.

        Where one of them cannot be, the finding is incomplete and says why. Raises RobustgateError.
        """
        findings = tuple(self._over_shifts(variant, rule) for rule in rules_of("overall", self._rules(variant)))
        return self.record(variant), findings

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

    def _over_shifts(self, variant: Variant, rule: RunRule) -> Finding:
        component = cast("OutcomeRule", rule.component)
        shifts = component.needs(self.plan.shifts(variant))
        try:
            shares = self._shares(variant, shifts, self.plan.references(variant.source) if component.standards else ())
        except RobustgateError as error:
            return unjudged(variant, rule, str(error))
        return judge_overall(variant, rule, shares, shifts, self.plan.policy, self.today)

    def _shares(self, variant: Variant, shifts: Sequence[Shift], standards: Sequence[Variant]) -> MeasuredShares:
        """Measure a variant and its reference under some shifts, and the accuracies of other uncompressed models."""

        def outcome(of: Variant, shift: Shift) -> Outcome:
            return self.measurements.of(Case(variant=of, shift=shift)).outcome

        predicted, accuracies = {}, {}
        with steady(self.plan.configuration.gate.threads):
            for shift in shifts:
                ours, reference = outcome(variant, shift), outcome(reference_of(variant), shift)
                given = {"predictions": ours.predictions, "reference": reference.predictions}
                predicted[shift] = Predicted(labels=ours.labels, **given)
                accuracies[shift] = np.array([outcome(one, shift).correct.mean() for one in standards])
        seed = derive(self.plan.configuration.gate.seed, "bootstrap", variant.name)
        classes = self.library.samples(variant.source, "test").classes
        return MeasuredShares(classes=classes, predicted=predicted, accuracies=accuracies, seed=seed)

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
            measured = self.measurements.of(case)
            counted = self._counted(case)
            opponents = {name: self._counted(opponent) for name, opponent in self.plan.opponents(case).items()}
        judged = (rules, self.plan.policy, self.today)
        if case.shift.kind == "masking":
            tolerance = self.plan.configuration.masking.tolerance
            result = judge_masking(case, counted, measured.outcome.details, tolerance, *judged)
        elif case.shift.kind == "stability":
            rule = self.plan.stability_rules[case.name]
            given = (rule.name, cast("StabilityRule", rule.component), self.plan.policy, self.today)
            result = judge_stability(case, counted, measured.outcome.details, *given)
        else:
            result = judge_case(case, counted, opponents, *judged)
        seconds = round(time.perf_counter() - began, 3)
        return replace(
            result,
            details=measured.outcome.details,
            pictures=pictures(measured.folder, measured.outcome, self.measurements.samples(case)),
            measurement=measured.folder.name,
            cached=measured.cached,
            seconds=seconds,
        )

    def export_examples(self, case: Case, folder: Path) -> Path:
        """Write an attacked case's adversarial examples into ``folder/<case's name>.npz``; see `examples.export`.

        Returns the file. Raises RobustgateError.
        """
        with steady(self.plan.configuration.gate.threads):
            measured = self.measurements.of(case)
        path = folder / f"{case.name}.npz"
        export(measured.folder, measured.outcome, self.measurements.samples(case), path)
        return path

    def _counted(self, case: Case) -> Counted:
        outcome = self.measurements.of(case).outcome
        classes = self.library.samples(case.variant.source, "test").classes
        # Under attack each variant sees images of its own, as in a search, and is asked about its own for masking.
        same = case.shift.kind not in ("adversarial", "masking", "stability")
        predictions = outcome.predictions if same else None
        return Counted(correct=outcome.correct, labels=outcome.labels, classes=classes, predictions=predictions)


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
