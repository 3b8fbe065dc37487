"""The gate of one run: plan in, measured and judged cases out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from robustgate.config import Policy, RunRule
from robustgate.core.components import OutcomeRule, Reading, Timed
from robustgate.core.errors import ConfigurationError, RobustgateError
from robustgate.core.records import REFERENCE, Case, CaseResult, Finding, Picture, Shift, Variant, VariantRecord
from robustgate.core.seeds import derive
from robustgate.engine.artifacts import Foundry
from robustgate.engine.baseline import WITHOUT_STANDARD, Standards
from robustgate.engine.course import Pupil, unheard
from robustgate.engine.data import Library, as_tensor
from robustgate.engine.example_files import export
from robustgate.engine.judge import joined, judge_case, judge_variant
from robustgate.engine.judge_masking import judge_masking
from robustgate.engine.judge_overall import judge_overall, unjudged
from robustgate.engine.judge_stability import judge_stability
from robustgate.engine.judging import Judging
from robustgate.engine.latency import Durations, Rounds, one_by_one, time_in_turn
from robustgate.engine.measure import Outcome
from robustgate.engine.measured import Measured
from robustgate.engine.measurements import Measurements
from robustgate.engine.memory import UNMEASURED, Probe, peak_memory
from robustgate.engine.packed import pack
from robustgate.engine.pictures import pictures
from robustgate.engine.plan import Plan
from robustgate.engine.progress import Listener, Reached, nobody
from robustgate.engine.results import VariantTest, key, rules_of
from robustgate.engine.shares import MeasuredShares, Predicted
from robustgate.engine.stopping import Seen, Stopping
from robustgate.engine.store import Store
from robustgate.engine.subjects import Subject

BATCH = 32


class Gate:
    """Measures and judges the cases of a plan, each once; `progress` hears how far each is, `pupil` each training.

    `is_selected` says which cases the run is about: a finding that is undecided by itself is judged beside theirs.
    What was measured before `since`, in seconds since the epoch, or else before the gate opened, was kept from before.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        today: date,
        device: str | None = None,
        progress: Listener = nobody,
        pupil: Pupil = unheard,
        is_selected: Callable[[Case], bool] = lambda _: True,
        since: float | None = None,
    ) -> None:
        configuration = plan.configuration
        self.plan = plan
        self.today = today
        self.device = resolve_device(device or configuration.gate.device)
        self.progress = progress
        store = Store(configuration.gate.cache)
        self.library = Library(configuration.domains, store, configuration.matchings.values())
        self.foundry = Foundry(configuration, plan.chains, store, self.library, self.device, pupil)
        self.measurements = Measurements(plan, self.foundry, progress, since)
        standards = Standards(configuration.gate.baseline, configuration.gate.seed, set(map(key, plan.cases)))
        self.stopping = Stopping(plan, self.measurements, standards, is_selected)

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
        record = self.record(variant)
        if any(rule.component.measures == "memory" for rule in self.plan.rules_on(variant)):
            record = replace(record, memory_bytes=peak_memory(self._probe(variant)))
        unmeasured = {"memory": UNMEASURED, None: "the weights in its file, or in its reference's, cannot be counted"}
        return record, self._judged(lambda _: record, variant, "cost", unmeasured)

    def overall(self, variant: Variant) -> tuple[VariantRecord, tuple[Finding, ...]]:
        """Apply the rules on a variant's outcomes over its shifts; the cases that they need are measured.

        Where one of them cannot be, the finding is incomplete and says why. Raises RobustgateError.
        """
        findings = tuple(
            self._over_shifts(variant, rule, judging)
            for judging in self.plan.policies
            for rule in rules_of("overall", judging.run_rules.get(variant.name, ()))
        )
        return self.record(variant), findings

    def latency(
        self, variant: Variant, rounds: Rounds = one_by_one, unmeasured: str = ""
    ) -> tuple[VariantRecord, tuple[Finding, ...]]:
        """Time a variant in turn with its reference and apply the rules on latency.

        A single image, through `rounds`, and the batches that the rules name, or else 32. The caller sees to it that
        nothing else runs; where it cannot, `unmeasured` says why, and nothing is timed. Raises RobustgateError.
        """
        record = self.record(variant)
        durations: tuple[Durations, ...] = ()
        if not unmeasured:
            rules = rules_of("latency", self.plan.rules_on(variant))
            sizes = {1, *(cast("Timed", rule.component).batch for rule in rules)}
            batches = {size: self._batch(variant.source, size) for size in (sizes if len(sizes) > 1 else {1, BATCH})}
            with steady(self.plan.configuration.gate.threads):
                subjects = self.foundry.subject(variant), self.foundry.subject(reference_of(variant))
                strictest = max(judging.policy.confidence for judging in self.plan.policies)
                durations = time_in_turn(*subjects, batches, strictest, rounds)

        def timed(policy: Policy) -> VariantRecord:
            timings = tuple(one.at(policy.confidence) for one in durations)
            return replace(record, latency_ms=timings[0].median_ms, timings=timings) if timings else record

        first = self.plan.policies[0].policy
        return timed(first), self._judged(timed, variant, "latency", {"latency": unmeasured})

    def _over_shifts(self, variant: Variant, rule: RunRule, judging: Judging) -> Finding:
        component = cast("OutcomeRule", rule.component)
        shifts = component.needs(self.plan.shifts(variant))
        try:
            shares = self._shares(variant, shifts, self.plan.references(variant.source) if component.standards else ())
        except RobustgateError as error:
            return unjudged(variant, rule, judging.policy, str(error))
        return judge_overall(
            variant, rule, shares, shifts, judging.policy, self.today, self.stopping.alone[judging.policy.name]
        )

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

    def _judged(
        self,
        record: Callable[[Policy], VariantRecord],
        variant: Variant,
        test: VariantTest,
        unmeasured: Mapping[str | None, str],
    ) -> tuple[Finding, ...]:
        """Apply the rules of each policy that a test judges to what `record` tells, at that policy's confidence."""
        reference = self.record(reference_of(variant))
        return tuple(
            finding
            for judging in self.plan.policies
            for finding in judge_variant(
                record(judging.policy),
                reference,
                rules_of(test, judging.run_rules.get(variant.name, ())),
                judging.policy,
                self.today,
                unmeasured,
            )
        )

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
        self.progress(Reached(case=case))  # its variant may have to be built first
        with steady(self.plan.configuration.gate.threads):
            seen = self.stopping.seen(case)
            measured = self.measurements.of(case, upto=len(seen.counted.correct))
            details = measured.outcome.details
            result = joined([self._result(one, case, seen, details) for one in self.plan.policies])
        counted = seen.counted
        if case.shift.kind not in WITHOUT_STANDARD:
            result = replace(result, data=self.measurements.data_digest(case), right=pack(counted.correct))
        seconds = round(time.perf_counter() - began, 3)
        return replace(
            result,
            details=details,
            pictures=self._pictures(case, measured),
            measurement=self.measurements.key(case),
            cached=measured.cached,
            seconds=seconds,
        )

    def _result(self, judging: Judging, case: Case, seen: Seen, details: Mapping[str, Any]) -> CaseResult:
        """Judge a measured case by one policy."""
        rules, policy, counted = judging.case_rules.get(case.name, ()), judging.policy, seen.counted
        if case.shift.kind == "masking":
            tolerance = self.plan.configuration.masking.tolerance
            sure = self.stopping.alone[judging.policy.name]
            return judge_masking(case, counted, details, tolerance, rules, policy, self.today, sure)
        if case.shift.kind == "stability":
            rule = judging.stability_rules.get(case.name)
            return judge_stability(case, counted, details, rule, policy, self.today)
        confidence = self.stopping.confidence(judging, case, seen)
        return judge_case(case, counted, seen.opponents, rules, policy, self.today, seen.no_baseline, confidence)

    def export_examples(self, case: Case, folder: Path) -> Path:
        """Write an attacked case's adversarial examples into ``folder/<case's name>.npz``; see `examples.export`.

        Returns the file. Raises RobustgateError.
        """
        with steady(self.plan.configuration.gate.threads):
            measured, numbers = self.measurements.in_split_order(case, self.measurements.of(case))
        path = folder / f"{case.name}.npz"
        export(measured, self.measurements.samples(case), numbers, path)
        return path

    def _pictures(self, case: Case, measured: Measured) -> tuple[Picture, ...]:
        if case.shift.kind not in ("adversarial", "stability"):
            return ()
        ordered, numbers = self.measurements.in_split_order(case, measured)
        return pictures(ordered, self.measurements.samples(case), numbers)


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
