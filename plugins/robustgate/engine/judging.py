"""What the policies of a run judge: which of their rules select which cases and variants. Pure, as the plan is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from robustgate.config import CaseRule, Policy, RunRule
from robustgate.core.components import OutcomeRule
from robustgate.core.errors import listing, nearest
from robustgate.core.records import REFERENCE, Case, Shift, Variant, matches

R = TypeVar("R", bound=CaseRule | RunRule)


@dataclass(frozen=True, kw_only=True)
class Judging:
    """A policy, and what its rules select: by the names of cases and variants, in the order of the file.

    `stability_rules` holds for each stability case the policy's rule on it, where it has one; `limits` how many limits
    of its rules say something of each other case, by the case's kind and name.
    """

    policy: Policy
    case_rules: Mapping[str, tuple[CaseRule, ...]]
    run_rules: Mapping[str, tuple[RunRule, ...]]
    stability_rules: Mapping[str, RunRule]
    limits: Mapping[tuple[str, str], int]

    def judges(self, case: Case) -> bool:
        """Say whether a rule of the policy is about a case."""
        return case.name in self.case_rules or case.name in self.stability_rules


def judgings(
    policies: Sequence[Policy], variants: Sequence[Variant], cases: Sequence[Case], controls: Mapping[str, str]
) -> tuple[tuple[Judging, ...], list[str]]:
    """Return what each policy judges, and a complaint of each rule or waiver that selects nothing or lacks a shift.

    `controls` names the control of each compression that fine-tunes.
    """
    fields = {case.name: case.fields for case in cases}
    by_name = {case.name: case for case in cases}
    variant_fields = {variant.name: variant.fields for variant in variants}
    variants_by_name = {variant.name: variant for variant in variants}
    found, problems = [], []
    for policy in policies:
        case_rules, idle_rules = _assigned(
            policy.case_rules, fields, lambda rule, name: _limits(rule, by_name[name], controls) > 0
        )
        run_rules, idle_run_rules = _assigned(
            [rule for rule in policy.run_rules if rule.component.measures != "stability"],
            variant_fields,
            lambda rule, name: _says_something(rule, variants_by_name[name]),
        )
        searched, idle_searches = _searching(policy, variant_fields)
        idle = [*idle_rules, *idle_run_rules, *idle_searches, *_idle_waivers(policy, fields)]
        problems += [f"policies.{policy.name}: {one}" for one in (*idle, *_without_outcomes(run_rules, cases))]
        stability_rules = {
            case.name: searched[case.variant.name][0]
            for case in cases
            if case.shift.kind == "stability" and case.variant.name in searched
        }
        limits: dict[tuple[str, str], int] = {
            (case.shift.kind, case.name): sum(_limits(rule, case, controls) for rule in case_rules.get(case.name, ()))
            for case in cases
        }
        found.append(
            Judging(
                policy=policy,
                case_rules=case_rules,
                run_rules=run_rules,
                stability_rules=stability_rules,
                limits=limits,
            )
        )
    return tuple(found), problems


def searches(policies: Sequence[Policy], variants: Sequence[Variant]) -> tuple[dict[str, RunRule], list[str]]:
    """Return the stability rule for which each variant is searched, by its name, and a complaint where there are two.

    Policies whose rules on a variant are alike in all but their names share a search, and so a case.
    """
    fields = {variant.name: variant.fields for variant in variants}
    found: dict[str, list[tuple[Policy, RunRule]]] = {}
    for policy in policies:
        for name, rules in _searching(policy, fields)[0].items():
            found.setdefault(name, []).extend((policy, rule) for rule in rules)
    problems = [problem for name, rules in found.items() if (problem := _conflict(name, rules))]
    return {name: rules[0][1] for name, rules in found.items()}, problems


def _searching(
    policy: Policy, fields: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, tuple[RunRule, ...]], list[str]]:
    rules = [rule for rule in policy.run_rules if rule.component.measures == "stability"]
    return _assigned(rules, fields, lambda _, __: True)


def _conflict(name: str, rules: Sequence[tuple[Policy, RunRule]]) -> str:
    """Return what is wrong with the stability rules on a variant: a case can be searched for one alone."""
    (policy, first), *others = rules
    for other, rule in others:
        if other is policy or rule.component != first.component:
            whose = "" if other is policy else f" of policy {other.name}"
            return (
                f"policies.{policy.name}: rule {first.name!r} and rule {rule.name!r}{whose} both search the stability "
                f"of {name!r}: narrow the `where` of one, a variant has one such case"
            )
    return ""


def _limits(rule: CaseRule, case: Case, controls: Mapping[str, str]) -> int:
    """Return how many limits of a rule say something of a case: a drop needs another variant to compare with.

    The samples of a masking case are few and all right without attack: a rule for accuracies speaks of them only
    where it names them. A stability case has no accuracy: its own rule judges it.
    """
    if case.shift.kind == "stability":
        return 0
    if case.shift.kind == "masking":
        return int(rule.min is not None and rule.where.get("kind") == "masking")
    compression = case.variant.compression
    comparable = {
        "reference": compression != REFERENCE,
        "control": compression in controls,
        "baseline": True,
    }
    return (rule.min is not None) + (rule.max_drop is not None and comparable[rule.max_drop_from])


def _says_something(rule: RunRule, variant: Variant) -> bool:
    """Say whether a rule says anything of a variant: what compares with the reference says nothing of it."""
    component: Any = rule.component
    return not (component.measures == "outcomes" and component.compares and variant.compression == REFERENCE)


def _without_outcomes(run_rules: Mapping[str, tuple[RunRule, ...]], cases: Sequence[Case]) -> list[str]:
    """Return a complaint of each rule on outcomes for which some variant has too few shifts, or its source models."""
    shifts: dict[str, list[Shift]] = {}
    for case in cases:
        shifts.setdefault(case.variant.name, []).append(case.shift)
    variants = {case.variant.name: case.variant for case in cases}
    references = Counter(one.source for one in variants.values() if one.compression == REFERENCE)
    problems: dict[tuple[str, str], list[str]] = {}
    for name, rules in run_rules.items():
        for rule in rules:
            component: Any = rule.component
            if component.measures == "outcomes":
                found = _lacking(component, shifts[name], references[variants[name].source])
                if found:
                    problems.setdefault((rule.name, found), []).append(name)
    return [f"rule {rule!r} on {listing(names)}: {problem}" for (rule, problem), names in problems.items()]


def _lacking(component: OutcomeRule, shifts: Sequence[Shift], references: int) -> str:
    """Return what a rule lacks, or an empty text."""
    if references < component.standards:
        return (
            f"it needs at least {component.standards} uncompressed models of the source domain, and there "
            f"{'is' if references == 1 else 'are'} {references}"
        )
    try:
        component.needs(shifts)
    except ValueError as error:
        return str(error)
    return ""


def _assigned(
    rules: Sequence[R], fields: Mapping[str, Mapping[str, str]], applies: Callable[[R, str], bool]
) -> tuple[dict[str, tuple[R, ...]], list[str]]:
    """Return for each subject, by name, the rules that select it, and a complaint of each rule that selects none."""
    assigned: dict[str, tuple[R, ...]] = {}
    idle = []
    for rule in rules:
        selected = [name for name, known in fields.items() if matches(rule.where, known) and applies(rule, name)]
        if not selected:
            idle.append(_idle(f"rule {rule.name!r}", rule.where, fields))
        for name in selected:
            assigned[name] = (*assigned.get(name, ()), rule)
    return assigned, idle


def _idle_waivers(policy: Policy, fields: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [
        _idle("waiver", waiver.where, fields)
        for waiver in policy.waivers
        if not any(matches(waiver.where, known) for known in fields.values())
    ]


def _idle(what: str, where: Mapping[str, str], fields: Mapping[str, Mapping[str, str]]) -> str:
    for key, pattern in where.items():
        values = {known[key] for known in fields.values() if key in known}
        if not any(matches({key: pattern}, {key: value}) for value in values):
            return (
                f"{what} selects no case: where.{key} = {pattern!r}{nearest(pattern, values)}; known: {listing(values)}"
            )
    return (
        f"{what} selects no case: no case has all of {dict(where)} (a drop is judged neither on the reference itself "
        "nor, from a control, on what does not fine-tune)"
    )
