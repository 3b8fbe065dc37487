"""What a configuration asks to be measured and judged. Pure: no torch, no data, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, TypeVar

from robustgate.compression.artifact import Artifact, runtime_of
from robustgate.config import CaseRule, Configuration, Policy, RunRule, Step
from robustgate.core.components import Attack, OutcomeRule, Recipe, Union
from robustgate.core.errors import ConfigurationError, listing, nearest
from robustgate.core.records import CONTROL, REFERENCE, Case, Shift, Variant, matches

R = TypeVar("R", bound=CaseRule | RunRule)

# The norms in which gradients are checked.
CHECKED_NORMS = ("linf", "l2")
# The runtimes whose files give no gradient, nor a twin.
WITHOUT_GRADIENT = ("litert", "executorch")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cases of a run, in order, with what each needs.

    `chains` holds the steps of every compression, the gate's own among them; `controls` names for each compression
    that fine-tunes the control that had the same fine-tuning; `case_rules` holds for each case, by its name, the
    rules of the policy that judge it; `stability_rules` the one for which a stability case is planned.
    """

    configuration: Configuration
    policy: Policy
    variants: tuple[Variant, ...]
    cases: tuple[Case, ...]
    chains: Mapping[str, tuple[Step, ...]]
    controls: Mapping[str, str]
    case_rules: Mapping[str, tuple[CaseRule, ...]]
    run_rules: Mapping[str, tuple[RunRule, ...]]
    stability_rules: Mapping[str, RunRule]

    def opponents(self, case: Case) -> dict[str, Case]:
        """Return the cases that a drop of `case` may be taken from, by the name that `max_drop_from` gives them.

        A masking case has none: each variant is asked about samples that it classifies right itself. Nor has a
        stability case: each variant is compared with its own answers.
        """
        if case.shift.kind in ("masking", "stability"):
            return {}
        compression = case.variant.compression
        names = {"reference": REFERENCE} if compression != REFERENCE else {}
        if compression in self.controls:
            names["control"] = self.controls[compression]
        return {name: replace(case, variant=replace(case.variant, compression=other)) for name, other in names.items()}

    def joined(self, case: Case) -> dict[str, Case]:
        """Return the cases that a case is the worst of, by the names of their attacks; none unless it is a union."""
        union = self.configuration.unions.get(case.shift.attack or "")
        names = union.attacks if union is not None else ()
        return {name: replace(case, shift=_attacked(name, self.configuration.attacks[name])) for name in names}

    def shifts(self, variant: Variant) -> tuple[Shift, ...]:
        """Return the shifts that a variant is measured under, in order."""
        return tuple(case.shift for case in self.cases if case.variant == variant)

    def references(self, source: str) -> tuple[Variant, ...]:
        """Return the uncompressed models of a source domain."""
        return tuple(one for one in self.variants if (one.source, one.compression) == (source, REFERENCE))


