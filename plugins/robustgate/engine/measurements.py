"""What a case's samples came to: measured once, kept by content hash."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustgate.attacks.gradient_free import GradientFree
from robustgate.core.components import Samples
from robustgate.core.files import write_whole
from robustgate.core.images import take
from robustgate.core.records import Case, Variant
from robustgate.core.seeds import derive
from robustgate.engine.adversarial import Terms, measure_adversarial, siege_details
from robustgate.engine.arena import Caps
from robustgate.engine.artifacts import Foundry
from robustgate.engine.bench import isolated
from robustgate.engine.data import Part as DataPart
from robustgate.engine.examples import Examples
from robustgate.engine.figures import (
    FIGURES,
    Figure,
    measure_transferred,
    missing_gradient,
    worst_attack,
    worst_figure,
)
from robustgate.engine.identity import component_identity
from robustgate.engine.masking import MaskingChecks, measure_masking
from robustgate.engine.measure import Outcome, Progress, measure_natural
from robustgate.engine.measured import Joined, Measured, Part, Some
from robustgate.engine.plan import Plan
from robustgate.engine.processor import processor
from robustgate.engine.progress import Listener, Reached, nobody
from robustgate.engine.stability import chosen, measure_stability
from robustgate.engine.store import SEAL, code_version
from robustgate.engine.subjects import fingerprint

KIND = "measurements"
OUTCOMES, DETAILS = "outcomes.npz", "details.json"
# What has samples of its own choice, and is measured on all of them together.
AT_ONCE = ("masking", "stability")


@dataclass(frozen=True)
class Drawn:
    """Samples (n,) that are measured together: their `numbers` (n,) in the split, and `rows` (n,) among those drawn.

    `first` were drawn before them.
    """

    samples: Samples
    numbers: NDArray[np.int64]
    first: int
    rows: NDArray[np.int64]


@lru_cache(maxsize=64)
def drawing_order(seed: int, total: int) -> NDArray[np.int64]:
    """Return the order in which `total` samples are drawn in a run of this seed."""
    return np.random.Generator(np.random.PCG64DXSM(derive(seed, "drawing"))).permutation(total)


class Measurements:
    """The measurements of a plan's cases; `progress` hears how far each is.

    What was measured before `since`, in seconds since the epoch, or else before now, was kept from before.
    """

    def __init__(self, plan: Plan, foundry: Foundry, progress: Listener = nobody, since: float | None = None) -> None:
        gate = plan.configuration.gate
        self.plan = plan
        self.foundry = foundry
        self.library = foundry.library
        self.progress = progress
        self.since = time.time() if since is None else since
        # Looked for once for each variant, by a gradient on two images.
        self.missing_gradient = lru_cache(maxsize=None)(self._missing_gradient)
        self.terms = Terms(
            size=gate.batch,
            caps=Caps(queries=gate.attack_queries, seconds=gate.attack_seconds),
            mixed=gate.mixed_precision and foundry.device.type == "cuda",
        )
        self._identities: dict[str, dict[str, Any]] = {}
        self._parts_of: dict[str, list[Part]] = {}
        self._latest: dict[str, Measured] = {}

    def of(self, case: Case, figure: Figure | None = None, upto: int | None = None) -> Measured:
        """Return the measurement of a case, or of one of its figures, on the first `upto` samples that are drawn.

        On all of them where `upto` is not given. What is not kept is measured. Samples are in the order of `drawn`.
        Raises RobustgateError.
        """
        name, count = _name(case, figure), self.total(case) if upto is None else upto
        latest = self._latest.get(name)
        if latest is None or (case.shift.kind not in AT_ONCE and len(latest.outcome.labels) != count):
            latest = self._latest[name] = self._measured(case, figure, count)
        return latest

    def total(self, case: Case) -> int:
        """Return how many samples a case has in all; no image is decoded for it. Raises RobustgateError."""
        if case.shift.kind == "stability":
            return len(self.samples(case))
        target = self._target(case)
        if target is not None:
            return self.library.target_size(case.variant.source, *target)
        return self.library.size(case.variant.source, "test")

    def drawn(self, case: Case) -> NDArray[np.int64]:
        """Return the places (N,) in their split of a case's samples, in the order in which they are drawn.

        It depends on the run's seed and on N alone: all variants are asked about the same samples, and clean images
        and corrupted ones are those of the same scenes. A search and a check for masking choose their own samples.
        """
        total = self.total(case)
        if case.shift.kind in AT_ONCE:
            return np.arange(total)
        return drawing_order(self.plan.configuration.gate.seed, total)

    def in_split_order(self, case: Case, measured: Measured) -> tuple[Some, NDArray[np.int64]]:
        """Return what was measured of a case in the order of its split, and the samples' places in that."""
        numbers = self.drawn(case)[: len(measured.outcome.labels)]
        rows = np.argsort(numbers)
        return Some(whole=measured, rows=rows), numbers[rows]

    def key(self, case: Case) -> str:
        """Return the name of the folder in the cache that holds what was measured of a case, or what it is made of."""
        return self.foundry.store.place(KIND, self._identity(case)).name

    def _measured(self, case: Case, figure: Figure | None, count: int) -> Measured:
        if figure is None and (united := self._united(case)):
            attacks = {name: self.of(*part, count) for name, part in united.items()}
            if case.shift.attack in self.plan.configuration.unions:
                return worst_attack(attacks, comparable=case.shift.norm is not None)
            return worst_figure(attacks, self._component(case), self.missing_gradient(case.variant))
        if case.shift.kind in AT_ONCE:
            return self._part(case, figure, 0, count)
        parts = self._kept_or_made(case, figure, count)
        # A part that was measured for another policy may reach farther.
        outcome = Outcome.join([part.outcome for part in parts]).take(slice(count))
        if case.shift.kind == "adversarial":
            outcome = replace(outcome, details=siege_details(outcome, self._component(case, figure)))
        return Joined(parts=parts, outcome=outcome)

    def _kept_or_made(self, case: Case, figure: Figure | None, count: int) -> tuple[Part, ...]:
        """Return parts that, one after another, hold at least the first `count` samples drawn."""
        parts = self._parts_of.setdefault(_name(case, figure), [])
        covered = sum(len(part.outcome.labels) for part in parts)
        kept = self._kept(case, figure) if covered < count else {}
        while covered < count:
            ends = kept.get(covered, count)
            parts.append(self._part(case, figure, covered, ends))
            covered = ends
        reached = np.cumsum([0, *(len(part.outcome.labels) for part in parts)])
        return tuple(part for part, before in zip(parts, reached[:-1], strict=True) if before < count)

    def _kept(self, case: Case, figure: Figure | None) -> dict[int, int]:
        """Return where each part that is kept begins, and where the longest of those ends."""
        names = self.foundry.store.parts(KIND, self._identity(case, figure))
        reaches = sorted((int(first), int(ends)) for first, _, ends in (name.partition("-") for name in names))
        return dict(reaches)

    def _part(self, case: Case, figure: Figure | None, first: int, ends: int) -> Part:
        """Return the samples drawn from `first` on, before `ends`; what is measured is in the order of the split."""
        order = self.drawn(case)[first:ends]
        places = np.argsort(order)
        numbers = order[places]
        everything = self.samples(case)
        samples = everything if len(numbers) == len(everything) else take(everything, numbers)

        def build(folder: Path) -> None:
            with isolated(derive(self.plan.configuration.gate.seed, "measure", case.name, first)):
                outcome = self._measure(case, figure, Drawn(samples, numbers, first, first + places), folder)
            outcome.save(folder / OUTCOMES)
            write_whole(folder / DETAILS, json.dumps(outcome.details, sort_keys=True))

        identity = self._identity(case, figure)
        folder, cached = self.foundry.store.entry(KIND, identity, build, f"{first}-{ends}")
        # What another worker of this run has measured meanwhile is not from before.
        cached = cached and (folder / SEAL).stat().st_mtime < self.since
        details = json.loads((folder / DETAILS).read_text(encoding="utf-8"))
        outcome = Outcome.load(folder / OUTCOMES, details)
        if case.shift.kind not in AT_ONCE:
            outcome = outcome.take(np.argsort(places))
        return Part(outcome=outcome, folder=folder, cached=cached)

    def samples(self, case: Case) -> Samples:
        """Return the samples that a case is measured on."""
        target = self._target(case)
        if target is not None:
            return self.library.target(case.variant.source, *target)
        samples = self.library.samples(case.variant.source, "test")
        if case.shift.kind == "stability":
            return chosen(samples, self._component(case).samples, self._seed(case))
        return samples

    def _united(self, case: Case) -> dict[str, tuple[Case, Figure | None]]:
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

    def data_digest(self, case: Case) -> str:
        """Return a hash of the images, labels and classes that a case is measured on."""
        target = self._target(case)
        if target is not None:
            return self.library.target_digest(case.variant.source, *target)
        return self.library.digest(case.variant.source, "test")

    def _target(self, case: Case) -> tuple[str, DataPart] | None:
        """Return the domain, and the part of it, that a case is measured on; None for its source's test split."""
        if case.shift.target is not None:
            return case.shift.target, self.plan.configuration.judging_split(case.shift.target)
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
        name = _name(case, figure)
        if name not in self._identities:
            self._identities[name] = self._identified(case, figure)
        return self._identities[name]

    def _identified(self, case: Case, figure: Figure | None) -> dict[str, Any]:
        source = case.variant.source
        identity = {
            "artifact": self.foundry.artifact(case.variant).folder.name,
            # The code of a network is not in its file: a change of it shows in what it answers.
            "answers": fingerprint(self.foundry.subject(case.variant), self.foundry.example(source)),
            "data": self.data_digest(case),
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
        if figure is None and (parts := self._united(case)):
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

    def _measure(self, case: Case, figure: Figure | None, drawn: Drawn, folder: Path) -> Outcome:
        subject, component = self.foundry.subject(case.variant), self._component(case, figure)
        samples, progress = drawn.samples, self._progress(case, figure, drawn.first)
        if case.shift.kind in ("adversarial", "stability"):
            height, width, channels = samples.images.shape[1:]
            with Examples(folder, len(samples), (channels, height, width)) as examples:
                if case.shift.kind == "adversarial":
                    return self._attacked(case, figure, drawn, progress, examples)
                return measure_stability(subject, samples, case.name, progress, component, self._seed(case), examples)
        if case.shift.kind == "masking":
            missing, seed = self.missing_gradient(case.variant), self._seed(case)
            given = (subject, samples, case.name, progress, component, seed)
            return measure_masking(*given, terms=self.terms, missing=missing)
        target = self._target(case)
        generated = case.shift.corruption is not None and target is None
        corruption = (component, int(case.shift.severity or 0), self._seed(case)) if generated else None
        outcome = measure_natural(subject, samples, case.name, progress, corruption, drawn.numbers)
        if generated and (caution := getattr(component, "caution", "")):
            outcome.details["caution"] = caution
        if target is not None:
            outcome.details.update(self.library.target_details(case.variant.source, *target))
        if target is not None and case.shift.corruption is not None:
            outcome.details["stored_benchmark"] = target[0]
        return outcome

    def _attacked(
        self, case: Case, figure: Figure | None, drawn: Drawn, progress: Progress, examples: Examples
    ) -> Outcome:
        component = self._component(case, figure)
        given = (self.foundry.subject(case.variant), drawn.samples, case.name, progress, component)
        if figure == "transferred":
            whole = self.of(self.plan.opponents(case)["reference"], upto=drawn.first + len(drawn.numbers))
            reference = Some(whole=whole, rows=drawn.rows)
            return measure_transferred(*given, reference, terms=self.terms, examples=examples)
        seed = self._seed(case, figure)
        return measure_adversarial(*given, seed, terms=self.terms, examples=examples, numbers=drawn.numbers)

    def _progress(self, case: Case, figure: Figure | None, first: int) -> Progress:
        if case.shift.kind in AT_ONCE:
            return lambda done, total, _=None: self.progress(Reached(case=case, done=done, total=total))
        total, parts = self.total(case), self._parts_of[_name(case, figure)]
        kept = sum(len(part.outcome.labels) for part in parts if part.cached)
        before = sum(int(part.outcome.correct.sum()) for part in parts)

        def hear(done: int, _: int, right: int | None = None, /) -> None:
            # What one of an artifact's figures leaves standing, another may still fell.
            known = None if right is None or figure is not None else before + right
            self.progress(Reached(case=case, done=first + done, total=total, kept=kept, right=known))

        return hear


def _name(case: Case, figure: Figure | None) -> str:
    return f"{case.shift.kind}/{case.name}" + (f"/{figure}" if figure else "")
