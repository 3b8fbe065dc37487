"""What a configuration asks to be measured and judged. Pure: no torch, no data, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from robustgate.compression.artifact import Artifact, runtime_of
from robustgate.config import Configuration, Policy, RunRule, Step
from robustgate.config.policies import choose
from robustgate.core.components import Attack, Recipe, Union
from robustgate.core.errors import ConfigurationError, listing
from robustgate.core.records import CONTROL, REFERENCE, Case, Shift, Variant
from robustgate.engine.judging import Judging, judgings, searches

# The norms in which gradients are checked.
CHECKED_NORMS = ("linf", "l2")
# The runtimes whose files give no gradient, nor a twin.
WITHOUT_GRADIENT = ("litert", "executorch")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cases of a run, in order, with what each needs.

    `chains` holds the steps of every compression, the gate's own among them; `controls` names for each compression
    that fine-tunes the control that had the same fine-tuning; `policies` are those that judge the run, each with what
    its rules select, at least one.
    """

    configuration: Configuration
    policies: tuple[Judging, ...]
    variants: tuple[Variant, ...]
    cases: tuple[Case, ...]
    chains: Mapping[str, tuple[Step, ...]]
    controls: Mapping[str, str]

    def policy(self, name: str) -> Policy:
        """Return one of the policies that judge the run."""
        return next(judging.policy for judging in self.policies if judging.policy.name == name)

    @property
    def policy_names(self) -> tuple[str, ...]:
        """The names of the policies, in the order in which they were asked for."""
        return tuple(judging.policy.name for judging in self.policies)

    @property
    def stability_rules(self) -> Mapping[str, RunRule]:
        """For each stability case, a rule that it is planned for, by its name: those of all policies search alike."""
        return {name: rule for judging in self.policies for name, rule in judging.stability_rules.items()}

    def rules_on(self, variant: Variant) -> tuple[RunRule, ...]:
        """Return the rules of all policies on a variant."""
        return tuple(rule for judging in self.policies for rule in judging.run_rules.get(variant.name, ()))

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
    """Plan every variant under every shift, judged by one policy or several, with commas between their names.

    `policy` overrides the configuration's choice; where neither chooses, a single policy is taken. Raises
    ConfigurationError, with all that is found, for an unknown policy, two cases of one name, a pair that no model
    serves, and a rule or waiver that selects nothing.
    """
    chosen = _chosen(configuration, policy)
    controls, control_chains = _controls(configuration)
    chains = {REFERENCE: (), **control_chains, **configuration.compressions}
    variants = tuple(
        Variant(model=name, source=source, compression=compression)
        for name, model in configuration.models.items()
        for source in model.weights
        for compression, steps in chains.items()
        if all(_serves(step, name, source) for step in steps)
    )
    searched, conflicts = searches(chosen, variants)
    cases = tuple(
        Case(variant=variant, shift=shift)
        for variant in variants
        for shift in (
            *_shifts(configuration, variant),
            *_checked(configuration, variant, chains[variant.compression]),
            *([_searched(searched[variant.name])] if variant.name in searched else []),
        )
    )
    policies, idle = judgings(chosen, variants, cases, controls)
    problems = [*_clashes(cases), *_idle_pairs(configuration), *conflicts, *idle]
    if problems:
        raise ConfigurationError(problems, source=str(configuration.source))
    return Plan(
        configuration=configuration,
        policies=policies,
        variants=variants,
        cases=cases,
        chains=chains,
        controls=controls,
    )


def _chosen(configuration: Configuration, names: str | None) -> list[Policy]:
    policies = configuration.policies
    names = names or configuration.gate.policy or (next(iter(policies)) if len(policies) == 1 else None)
    if names is None:
        raise ConfigurationError(
            [f"several policies and none chosen: set gate.policy or --robustgate-policy; known: {listing(policies)}"]
        )
    chosen, problems = choose(names, policies)
    if problems:
        raise ConfigurationError(problems)
    return [policies[name] for name in chosen]


def _controls(configuration: Configuration) -> tuple[dict[str, str], dict[str, tuple[Step, ...]]]:
    """Return each fine-tuned compression's control, and the controls' chains; the same fine-tuning is one control."""
    recipes: dict[tuple[Recipe, ...], list[str]] = {}
    for name, steps in configuration.compressions.items():
        finetunes = tuple(getattr(one, "control", one) for step in steps if (one := step.finetune) is not None)
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
            looked_at = configuration.judging_split(target) == "test"
            detail = "its test split: a training looks at the others" if looked_at else None
            shifts.append(Shift(kind="domain_shift", name=f"{source}_to_{target}", target=target, detail=detail))
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


def _may_have_gradient(steps: tuple[Step, ...], variant: Variant) -> bool:
    component = steps[-1].component if steps else None
    if not isinstance(component, Artifact):
        return True
    return runtime_of(component.files[variant.model][variant.source]) not in WITHOUT_GRADIENT


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
