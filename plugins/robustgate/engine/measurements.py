"""What a case's samples came to: measured once, kept by content hash."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from robustgate.attacks.gradient_free import GradientFree
from robustgate.core.components import Samples
from robustgate.core.files import write_whole
from robustgate.core.records import Case, Variant
from robustgate.core.seeds import derive
from robustgate.engine.adversarial import Terms, measure_adversarial
from robustgate.engine.arena import Caps
from robustgate.engine.artifacts import Foundry
from robustgate.engine.bench import isolated
from robustgate.engine.data import Part as DataPart
from robustgate.engine.examples import Examples
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
from robustgate.engine.masking import MaskingChecks, measure_masking
from robustgate.engine.measure import Outcome, Progress, measure_natural
from robustgate.engine.plan import Plan
from robustgate.engine.processor import processor
from robustgate.engine.stability import chosen, measure_stability
from robustgate.engine.store import SEAL, code_version
from robustgate.engine.subjects import fingerprint

OUTCOMES, DETAILS = "outcomes.npz", "details.json"


class Measurements:
    """The measurements of a plan's cases; `progress` hears (case, samples done, samples in all)."""

    def __init__(self, plan: Plan, foundry: Foundry, progress: Callable[[Case, int, int], None] | None = None) -> None:
        gate = plan.configuration.gate
        self.plan = plan
        self.foundry = foundry
        self.library = foundry.library
        self.progress = progress
        self.opened = time.time()
        # Looked for once for each variant, by a gradient on two images.
        self.missing_gradient = lru_cache(maxsize=None)(self._missing_gradient)
        self.terms = Terms(
            size=gate.batch,
            caps=Caps(queries=gate.attack_queries, seconds=gate.attack_seconds),
            mixed=gate.mixed_precision and foundry.device.type == "cuda",
        )
        self._known: dict[str, Part] = {}

    def of(self, case: Case, figure: Figure | None = None) -> Part:
        """Return a case's measurement, or that of one of its figures; measured where it is not kept.

        Raises RobustgateError.
        """
        name = f"{case.shift.kind}/{case.name}" + (f"/{figure}" if figure else "")
        if name not in self._known:
            samples = self.samples(case)

            def build(folder: Path) -> None:
                with isolated(derive(self.plan.configuration.gate.seed, "measure", case.name)):
                    outcome = self._measure(case, samples, folder, figure)
                outcome.save(folder / OUTCOMES)
                write_whole(folder / DETAILS, json.dumps(outcome.details, sort_keys=True))

            folder, cached = self.foundry.store.entry("measurements", self._identity(case, figure), build)
            # What another worker of this run has measured meanwhile is not from before.
            cached = cached and (folder / SEAL).stat().st_mtime < self.opened
            details = json.loads((folder / DETAILS).read_text(encoding="utf-8"))
            self._known[name] = Part(outcome=Outcome.load(folder / OUTCOMES, details), folder=folder, cached=cached)
        return self._known[name]

    def samples(self, case: Case) -> Samples:
        """Return the samples that a case is measured on."""
        target = self._target(case)
        if target is not None:
            return self.library.target(case.variant.source, *target)
        samples = self.library.samples(case.variant.source, "test")
        if case.shift.kind == "stability":
            return chosen(samples, self._component(case).samples, self._seed(case))
        return samples

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

    def _digest(self, case: Case) -> str:
        target = self._target(case)
        if target is not None:
            return self.library.target_digest(case.variant.source, *target)
        return self.library.digest(case.variant.source, "test")

    def _target(self, case: Case) -> tuple[str, DataPart] | None:
        """Return the domain, and the part of it, that a case is measured on; None for its source's test split."""
        if case.shift.target is not None:
            return case.shift.target, "whole"
        stored = self.plan.configuration.stored.get(case.variant.source)
        if stored is None or case.shift.corruption is None:
            return None
        return stored, (case.shift.corruption, int(case.shift.severity or 0))

    def _component(self, case: Case, figure: Figure | None = None) -> Any:
        configuration = self.plan.configuration
        if case.shift.corruption is not None:
            return None if self._target(case) else configuration.corruptions[case.shift.corruption]
        if case.shift.kind == "masking":
            return MaskingChecks.of(case.shift, configuration.masking)
        if case.shift.kind == "stability":
            return self.plan.stability_rules[case.name].component
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
            "device": self.foundry.device.type,
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

        So it is for the checks of masking and the search of a stability rule: they ask all variants about the same
        samples.

        The gradient-free figure is that of a budget, not of an attack: it is measured once for all that share it.
        """
        shift = case.shift
        shared = shift.kind in ("corruption", "masking", "stability")
        names: tuple[str, ...] = (case.variant.source, shift.name) if shared else (case.name,)
        if figure == "gradient_free":
            names = (case.variant.name, figure, str(shift.norm), str(shift.eps))
        return derive(self.plan.configuration.gate.seed, shift.kind, *names)

    def _measure(self, case: Case, samples: Samples, folder: Path, figure: Figure | None) -> Outcome:
        subject, component, progress = self.foundry.subject(case.variant), self._component(case), self._progress(case)
        if case.shift.kind in ("adversarial", "stability"):
            height, width, channels = samples.images.shape[1:]
            with Examples(folder, len(samples), (channels, height, width)) as examples:
                if case.shift.kind == "adversarial":
                    return self._attacked(case, samples, figure, examples)
                return measure_stability(subject, samples, case.name, progress, component, self._seed(case), examples)
        if case.shift.kind == "masking":
            missing, seed = self.missing_gradient(case.variant), self._seed(case)
            given = (subject, samples, case.name, progress, component, seed)
            return measure_masking(*given, terms=self.terms, missing=missing)
        target = self._target(case)
        generated = case.shift.corruption is not None and target is None
        corruption = (component, int(case.shift.severity or 0), self._seed(case)) if generated else None
        outcome = measure_natural(subject, samples, case.name, progress, corruption)
        if generated and (caution := getattr(component, "caution", "")):
            outcome.details["caution"] = caution
        if target is not None:
            outcome.details.update(self.library.target_details(case.variant.source, *target))
        if target is not None and case.shift.corruption is not None:
            outcome.details["stored_benchmark"] = target[0]
        return outcome

    def _attacked(self, case: Case, samples: Samples, figure: Figure | None, examples: Examples) -> Outcome:
        component = self._component(case, figure)
        if figure is None and (named := self._parts(case)):
            parts = {name: self.of(*part) for name, part in named.items()}
            if case.shift.attack in self.plan.configuration.unions:
                return worst_attack(parts, comparable=case.shift.norm is not None, examples=examples)
            return worst_figure(parts, component, self.missing_gradient(case.variant), examples)
        given = (self.foundry.subject(case.variant), samples, case.name, self._progress(case), component)
        if figure == "transferred":
            reference = self.of(self.plan.opponents(case)["reference"])
            return measure_transferred(*given, reference, terms=self.terms, examples=examples)
        return measure_adversarial(*given, self._seed(case, figure), terms=self.terms, examples=examples)

    def _progress(self, case: Case) -> Progress:
        return lambda done, total: self.progress(case, done, total) if self.progress else None
