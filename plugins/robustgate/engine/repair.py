"""Recipes tried on what a red run condemned; of those that make it green the best is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import tomlkit

from robustgate.config import parse
from robustgate.core.catalog import shelf
from robustgate.core.errors import ConfigurationError, ResultsError, listing
from robustgate.core.records import Results, is_control, is_red
from robustgate.engine import epochs
from robustgate.engine.course import Pupil, unheard
from robustgate.engine.explain import told
from robustgate.engine.overlap import Overlap
from robustgate.engine.plan import Plan, make_plan
from robustgate.engine.remedies import incurable, own_text, remedied
from robustgate.engine.results import key
from robustgate.engine.trials import Clock, Red, Trial, Tribunal, identity, mean

DEFAULTS = ("supervised", "sam", "distillation", "adcorda")

Recipe = str | Mapping[str, Any]
"""A recipe as the configuration has it, or its name alone: it then has as many epochs as fit."""


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """What was tried on a red compression, and what is kept; `incurable` says why nothing could be tried.

    `clean` and `size` are means over its variants, as the run found them. A control is `replaced` where all that it was
    the control of is repaired: it has others now, which are green.
    """

    compression: str
    red: tuple[str, ...]
    clean: float | None
    size: float | None
    incurable: str
    trials: tuple[Trial, ...]
    taken: Trial | None
    replaced: bool = False

    @property
    def is_green(self) -> bool:
        """Whether nothing of it is red any more."""
        return self.taken is not None or self.replaced


class Repairs:
    """Repairs what is red in the results of a plan; `text` is the configuration with all that is kept so far.

    Raises ResultsError where the results are not the plan's.
    """

    def __init__(
        self,
        plan: Plan,
        results: Results,
        recipes: Sequence[Recipe] = DEFAULTS,
        *,
        seconds: float,
        pupil: Pupil = unheard,
    ) -> None:
        source = plan.configuration.source
        expected, got = plan.configuration.sha256, results.run.config_sha256
        if expected != got:
            raise ResultsError(
                f"the results are of another configuration: expected those of {source}, whose hash is "
                f"{expected[:12]}, got {got[:12]}; run the gate again"
            )
        if missing := set(plan.policy_names) - {policy.name for policy in results.run.policies}:
            raise ResultsError(f"policy {listing(missing)} did not judge these results; run the gate with it")
        self.plan = plan
        self.results = results
        self.recipes = recipes
        self.seconds = seconds
        self.clock = Clock(seconds)
        self.text = own_text(plan.configuration)
        self.source = source.with_name("robustgate.toml") if source.name == "pyproject.toml" else source
        self.tribunal = Tribunal(self.red, self.clock, pupil)

    @cached_property
    def red(self) -> Mapping[Red, tuple[str, str]]:
        """What is red in the results: of each its compression, and what there is to tell."""
        policies = {one.name: one for one in self.results.run.policies if one.name in self.plan.policy_names}
        compressions = {variant.name: variant.compression for variant in self.plan.variants}
        found: dict[Red, tuple[str, str]] = {
            ("error", *key(row)): (row.compression, f"{row.name}: {row.message}")
            for row in self.results.cases
            if row.verdict == "error"
        }
        findings = [(row.compression, finding) for row in self.results.cases for finding in row.findings]
        findings += [(compressions[finding.subject], finding) for finding in self.results.findings]
        for compression, one in findings:
            if one.policy in policies and is_red(one.verdict, policies[one.policy].on_undecided):
                found[identity(one)] = compression, f"{one.subject}: {told(one)}"
        return found

    @cached_property
    def failing(self) -> tuple[str, ...]:
        """The compressions that are red, those first that others use, and last the controls, which change with them."""
        tables: Any = tomlkit.parse(self.text).get("compressions", {})

        def depth(name: str) -> int:
            steps = tables[name].get("steps", ()) if name in tables else ()
            return 1 + max((depth(step["use"]) for step in steps if "use" in step), default=0)

        found = dict.fromkeys(compression for compression, _ in self.red.values())
        return tuple(sorted(found, key=lambda name: (is_control(name), depth(name))))

    @cached_property
    def curable(self) -> tuple[str, ...]:
        """Those of them that a recipe can be put into."""
        return tuple(name for name in self.failing if not incurable(self.text, self.plan.configuration, name))

    def check(self) -> None:
        """Raise DomainError where a recipe would learn from images that judge it."""
        overlap = Overlap(self.tribunal.gate(self.plan).library)
        for name in self.curable:
            for recipe in (complete(one, 1) for one in self.recipes):
                with suppress(ConfigurationError):  # what cannot be planned is told when its turn comes
                    plan = self._planned(remedied(self.text, self.plan.configuration, name, recipe))
                    overlap.check(plan, [one for one in plan.variants if one.compression == name])

    def run(self) -> Iterator[Repaired]:
        """Repair one compression after the other, each in an equal part of the time that is left."""
        original = self.plan
        for name in self.failing:
            clean = [row for row in self.results.cases if (row.compression, row.shift.kind) == (name, "clean")]
            trials: tuple[Trial, ...] = ()
            if name in self.curable:
                self.clock.give(len(self.curable) - self.curable.index(name))
                trials = tuple(self._trials(name, is_changed=self.plan.chains[name] != original.chains[name]))
            green = [one for one in trials if one.verdict == "green"]
            taken = max(green, key=lambda one: (one.clean or 0.0, -(one.size or 0.0), -one.seconds), default=None)
            if taken is not None:
                self.text, self.plan = taken.text, self._planned(taken.text)
            replaced = is_control(name) and original.chains[name] not in self.plan.chains.values()
            yield Repaired(
                compression=name,
                red=tuple(text for compression, text in self.red.values() if compression == name),
                clean=mean(row.value for row in clean),
                size=mean(one.size_bytes for one in self.results.variants if one.compression == name),
                incurable="" if replaced else incurable(self.text, self.plan.configuration, name),
                trials=trials,
                taken=taken,
                replaced=replaced,
            )

    def _trials(self, name: str, *, is_changed: bool) -> Iterator[Trial]:
        """Try the recipes in turn; none is tried where it is enough that what the compression uses was repaired."""
        if is_changed:
            trial = self.tribunal.judge(Trial(recipe={}, text=self.text), name, self.plan, self.plan)
            yield trial
            if trial.verdict == "green":
                return
        if self.clock.is_over:
            for one in self.recipes:
                yield Trial(recipe={"recipe": one} if isinstance(one, str) else one, text=self.text)
            return
        fitting = self._fitting(name)
        for recipe in (complete(one, fitting.get(one, 1) if isinstance(one, str) else 1) for one in self.recipes):
            trial = Trial(recipe=recipe, text=remedied(self.text, self.plan.configuration, name, recipe))
            try:
                plan = self._planned(trial.text)
            except ConfigurationError as error:
                yield Trial(recipe=recipe, text=trial.text, verdict="not built", told=error.problems)
            else:
                yield self.tribunal.judge(trial, name, plan, self.plan)

    def _fitting(self, name: str) -> Mapping[str, int]:
        """Return the epochs that fit into a compression's part of the time, of the recipes that are names alone."""
        bare = [recipe for recipe in self.recipes if isinstance(recipe, str)]
        if not bare:
            return {}
        variants = [one for one in self.plan.variants if one.compression == name]
        place = f"{name} in {hashlib.sha256(self.text.encode()).hexdigest()}"
        seconds = self.seconds / len(self.curable) * len(bare) / len(self.recipes)
        return epochs.chosen(self.tribunal.gate(self.plan), variants, bare, seconds, place)

    def _planned(self, text: str) -> Plan:
        return make_plan(parse(text.encode(), self.source), ",".join(self.plan.policy_names))


def complete(recipe: Recipe, epochs: int) -> Mapping[str, Any]:
    """Return a recipe's table; that of one of which only the name stands has so many epochs, if it has any.

    Raises ConfigurationError where there is no recipe of that name.
    """
    if not isinstance(recipe, str):
        return recipe
    cls: Any = shelf("training").component(recipe)
    has_epochs = "epochs" in {field.name for field in fields(cls)}
    return {"recipe": recipe, **({"epochs": epochs} if has_epochs else {})}
