"""What in a policy says nothing: limits that nothing can break, or nothing keep, and idle waivers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import inf, nextafter
from typing import Any

from robustgate.config import CaseRule, Policy, RunRule
from robustgate.core.errors import listing
from robustgate.core.records import LimitKind, Variant, matches
from robustgate.engine.judging import Judging
from robustgate.engine.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit of a rule on a figure of one case or variant, its `subject`.

    `label` is what tells it from the rule's other limits, `figure` what it shares with limits on the same figure. The
    figure lies in [`least`, `most`]; up to `provable` the policy can be shown that it is as high.
    """

    rule: str
    label: str
    subject: str
    figure: tuple[Any, ...]
    kind: LimitKind
    limit: float
    least: float
    most: float
    provable: float

    @property
    def can_break(self) -> bool:
        """Say whether a figure can be on the wrong side."""
        return self.limit > self.least if self.kind == "min" else self.limit < self.most

    @property
    def can_hold(self) -> bool:
        """Say whether a figure can be on the right side, and be shown to be."""
        return self.limit <= min(self.most, self.provable) if self.kind == "min" else self.limit >= self.least

    def is_covered_by(self, other: Limit) -> bool:
        """Say whether `other` is broken wherever this one is."""
        if (self.figure, self.kind) != (other.figure, other.kind):
            return False
        return other.limit >= self.limit if self.kind == "min" else other.limit <= self.limit

    def contradicts(self, other: Limit) -> bool:
        """Say whether no figure can keep to both this least value and `other`, a largest one."""
        return self.figure == other.figure and (self.kind, other.kind) == ("min", "max") and self.limit > other.limit


def lint(plan: Plan, today: date, sizes: Mapping[str, int] | None = None) -> list[str]:
    """Return what is wrong with the policies of a plan, a line each, in the order of the file.

    `sizes` holds by the names of cases how many samples they have, where that is known: there are limits that no
    result on so few can be shown to keep.
    """
    return [
        f"policy {judging.policy.name}: {problem}"
        for judging in plan.policies
        for problem in (*_rules(plan, judging, sizes or {}), *_waivers(plan, judging, today))
    ]


def _rules(plan: Plan, judging: Judging, sizes: Mapping[str, int]) -> Iterator[str]:
    limits = [*_on_cases(judging, sizes), *_on_variants(plan, judging)]
    by_subject: dict[str, list[Limit]] = {}
    by_label: dict[tuple[str, str], list[Limit]] = {}
    for limit in limits:
        by_subject.setdefault(limit.subject, []).append(limit)
        by_label.setdefault((limit.rule, limit.label), []).append(limit)
    for (rule, label), own in by_label.items():
        told = f"rule {rule!r}: {label}"
        failing = [limit.subject for limit in own if not limit.can_hold]
        if not any(limit.can_break for limit in own):
            yield f"{told} cannot be broken: no figure is on the wrong side of it"
        elif failing:
            where = "" if len(failing) == len(own) else f" on {listing(failing)}"
            yield f"{told} cannot be satisfied{where}: {_why(own)}"
        elif stronger := _stronger(own, by_subject):
            yield f"{told} says nothing: {stronger} on all that it judges"
    for subject, found in by_subject.items():
        for one in found:
            for other in found:
                if one.contradicts(other):
                    yield (
                        f"rule {one.rule!r}: {one.label} and rule {other.rule!r}: {other.label} contradict each other "
                        f"on {subject!r}"
                    )


def _why(limits: Sequence[Limit]) -> str:
    """Return why some of a rule's limits cannot hold."""
    limit = next(one for one in limits if not one.can_hold)
    if limit.kind == "min" and limit.limit <= limit.most:
        if limit.limit == limit.most:
            return "however many samples there are, they leave room below the highest figure of all"
        return f"a result without a mistake shows no more than {100 * limit.provable:.1f} %"
    return "no figure is on the right side of it"


def _stronger(own: Sequence[Limit], by_subject: Mapping[str, Sequence[Limit]]) -> str:
    """Return which rules ask for more than each of some limits, or an empty text where none does of one of them."""
    covering: dict[str, None] = {}
    for limit in own:
        found = next((one for one in by_subject[limit.subject] if _covers(one, limit, by_subject)), None)
        if found is None:
            return ""
        covering[f"rule {found.rule!r}"] = None
    return f"{' and '.join(covering)} {'asks' if len(covering) == 1 else 'ask'} for more"


def _covers(one: Limit, limit: Limit, by_subject: Mapping[str, Sequence[Limit]]) -> bool:
    """Say whether another rule's limit covers this one; of two that are alike, the first says it."""
    if one.rule == limit.rule or not limit.is_covered_by(one):
        return False
    found = list(by_subject[limit.subject])
    return not one.is_covered_by(limit) or found.index(one) < found.index(limit)