def make_plan(configuration: Configuration, policy: str | None = None) -> Plan:
    """Plan every variant under every shift, judged by one policy.

    `policy` overrides the configuration's choice; where neither chooses, a single policy is taken. Raises
    ConfigurationError, with all that is found, for an unknown policy, two cases of one name, a pair that no model
    serves, and a rule or waiver that selects nothing.
    """
    chosen = _choose_policy(configuration, policy)
    controls, control_chains = _controls(configuration)
    chains = {REFERENCE: (), **control_chains, **configuration.compressions}
    variants = tuple(
        Variant(model=name, source=source, compression=compression)
        for name, model in configuration.models.items()
        for source in model.weights
        for compression, steps in chains.items()
        if all(_serves(step, name, source) for step in steps)
    )
    variants_by_name = {variant.name: variant for variant in variants}
    searches, idle_searches = _assigned(
        [rule for rule in chosen.run_rules if rule.component.measures == "stability"],
        {name: variant.fields for name, variant in variants_by_name.items()},
        lambda _, __: True,
    )
    cases = tuple(
        Case(variant=variant, shift=shift)
        for variant in variants
        for shift in (
            *_shifts(configuration, variant),
            *_checked(configuration, variant, chains[variant.compression]),
            *map(_searched, searches.get(variant.name, ())),
        )
    )
    fields = {case.name: case.fields for case in cases}
    by_name = {case.name: case for case in cases}
    case_rules, idle_rules = _assigned(
        chosen.case_rules, fields, lambda rule, name: _applies(rule, by_name[name], controls)
    )
    run_rules, idle_run_rules = _assigned(
        [rule for rule in chosen.run_rules if rule.component.measures != "stability"],
        {name: variant.fields for name, variant in variants_by_name.items()},
        lambda rule, name: _says_something(rule, variants_by_name[name]),
    )
    idle = [
        *idle_rules,
        *idle_run_rules,
        *idle_searches,
        *_searched_twice(searches),
        *_idle_waivers(chosen, fields),
        *_without_outcomes(run_rules, cases),
    ]
    problems = [*_clashes(cases), *_idle_pairs(configuration), *(f"policies.{chosen.name}: {one}" for one in idle)]
    if problems:
        raise ConfigurationError(problems, source=str(configuration.source))
    return Plan(
        configuration=configuration,
        policy=chosen,
        variants=variants,
        cases=cases,
        chains=chains,
        controls=controls,
        case_rules=case_rules,
        run_rules=run_rules,
        stability_rules={case.name: searches[case.variant.name][0] for case in cases if case.shift.kind == "stability"},
    )


def _choose_policy(configuration: Configuration, name: str | None) -> Policy:
    policies = configuration.policies
    name = name or configuration.gate.policy or (next(iter(policies)) if len(policies) == 1 else None)
    if name is None:
        raise ConfigurationError(
            [f"several policies and none chosen: set gate.policy or --robustgate-policy; known: {listing(policies)}"]
        )
    if name not in policies:
        raise ConfigurationError([f"no policy {name!r}{nearest(name, policies)}; known: {listing(policies)}"])
    return policies[name]


def _controls(configuration: Configuration) -> tuple[dict[str, str], dict[str, tuple[Step, ...]]]:
    """Return each fine-tuned compression's control, and the controls' chains; the same fine-tuning is one control."""
    recipes: dict[tuple[Recipe, ...], list[str]] = {}
    for name, steps in configuration.compressions.items():
        finetunes = tuple(step.finetune for step in steps if step.finetune is not None)
        if finetunes:
            recipes.setdefault(finetunes, []).append(name)
    controls: dict[str, str] = {}
    chains: dict[str, tuple[Step, ...]] = {}
    for finetunes, compressions in recipes.items():
        control = CONTROL if len(recipes) == 1 else f"{CONTROL}_{compressions[0]}"
        chains[control] = tuple(Step(method=None, component=None, finetune=recipe) for recipe in finetunes)
        controls.update(dict.fromkeys(compressions, control))
    return controls, chains


def _serves(step: Step, model: str, source: str) -> bool:
    """Say whether a step has something for a model and source; files made elsewhere may be for some only."""
    component: Any = step.component
    return not hasattr(component, "serves") or bool(component.serves(model, source))


def _shifts(configuration: Configuration, variant: Variant) -> list[Shift]:
    shifts = [Shift(kind="clean", name="clean")]
    for source, target in configuration.pairs:
        if source == variant.source:
            shifts.append(Shift(kind="domain_shift", name=f"{source}_to_{target}", target=target))
    stored = configuration.stored.get(variant.source)
    detail = f"stored benchmark {stored}" if stored else None
    for corruption in configuration.corruptions:
        for severity in configuration.severities:
            name = f"{corruption}_s{severity}"
            shift = Shift(kind="corruption", name=name, corruption=corruption, severity=severity, detail=detail)
            shifts.append(shift)
    shifts += [_attacked(name, attack) for name, attack in configuration.attacks.items()]
    shifts += [_worst(name, union, configuration.attacks) for name, union in configuration.unions.items()]
    return shifts


