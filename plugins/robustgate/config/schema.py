"""A JSON Schema of robustgate.toml, by which editors complete and check it: made of what the reader reads.

It says what keys there are and of what types; what values mean together, and which names exist, only the reader knows.
What stands in several places, as a recipe in each step, stands once in `$defs` and is referred to by `$ref` alone,
without a word beside it: of these editors think differently.
"""

from __future__ import annotations

import json
import re
import types
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import getdoc
from itertools import chain, count
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from robustgate.config.chains import PRESETS
from robustgate.config.load import NAME
from robustgate.config.policies import ONE_OF
from robustgate.config.reader import is_pruning
from robustgate.config.values import CaseRule, Corruptions, Gate, Masking, Model, Policy, RunRule, Shifts, Waiver
from robustgate.core.catalog import is_part, shelf
from robustgate.core.components import Attack, Pruning, Recipe
from robustgate.core.records import CONTROL, REFERENCE, WHERE_CASE, WHERE_VARIANT

SCHEMA_ID = "urn:robustgate:config"
# Where a sentence of a docstring ends, or a part of one, a paragraph, or a point of a list.
END = re.compile(r"(?<=[.;])\s+(?=[A-Z`])|\n\n|\n- ")

# A shorter schema is read more easily where it stands.
WORTH_SHARING = 100

Schema = dict[str, Any]
Kind = tuple[Schema, Schema]
"""A condition on a table, and the schema of a table that meets it."""


def json_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of robustgate.toml, with every component that is installed here."""
    properties = {
        "gate": _table(Gate),
        "domains": _named(_either(_components("domains", "kind"), {"required": ["kind"]}), least=1),
        "models": _named(_table(Model), least=1),
        "compressions": _compressions(),
        "shifts": _table(Shifts, corruptions=_table(Corruptions, names=_corruption_names())),
        "attacks": _named(_either(_attacks(), {"required": ["method"]})),
        "masking": _table(Masking),
        "policies": _named(_policy(), least=1),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "robustgate.toml",
        **_shared(_object(properties, ["domains", "models", "policies"])),
    }


def _object(properties: Mapping[str, Schema], required: Sequence[str]) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _named(schema: Schema, least: int = 0) -> Schema:
    """Return the schema of tables with names of the user's own."""
    names = {"pattern": f"^{NAME.pattern}$"}
    return {"type": "object", "propertyNames": names, "additionalProperties": schema, "minProperties": least}


def _table(cls: type, *, without: Collection[str] = (), **given: Schema) -> Schema:
    """Return the schema of a dataclass's table, where `given` takes the place of what a field's type says."""
    hints = get_type_hints(cls)
    # What it has from another class, that class's text tells of.
    text = "\n\n".join(filter(None, map(getdoc, (one for one in cls.__mro__ if is_dataclass(one)))))
    known = [field for field in fields(cls) if field.name not in without]
    properties = {
        field.name: {**_sentences(field.name, text), **(given.get(field.name) or _value(hints[field.name]))}
        | _default(field)
        for field in known
    }
    required = [field.name for field in known if field.default is MISSING and field.default_factory is MISSING]
    # The rest of the text is mostly about single fields, whose descriptions have it.
    return {"description": " ".join(text.partition("\n\n")[0].split()), **_object(properties, required)}