def _on_cases(judging: Judging, sizes: Mapping[str, int]) -> Iterator[Limit]:
    proofs: dict[int | None, float] = {}
    for name, rules in judging.case_rules.items():
        n = sizes.get(name)
        if n not in proofs:
            proofs[n] = _provable(judging.policy, n)
        for rule in rules:
            yield from _of_case_rule(rule, name, proofs[n])
    for name, run_rule in judging.stability_rules.items():
        component: Any = run_rule.component
        label = f"max {100 * component.max:.1f} %"
        yield _limit(run_rule, label, name, ("changed share",), "max", component.max, 0.0, 1.0)


def _of_case_rule(rule: CaseRule, name: str, provable: float) -> Iterator[Limit]:
    if rule.min is not None:
        label = f"min {100 * rule.min:.4g} %"
        yield _limit(rule, label, name, (rule.metric,), "min", rule.min, 0.0, 1.0, provable)
    if rule.max_drop is not None:
        label = f"max_drop {100 * rule.max_drop:.4g} points"
        yield _limit(rule, label, name, ("drop", rule.max_drop_from), "max_drop", rule.max_drop, -1.0, 1.0)


def _on_variants(plan: Plan, judging: Judging) -> Iterator[Limit]:
    variants = {variant.name: variant for variant in plan.variants}
    for name, rules in judging.run_rules.items():
        for rule in rules:
            component: Any = rule.component
            if component.measures == "outcomes":
                yield from _of_outcome_rule(plan, rule, variants[name])
            else:
                label = f"{component.limit_kind} {component.show(component.limit)}"
                yield _limit(rule, label, name, (component.metric,), component.limit_kind, component.limit)


def _of_outcome_rule(plan: Plan, rule: RunRule, variant: Variant) -> Iterator[Limit]:
    component: Any = rule.component
    shifts = component.needs(plan.shifts(variant))
    for bound in component.bounds:
        label = f"{bound.key or bound.kind} {100 * bound.limit:.4g} {bound.unit}".rstrip()
        figure = (bound.metric, shifts)
        yield _limit(rule, label, variant.name, figure, bound.kind, bound.limit, bound.least, bound.most)


def _limit(
    rule: CaseRule | RunRule,
    label: str,
    subject: str,
    figure: tuple[Any, ...],
    kind: LimitKind,
    limit: float,
    least: float = -inf,
    most: float = inf,
    provable: float = inf,
) -> Limit:
    return Limit(
        rule=rule.name,
        label=label,
        subject=subject,
        figure=figure,
        kind=kind,
        limit=limit,
        least=least,
        most=most,
        provable=provable,
    )


def _provable(policy: Policy, n: int | None) -> float:
    """Return the highest floor that `n` samples without a mistake clear; without `n`, what no number of them clears.

    At the policy's own confidence, which no family of findings lowers. Infinite where nothing has to be proven.
    """
    if policy.scope == "test_set" or policy.prove == "bad" or policy.on_undecided == "pass":
        return inf
    if n is None:
        return nextafter(1.0, 0.0)
    import numpy as np  # with SciPy behind it, which a plan alone does not need

    from robustgate.engine.bounds import Inference

    return Inference.of(policy).accuracy(np.ones(n, np.bool_), np.zeros(n, np.int64)).low


def _waivers(plan: Plan, judging: Judging, today: date) -> Iterator[str]:
    waivers = judging.policy.waivers
    red = _can_be_red(plan, judging)
    for index, waiver in enumerate(waivers):
        told = f"waiver of {dict(waiver.where)} until {waiver.until}"
        covered = {name for name, fields in red.items() if matches(waiver.where, fields)}
        later = [
            other
            for place, other in enumerate(waivers)
            if (other.until, -place) > (waiver.until, -index)  # of two that end on one day, the first counts
            and all(matches(other.where, red[name]) for name in covered)
        ]
        if not waiver.is_current(today):
            yield f"{told} has expired: renew it or take it out"
        elif not covered:
            yield f"{told} covers nothing: no rule that can be broken judges what it selects"
        elif later:
            yield f"{told} covers nothing: the one until {later[0].until} covers all that it does"


def _can_be_red(plan: Plan, judging: Judging) -> dict[tuple[str, str], Mapping[str, str]]:
    """Return the fields of each case and variant on which something of a policy can be broken."""
    on_cases = {limit.subject for limit in _on_cases(judging, {}) if limit.can_break}
    on_variants = {limit.subject for limit in _on_variants(plan, judging) if limit.can_break}
    red: dict[tuple[str, str], Mapping[str, str]] = {
        (case.shift.kind, case.name): case.fields
        for case in plan.cases
        if case.shift.kind == "masking" or case.name in on_cases
    }
    for variant in plan.variants:
        if variant.name in on_variants:
            red["variant", variant.name] = {"name": variant.name, **variant.fields}
    return red