def _attacked(name: str, attack: Attack) -> Shift:
    steps: Any = getattr(attack, "steps", None)
    detail = f"{attack.norm}, eps {attack.eps:g}" + (f", {steps} steps" if steps else "")
    return Shift(kind="adversarial", name=name, attack=name, norm=attack.norm, eps=attack.eps, detail=detail)


def _worst(name: str, union: Union, attacks: Mapping[str, Attack]) -> Shift:
    """Return the shift of a union: its norm and budget are those of all attacks that it joins, where they agree."""
    norms, budgets = {attacks[one].norm for one in union.attacks}, {attacks[one].eps for one in union.attacks}
    return Shift(
        kind="adversarial",
        name=name,
        attack=name,
        norm=min(norms) if len(norms) == 1 else None,
        eps=min(budgets) if len(norms) == len(budgets) == 1 else None,
        detail=f"union of {', '.join(union.attacks)}",
    )


def _checked(configuration: Configuration, variant: Variant, steps: tuple[Step, ...]) -> list[Shift]:
    """Return the checks for gradient masking: one for each norm of the attacks with gradients, at its largest budget.

    None where they are switched off, nor of a file that is known to have no gradient: it has nothing to mask.
    """
    if not configuration.masking.enabled or not _may_have_gradient(steps, variant):
        return []
    shifts = []
    for norm in CHECKED_NORMS:
        attacks = [one for one in configuration.attacks.values() if one.needs_gradient and one.norm == norm]
        budgets = [one.eps for one in attacks if isfinite(one.eps)]
        if budgets:
            eps = max(budgets)
            shifts.append(Shift(kind="masking", name=norm, norm=norm, eps=eps, detail=f"{norm}, eps {eps:g}"))
    return shifts


def _searched(rule: RunRule) -> Shift:
    """Return the shift of a stability rule: whatever of its transformations a search finds."""
    component: Any = rule.component
    limits = ", ".join(f"{name} {limit:g}" for name, limit in component.transformations.items())
    return Shift(kind="stability", name="stability", detail=f"up to {limits}")


def _searched_twice(searches: Mapping[str, tuple[RunRule, ...]]) -> list[str]:
    return [
        f"{' and '.join(f'rule {rule.name!r}' for rule in rules)} both search the stability of {name!r}: "
        "narrow the `where` of one, a variant has one such case"
        for name, rules in searches.items()
        if len(rules) > 1
    ]


def _may_have_gradient(steps: tuple[Step, ...], variant: Variant) -> bool:
    component = steps[-1].component if steps else None
    if not isinstance(component, Artifact):
        return True
    return runtime_of(component.files[variant.model][variant.source]) not in WITHOUT_GRADIENT


def _applies(rule: CaseRule, case: Case, controls: Mapping[str, str]) -> bool:
    """Say whether a rule says anything of a case: a drop needs another variant to compare with.

    The samples of a masking case are few and all right without attack: a rule for accuracies speaks of them only
    where it names them. A stability case has no accuracy: its own rule judges it.
    """
    if case.shift.kind == "stability":
        return False
    if case.shift.kind == "masking":
        return rule.min is not None and rule.where.get("kind") == "masking"
    compression = case.variant.compression
    comparable = compression != REFERENCE if rule.max_drop_from == "reference" else compression in controls
    return rule.min is not None or comparable


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


def _clashes(cases: tuple[Case, ...]) -> list[str]:
    # Names alone tell cases apart, whatever their kinds: rules, results and -k go by them.
    return [
        f"two cases are called {name!r}: rename a domain or an attack, or name a pair or severity only once"
        for name, count in Counter(case.name for case in cases).items()
        if count > 1
    ]


def _idle_pairs(configuration: Configuration) -> list[str]:
    sources = {source for model in configuration.models.values() for source in model.weights}
    return [
        f"shifts.pairs: {source} → {target}: no model has weights for {source!r}; sources: {listing(sources)}"
        for source, target in configuration.pairs
        if source not in sources
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