def _value(hint: Any) -> Schema:
    """Return the schema of what `Reader.value` takes as the type `hint`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):  # TOML has no null: None is a key that is left out
        options = [_value(option) for option in args if option is not types.NoneType]
        return options[0] if len(options) == 1 else {"anyOf": options}
    if origin is tuple and args[1:] == (Ellipsis,):
        return {"type": "array", "items": _value(args[0])}
    if origin is dict and get_origin(args[0]) is Literal:
        return _object({key: _value(args[1]) for key in get_args(args[0])}, [])
    if hint is Recipe:
        return _recipe()
    if hint is Attack:
        return _either(_attacks(), {"required": ["method"]})
    if hint is Pruning:
        return _either(_components("compression", "method", default="filter_pruning", fits=is_pruning), {})
    return _table(hint) if is_dataclass(hint) and isinstance(hint, type) else TypeAdapter(hint).json_schema()


def _default(field: Field[Any]) -> Schema:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    # A component by itself is no table: its name would be missing, and its infinities are no JSON.
    is_told = default is not None and default is not MISSING and not is_part(default)
    return {"default": to_jsonable_python(default)} if is_told else {}


def _sentences(name: str, text: str) -> Schema:
    """Return what a docstring says of one of its fields, as a description."""
    said = [" ".join(sentence.split()) for sentence in END.split(text) if re.search(f"`{name}\\b", sentence)]
    return {"description": " ".join(said)} if said else {}


# What stands in several places.


def _shared(schema: Schema) -> Schema:
    """Return a schema in which what was there more than once is in `$defs`."""
    counts = Counter(_text(part) for part in _parts(schema))
    names: dict[str, str] = {}
    definitions: dict[str, Schema] = {}

    def refer(part: Schema, name: str) -> Schema:
        text = _text(part)
        if counts[text] == 1 or len(text) < WORTH_SHARING:
            return _each(part, refer, name)
        if text not in names:
            # A title, as a library's "foolbox:<attack>", may hold what a reference must not.
            names[text] = _unused(re.sub(r"\W+", "_", name).strip("_"), names.values())
            definitions[names[text]] = _each(part, refer, name)
        return {"$ref": f"#/$defs/{names[text]}"}

    return {**_each(schema, refer, ""), "$defs": definitions}


def _parts(schema: Schema) -> list[Schema]:
    """Return a schema and all schemas in it."""
    found = [schema]

    def take(part: Schema, _: str) -> Schema:
        found.extend(_parts(part))
        return part

    _each(schema, take, "")
    return found


def _each(schema: Schema, change: Callable[[Schema, str], Schema], name: str) -> Schema:
    """Return a schema with each of those in it changed; `change` hears by which key it would be called."""
    changed = dict(schema)
    for key in ("items", "additionalProperties", "then", "else"):
        if isinstance(schema.get(key), dict):
            changed[key] = change(schema[key], schema[key].get("title", name))
    for key in ("anyOf", "allOf"):
        if key in schema:
            changed[key] = [change(part, name) for part in schema[key]]
    if "properties" in schema:
        changed["properties"] = {key: change(part, key) for key, part in schema["properties"].items()}
    return changed


def _text(schema: Schema) -> str:
    return json.dumps(schema, sort_keys=True)


def _unused(name: str, taken: Collection[str]) -> str:
    return next(one for one in chain([name], (f"{name}_{number}" for number in count(2))) if one not in taken)


# Tables of several kinds.


def _either(kinds: Iterable[Kind], otherwise: Schema) -> Schema:
    """Return the schema of a table that is of the kind whose condition holds, `otherwise` where none does.

    Where `oneOf` says no more of a mistake than that nothing fits, conditions lead to the place where it stands. But
    editors complete what they see in `properties`: there stand the keys of all kinds, once more.
    """
    kinds, keys = list(kinds), dict[str, list[Schema]]()
    chosen = [{"if": condition, "then": table} for condition, table in kinds]
    if otherwise:
        chosen.append({"if": {"anyOf": [condition for condition, _ in kinds]}, "else": otherwise})
    for _, table in kinds:
        for key, schema in table["properties"].items():
            keys.setdefault(key, []).append(schema)
    return _object({key: _any(schemas) for key, schemas in keys.items()}, []) | {"allOf": chosen}


def _any(schemas: Sequence[Schema]) -> Schema:
    names = [one["const"] for one in schemas if "const" in one]
    options: list[Schema] = [{"enum": names}] if names else []
    for one in schemas:
        if "const" not in one and one not in options:
            options.append(one)
    return options[0] if len(options) == 1 else {"anyOf": options}


def _components(
    shelf_name: str, key: str, default: str | None = None, *, fits: Callable[[type], bool] = lambda _: True
) -> Iterator[Kind]:
    """Yield the kinds of a table in which `key` names a component of a shelf that fits."""
    for name in (one for one in shelf(shelf_name).names if fits(shelf(shelf_name).component(one))):
        told, table = {key: {"const": name}}, _table(shelf(shelf_name).component(name))
        required = [] if name == default else [key]
        condition = {"properties": told, "required": required}
        properties, required = {**told, **table["properties"]}, [*required, *table["required"]]
        yield condition, {"title": name, **table, "properties": properties, "required": required}


def _recipe() -> Schema:
    return _either(_components("training", "recipe", default="supervised"), {})


def _corruption_names() -> Schema:
    names = {"type": "array", "items": {"enum": list(shelf("corruptions").names)}}
    return {"anyOf": [names, {"enum": ["benchmark", "all"]}]}


def _attacks() -> Iterator[Kind]:
    """Yield the attacks; a library's twice, for its attack is named in `method` or beside it."""
    for condition, table in _components("attacks", "method"):
        if "attack" not in table["properties"]:
            yield condition, table
            continue
        yield condition, {**table, "required": [*table["required"], "attack"]}
        library = table["title"]
        named = {"type": "string", "pattern": f"^{re.escape(library)}:."}
        own = {key: value for key, value in table["properties"].items() if key != "attack"}
        theirs = {**table, "title": f"{library}:<attack>", "properties": {**own, "method": named}}
        yield {"properties": {"method": named}, "required": ["method"]}, theirs


