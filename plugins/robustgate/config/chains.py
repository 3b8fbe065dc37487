"""`[compressions]`: chains of steps, presets, files made elsewhere; what a chain promises is checked here."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustgate.config.reader import Reader
from robustgate.config.values import Model, Step
from robustgate.core.errors import listing, nearest
from robustgate.core.records import CONTROL, REFERENCE, is_control

PRESETS = Path(__file__).with_name("presets")


class ChainReader(Reader):
    """Reads the compressions of a configuration, those that they use in their place."""

    def chains(self, tables: Mapping[str, Any], models: Mapping[str, Model | None]) -> dict[str, tuple[Step, ...]]:
        """Return each compression's steps, by its name."""
        own: dict[str, list[Step | str]] = {}
        for name, table in tables.items():
            place = f"compressions.{name}"
            if name == REFERENCE or is_control(name):
                self.complain(place, f"the name {REFERENCE!r} and those that begin with {CONTROL!r} are the gate's own")
            own[name] = self._own_steps(table, place)
        for name, steps in own.items():
            for used in [step for step in steps if isinstance(step, str)]:
                self.known(used, own, f"compressions.{name}.steps", "compression")
        resolved = {name: self._resolved(name, own) for name in own}
        for name, chain in resolved.items():
            self._check_constraints(name, chain)
            self._check_models(name, chain, models)
        return resolved

    def with_preset(self, tables: dict[str, Any]) -> dict[str, Any]:
        """Return the tables of the compressions, with those of a preset where ``preset`` names one."""
        place = "compressions.preset"
        asked = tables.pop("preset", None)
        if asked is None:
            return tables
        table = {"name": asked} if isinstance(asked, str) else self.table(asked, place) or {}
        for key in table.keys() - {"name", "finetune"}:
            self.unknown(place, key, ["name", "finetune"])
        presets = {file.stem: file for file in sorted(PRESETS.glob("*.toml"))}
        name = table.get("name")
        if name not in presets:
            near = nearest(name, presets) if isinstance(name, str) else ""
            self.complain(place, f"no preset {name!r}{near}; known: {listing(presets)}")
            return tables
        preset = tomllib.loads(presets[name].read_text(encoding="utf-8"))
        finetune = table.get("finetune", preset["finetune"])
        for compression, chain in preset["compressions"].items():
            for step in chain["steps"]:
                if step.get("finetune") is True:
                    step["finetune"] = finetune
            if compression in tables:
                self.complain(f"compressions.{compression}", f"the preset {name!r} has a compression of that name too")
        return {**preset["compressions"], **tables}

    def _own_steps(self, value: object, place: str) -> list[Step | str]:
        """Return a compression's steps; for `{ use = "name" }`, the name."""
        table = self.table(value, place)
        if table is None:
            return []
        if "artifact" in table:
            return list(self._made_elsewhere(table, place))
        for key in table.keys() - {"steps"}:
            self.unknown(place, key, ["steps", "artifact"])
        raw = table.get("steps")
        if not isinstance(raw, list) or not raw:
            forms = "{ method = ... }, { use = ... } or { finetune = ... }"
            self.complain(f"{place}.steps", f"expected a list of at least one {forms}")
            return []
        steps: list[Step | str] = []
        for index, item in enumerate(raw):
            at = f"{place}.steps[{index}]"
            step = self.table(item, at)
            if step is None:
                continue
            if "use" not in step:
                steps.extend(self._step(step, at))
            elif len(step) == 1 and isinstance(step["use"], str):
                steps.append(step["use"])
            else:
                self.complain(at, "'use' stands alone and names a compression: { use = \"fp60\" }")
        return steps

    def _made_elsewhere(self, table: dict[str, Any], place: str) -> list[Step]:
        """Return the step that takes a file as it is: `artifact = { model = { source = "file" } }`."""
        for key in table.keys() - {"artifact", "input"}:
            self.unknown(place, key, ["artifact", "input"])
        given = {"method": "artifact", "files": table["artifact"]}
        if "input" in table:
            given["input"] = table["input"]
        before = len(self.problems)
        steps = self._step(given, place)
        # The component's field is the table's key here.
        self.problems[before:] = [one.replace(f"{place}.files", f"{place}.artifact") for one in self.problems[before:]]
        return steps

    def _step(self, table: dict[str, Any], place: str) -> list[Step]:
        """Return a step, or one for each of its rounds."""
        method, finetune = table.get("method"), table.pop("finetune", None)
        recipe = None
        if finetune is not None:
            recipe = self.component("training", finetune, f"{place}.finetune", key="recipe", default="supervised")
            if not table:
                return [Step(method=None, component=None, finetune=recipe)]
        component = self.component("compression", table, place, key="method")
        if recipe is not None and getattr(component, "product", None) == "file" and not hasattr(component, "finish"):
            self.complain(f"{place}.finetune", f"{method} ends in a file, which cannot be fine-tuned")
        if component is not None and recipe is None and hasattr(component, "finish"):
            self.complain(place, f"{method} is made by its fine-tuning: give finetune = {{ epochs = ... }}")
        self.check_extra(component, method, place)
        steps = []
        while component is not None:
            steps.append(Step(method=method, component=component, finetune=recipe))
            component = component.next_round() if hasattr(component, "next_round") else None
        return steps

    def _resolved(
        self, name: str, own: Mapping[str, list[Step | str]], users: tuple[str, ...] = ()
    ) -> tuple[Step, ...]:
        place = f"compressions.{name}.steps"
        if name in users:
            self.complain(place, f"'use' goes round in a circle: {' → '.join([*users, name])}")
            return ()
        steps: list[Step] = []
        for step in own.get(name, []):
            last = steps[-1].component if steps else None
            if last is not None and last.product == "file":
                self.complain(place, f"{steps[-1].method} ends in a file, which no further step can change")
            steps.extend(self._resolved(step, own, (*users, name)) if isinstance(step, str) else [step])
        return tuple(steps)

    def _check_constraints(self, name: str, steps: tuple[Step, ...]) -> None:
        """Complain of a step that cannot keep what one before it made."""
        made: dict[str, str | None] = {}
        for step in steps:
            if step.component is None:
                continue
            for kind in sorted(made.keys() - step.component.keeps):
                self.complain(
                    f"compressions.{name}.steps",
                    f"{step.method} cannot keep the {kind} that {made[kind]} made; put {step.method} before it"
                    if step.method != made[kind]
                    else f"{step.method} cannot keep the {kind} that it made in a step before",
                )
            made |= {kind: made.get(kind, step.method) for kind in step.component.makes}

    def _check_models(self, name: str, steps: tuple[Step, ...], models: Mapping[str, Model | None]) -> None:
        """Complain of models that a step needs, or has files for, and that the configuration does not have."""
        for step in steps:
            place = f"compressions.{name}"
            for needed in step.models:
                self.known(needed, models, place, "model")
                self._check_sources(needed, models, place)
            files: Mapping[str, Mapping[str, Path]] = getattr(step.component, "files", {})
            for model, sources in files.items():
                self.known(model, models, f"{place}.artifact", "model")
                found = models.get(model)
                weights = found.weights if found is not None else sources
                for source, file in sources.items():
                    self.known(source, weights, f"{place}.artifact.{model}", "source domain")
                    if not file.is_file():
                        self.complain(f"{place}.artifact.{model}.{source}", f"no such file: {file}")

    def _check_sources(self, needed: str, models: Mapping[str, Model | None], place: str) -> None:
        borrowed = models.get(needed)
        everywhere = {source for model in models.values() if model is not None for source in model.weights}
        if borrowed is not None and (missing := everywhere - borrowed.weights.keys()):
            self.complain(
                place, f"model {needed!r} has no weights for {listing(missing)}: it is needed for each source"
            )
