"""How far a case is measured: until its verdict is known, or until nothing is left to measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from robustgate.core.errors import BaselineError, RobustgateError
from robustgate.core.records import REFERENCE, Case, Finding
from robustgate.engine import family
from robustgate.engine.baseline import Standards
from robustgate.engine.judge import Counted, findings_on
from robustgate.engine.judging import Judging
from robustgate.engine.measurements import AT_ONCE, Measurements
from robustgate.engine.plan import Plan
from robustgate.engine.progress import Reached
from robustgate.engine.results import key
from robustgate.statistics.sequential import looks


@dataclass(frozen=True)
class Seen:
    """The first samples of a case, and of what it is compared with; where it has no baseline, why."""

    counted: Counted
    opponents: Mapping[str, Counted] = field(default_factory=dict)
    no_baseline: str = ""


class Stopping:
    """Measures the cases of a plan as far as their verdicts need; `is_selected` says which ones a run is about.

    `alone` holds for each policy, by its name, the confidence of a finding by itself; see `family.confidence`.
    """

    def __init__(
        self, plan: Plan, measurements: Measurements, standards: Standards, is_selected: Callable[[Case], bool]
    ) -> None:
        self.plan = plan
        self.measurements = measurements
        self.standards = standards
        self.is_selected = is_selected
        self.alone = {judging.policy.name: family.confidence(judging) for judging in plan.policies}
        self._enough: dict[tuple[str, str], int] = {}
        self._left_over: dict[str, float] = {}

    def seen(self, case: Case) -> Seen:
        """Measure a case until no policy has an undecided finding on it, or in full; see `is_whole`.

        After so many samples that `looks` names it is judged anew. Raises RobustgateError.
        """
        if key(case) not in self._enough:
            total, judgings = self.measurements.total(case), self._judgings(case)
            early = () if self.is_whole(case) else looks(total)[:-1]

            def is_enough(seen: Seen) -> bool:
                done, right = len(seen.counted.correct), int(seen.counted.correct.sum())
                self.measurements.progress(Reached(case=case, done=done, total=total, right=right, is_draw=True))
                decided = (self._is_decided(one, case, seen, self.alone[one.policy.name]) for one in judgings)
                # What has no baseline yet is measured in full: it may be the next one.
                return not seen.no_baseline and all(decided)

            self._enough[key(case)] = next((look for look in early if is_enough(self._seen(case, look))), total)
        return self._seen(case, self._enough[key(case)])

    def is_whole(self, case: Case) -> bool:
        """Say whether a case is measured in full, come what may.

        So it is where no rule judges it, where a policy that does stops nothing early, and where a rule over shifts
        needs it.
        """
        judgings = self._judgings(case)
        stops = bool(judgings) and all(one.policy.early_stop for one in judgings)
        return not stops or case.shift.kind in AT_ONCE or key(case) in self._needed

    def confidence(self, judging: Judging, case: Case, seen: Seen) -> float:
        """Return the confidence of a policy's findings on a case: with nothing left to measure, that of the left over.

        Those are judged beside all other selected cases of the run, which are measured for it. Raises RobustgateError.
        """
        alone = self.alone[judging.policy.name]
        if not seen.counted.is_whole or self._is_decided(judging, case, seen, alone):
            return alone
        if judging.policy.name not in self._left_over:
            self._left_over[judging.policy.name] = family.left_over(judging, self._decided_at(judging))
        return self._left_over[judging.policy.name]

    def _decided_at(self, judging: Judging) -> Callable[[float], int]:
        """Return what counts the findings of a run that are decided where each may err so often.

        A case that cannot be measured decides nothing.
        """
        everything = {}
        for case in self.plan.cases:
            if case.name in judging.case_rules and case.shift.kind not in AT_ONCE and self.is_selected(case):
                with suppress(RobustgateError):
                    everything[case] = self.seen(case)

        def count(error: float) -> int:
            return sum(
                finding.verdict in ("pass", "fail")
                for case, seen in everything.items()
                for finding in self._found(judging, case, seen, 1 - error)
            )

        return count

    def _judgings(self, case: Case) -> list[Judging]:
        return [judging for judging in self.plan.policies if case.name in judging.case_rules]

    def _is_decided(self, judging: Judging, case: Case, seen: Seen, confidence: float) -> bool:
        return all(finding.verdict != "undecided" for finding in self._found(judging, case, seen, confidence))

    def _found(self, judging: Judging, case: Case, seen: Seen, confidence: float) -> tuple[Finding, ...]:
        rules = judging.case_rules.get(case.name, ())
        return findings_on(case, seen.counted, seen.opponents, rules, judging.policy, seen.no_baseline, confidence)

    def _seen(self, case: Case, upto: int) -> Seen:
        """Measure the first samples of a case, and of what it is compared with."""
        counted = self._counted(case, upto)
        opponents = {name: self._counted(opponent, upto) for name, opponent in self.plan.opponents(case).items()}
        rules = (rule for judging in self._judgings(case) for rule in judging.case_rules[case.name])
        if not any(rule.max_drop_from == "baseline" for rule in rules):
            return Seen(counted, opponents)
        try:
            right = self.standards.of(case, self.measurements.data_digest(case))
        except BaselineError as error:
            return Seen(counted, opponents, str(error))
        both = counted.first(len(right))
        baseline = replace(both, correct=right[: len(both.correct)], predictions=None)
        return Seen(counted, {**opponents, "baseline": baseline})

    def _counted(self, case: Case, upto: int) -> Counted:
        outcome = self.measurements.of(case, upto=upto).outcome
        everything = self.measurements.samples(case)
        # Under attack each variant sees images of its own, as in a search, and is asked about its own for masking.
        same = case.shift.kind not in ("adversarial", *AT_ONCE)
        at_once = case.shift.kind in AT_ONCE
        return Counted(
            correct=outcome.correct,
            labels=outcome.labels if at_once else everything.labels[self.measurements.drawn(case)],
            classes=everything.classes,
            predictions=outcome.predictions if same else None,
        )

    @cached_property
    def _needed(self) -> set[tuple[str, str]]:
        """The cases that rules over shifts need: of a variant, of its reference, and of their source's other models."""
        needed = set()
        for judging in self.plan.policies:
            for variant in self.plan.variants:
                for rule in judging.run_rules.get(variant.name, ()):
                    if rule.component.measures != "outcomes":
                        continue
                    component = rule.component
                    others = self.plan.references(variant.source) if component.standards else ()
                    variants = (variant, replace(variant, compression=REFERENCE), *others)
                    shifts = component.needs(self.plan.shifts(variant))
                    needed |= {key(Case(variant=one, shift=shift)) for one in variants for shift in shifts}
        return needed