# Compressions


def _compressions() -> Schema:
    presets = {"enum": sorted(file.stem for file in PRESETS.glob("*.toml"))}
    preset = {"anyOf": [presets, _object({"name": presets, "finetune": _recipe()}, ["name"])]}
    steps = {"type": "array", "items": _either(_steps(), {"required": ["method"]}), "minItems": 1}
    forms = _object({"steps": steps, **_made_elsewhere()}, []) | {
        "if": {"required": ["artifact"]},
        "then": {"not": {"required": ["steps"]}},
        "else": {"required": ["steps"]},
        "dependentRequired": {"input": ["artifact"]},
    }
    tables = _named(forms)
    own = {"not": {"pattern": f"^({REFERENCE}$|{CONTROL})"}}
    return {**tables, "propertyNames": tables["propertyNames"] | own, "properties": {"preset": preset}}


def _steps() -> Iterator[Kind]:
    use = {"description": "The steps of another compression.", "type": "string"}
    yield {"required": ["use"]}, _object({"use": use}, ["use"])
    yield {"not": {"required": ["method"]}, "required": ["finetune"]}, _object({"finetune": _recipe()}, ["finetune"])
    for condition, table in _components("compression", "method"):
        component = shelf("compression").component(table["title"])
        finishes = hasattr(component, "finish")
        if finishes or getattr(component, "product", None) != "file":
            table["properties"]["finetune"] = _recipe()
        yield condition, {**table, "required": [*table["required"], "finetune"]} if finishes else table


def _made_elsewhere() -> dict[str, Schema]:
    """Return the keys of a compression that is a file: those of its component, one under another name."""
    properties = _table(shelf("compression").component("artifact"))["properties"]
    return {"artifact" if key == "files" else key: value for key, value in properties.items()}


# Policies


def _policy() -> Schema:
    waivers = {"type": "array", "items": _table(Waiver, where=_where(WHERE_CASE))}
    table = _table(Policy, without=("name", "case_rules", "run_rules"), waivers=waivers)
    rules = {"type": "array", "items": _either(_rules(), {}), "minItems": 1}
    table["properties"] = {"rules": rules, **table["properties"]}
    needs_rules = {"if": {"required": ["extends"]}, "else": {"required": ["rules"]}}
    return {**table, **needs_rules, "not": {"required": list(ONE_OF)}}


def _rules() -> Iterator[Kind]:
    limits = [{"required": ["min"]}, {"required": ["max_drop"]}]
    yield {"not": {"required": ["rule"]}}, {**_table(CaseRule, where=_where(WHERE_CASE)), "anyOf": limits}
    own = _table(RunRule, without=("component",), where=_where(WHERE_VARIANT))
    for condition, rule in _components("rules", "rule"):
        properties, required = own["properties"] | rule["properties"], [*own["required"], *rule["required"]]
        yield condition, {**rule, "properties": properties, "required": required}


def _where(known: Sequence[str]) -> Schema:
    return _object({key: {"type": "string"} for key in known}, [])
