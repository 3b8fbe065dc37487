"""One trial: a compression's chain is changed, its variants are built, and what that changes is judged by the gate."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from robustgate.core.errors import RobustgateError
from robustgate.core.records import Case, Finding, Variant, is_control
from robustgate.engine.course import Lesson, Pupil, unheard
from robustgate.engine.explain import told
from robustgate.engine.gate import Gate
from robustgate.engine.plan import Plan
from robustgate.engine.progress import Reached
from robustgate.engine.remedies import inline
from robustgate.engine.results import VARIANT_TESTS, VariantTest, key, rules_of

Red = tuple[str, ...]
"""What identifies what is red in a run: a finding, or a case without a figure."""


class OutOfTimeError(Exception):
    """The time is over. It is no error of what is tried, which goes on the next time."""


class Clock:
    """So many seconds, of which a part may be given at a time."""

    def __init__(self, seconds: float) -> None:
        self._end = self._until = time.monotonic() + seconds

    def give(self, parts: int) -> None:
        """Let one of so many equal parts of what is left be used."""
        now = time.monotonic()
        self._until = now + max(0.0, self._end - now) / parts

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return time.monotonic() >= self._until

    def check(self) -> None:
        """Raise OutOfTimeError where nothing is left."""
        if self.is_over:
            raise OutOfTimeError


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A recipe tried on a compression. `told` says what is red, or why there is no verdict.

    `clean` is the mean accuracy and `size` the mean of bytes over the compression's variants, where they were built.
    `recipe` is empty where none was needed, and `text` is the configuration that was judged.
    """

    recipe: Mapping[str, Any]
    text: str
    verdict: Literal["green", "red", "out of time", "not built"] = "out of time"
    told: tuple[str, ...] = ("not begun",)
    clean: float | None = None
    size: float | None = None
    seconds: float = 0.0

    @property
    def label(self) -> str:
        """The recipe in one line."""
        return inline(self.recipe) if self.recipe else "what it uses is repaired"


class Tribunal:
    """Judges changes of a plan in the time that a clock gives; `known` is what is red without them."""

    def __init__(self, known: Collection[Red], clock: Clock, pupil: Pupil = unheard) -> None:
        self.known = known
        self.clock = clock
        self.pupil = pupil

    def judge(self, trial: Trial, compression: str, plan: Plan, before: Plan) -> Trial:
        """Return the trial of a compression with its verdict: `plan` is that of the trial's text."""
        if self.clock.is_over:
            return trial
        began = time.monotonic()
        try:
            gate = self.gate(plan)
            records = [gate.record(variant) for variant in plan.variants if variant.compression == compression]
            trial = replace(trial, verdict="green", told=(), size=mean(record.size_bytes for record in records))
            for clean, reds in self._judged(gate, compression, before):
                if clean is not None:
                    trial = replace(trial, clean=clean)
                if reds:
                    trial = replace(trial, verdict="red", told=tuple(reds))
                    break
        except OutOfTimeError:
            why = "what is trained and measured is kept: the next repair goes on there"
            trial = replace(trial, verdict="out of time", told=(why,))
        except RobustgateError as error:
            trial = replace(trial, verdict="not built", told=(str(error),))
        return replace(trial, seconds=time.monotonic() - began)

    def gate(self, plan: Plan) -> Gate:
        """Return the gate of a plan, whose trainings and measurements end when the time is over."""
        return Gate(plan, today=datetime.now(UTC).date(), progress=self._measuring, pupil=self._training)

    def _judged(self, gate: Gate, compression: str, before: Plan) -> Iterator[tuple[float | None, list[str]]]:
        """Yield the mean clean accuracy, then None; each time with what is red, of what tells most first.

        A control changes with the compression, and is repaired with it.
        """
        plan, planned, stays = gate.plan, set(before.cases), unchanged(gate.plan, before)
        repaired = {compression, *(name for name in plan.chains if is_control(name) and name not in stays)}

        def is_new(case: Case) -> bool:
            name = case.variant.compression
            if name == compression or name not in stays:
                return True
            return replace(case, variant=replace(case.variant, compression=stays[name])) not in planned

        cases = [one for one in plan.cases if is_new(one)]
        clean = [one for one in cases if (one.variant.compression, one.shift.kind) == (compression, "clean")]
        names = {one[2] for one in self.known}
        rest = [one for one in cases if one not in clean]
        rest.sort(key=lambda one: (one.name not in names, one.variant.compression != compression))
        variants = [one for one in plan.variants if one in {case.variant for case in cases}]
        found = [self._case(gate, case, repaired) for case in clean]
        yield mean(value for value, _ in found), [text for _, reds in found for text in reds]
        for variant in variants:
            yield None, self._variant(gate, variant, "cost", repaired)
        for case in rest:
            yield None, self._case(gate, case, repaired)[1]
        for variant in variants:
            for test in VARIANT_TESTS[1:]:
                yield None, self._variant(gate, variant, test, repaired)

    def _case(self, gate: Gate, case: Case, repaired: Set[str]) -> tuple[float | None, list[str]]:
        self.clock.check()
        try:
            result = gate.result(case)
        except RobustgateError as error:
            return None, self._broken(error, case, repaired)
        return result.value, self._reds(gate.plan, result.findings, case.variant, repaired)

    def _variant(self, gate: Gate, variant: Variant, test: VariantTest, repaired: Set[str]) -> list[str]:
        self.clock.check()
        if not rules_of(test, gate.plan.rules_on(variant)):
            return []
        judged = {"cost": gate.cost, "overall": gate.overall, "latency": gate.latency}[test]
        try:
            return self._reds(gate.plan, judged(variant)[1], variant, repaired)
        except RobustgateError as error:  # what cannot be built has no clean figure either
            clean = next(one for one in gate.plan.cases if (one.variant, one.shift.kind) == (variant, "clean"))
            return self._broken(error, clean, repaired)

    def _broken(self, error: RobustgateError, case: Case, repaired: Set[str]) -> list[str]:
        is_old = case.variant.compression not in repaired and ("error", *key(case)) in self.known
        return [] if is_old else [f"{case.name}: {error}"]

    def _reds(self, plan: Plan, findings: Iterable[Finding], variant: Variant, repaired: Set[str]) -> list[str]:
        """Return what is red of what is repaired, and of others what was not red before: they are not repaired here."""
        return [
            f"{one.subject}: {told(one)}"
            for one in findings
            if plan.policy(one.policy).is_red(one.verdict)
            and (variant.compression in repaired or identity(one) not in self.known)
        ]

    def _measuring(self, reached: Reached) -> None:
        if reached.total:
            self.pupil(Lesson(doing=f"{reached.case.name}: judging", share=reached.done / reached.total))
        self.clock.check()

    def _training(self, lesson: Lesson) -> None:
        self.pupil(lesson)
        self.clock.check()


def unchanged(plan: Plan, before: Plan) -> dict[str, str]:
    """Return the compressions that do what one did before, by the names that those had.

    A control is known by its chain: its name depends on which others there are.
    """
    found = {}
    for name, steps in plan.chains.items():
        names = [name, *filter(is_control, before.chains if is_control(name) else ())]
        earlier = next((one for one in names if before.chains.get(one) == steps), None)
        if earlier is not None:
            found[name] = earlier
    return found


def identity(finding: Finding) -> Red:
    """Return what identifies a finding, be it red or not; its third part is the case or variant."""
    return finding.policy, finding.rule, finding.subject, finding.metric, finding.limit_kind


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are known, None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
