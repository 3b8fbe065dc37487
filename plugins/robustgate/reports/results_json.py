"""results.json: written exactly, read back checked, described by a JSON Schema."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from robustgate.core.errors import ResultsError, listing, nearest
from robustgate.core.files import write_whole
from robustgate.core.records import RESULTS_SCHEMA, Results

SCHEMA_ID = f"urn:{RESULTS_SCHEMA.replace('/', ':')}"
MOST_PROBLEMS = 10
SURROGATE = re.compile("[\ud800-\udfff]")

# What each of pydantic's error types expected, in our words.
EXPECTED = {
    "bool_type": "true or false",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "a text",
    "tuple_type": "a list",
}


class _RepeatedKeyError(ValueError):
    """An object of the file names a key twice; a reader would see one of them without a word."""


def dumps(results: Results) -> str:
    """Return the text of results.json: keys in the dataclasses' order, every float to its last bit.

    Raises ResultsError where a value is not of its field's type, or is not JSON: NaN, an infinity, another object.
    """
    heading = "results cannot be written"
    content = asdict(results)
    _refuse_not_json(content, heading)
    # Through the reader once: what is written can be read, and a whole number in a float's place becomes a float.
    checked = _validated(json.dumps(content), heading)
    return json.dumps(asdict(checked), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write(results: Results, path: Path) -> None:
    """Write results.json to `path`, whole or not at all. Raises ResultsError as `dumps` does."""
    write_whole(path, dumps(results))


def load(path: Path) -> Results:
    """Read a results.json.

    Raises ResultsError where the file is missing, damaged, of another schema, or holds keys or values that the
    records do not have; the message names the file and, for each mistake, key, expected and got.
    """
    try:
        text = path.read_bytes().decode()
        content = json.loads(text, object_pairs_hook=_object)
    except OSError as error:
        raise ResultsError(f"{path}: expected a results.json, cannot read it: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: expected a whole results.json, the file is damaged: {error}") from error
    found = content.get("schema") if isinstance(content, dict) else None
    if found != RESULTS_SCHEMA:
        got = "no such key" if found is None else _show(found)
        raise ResultsError(f"{path}: schema: expected {RESULTS_SCHEMA!r}, got {got}")
    _refuse_not_json(content, str(path))
    return _validated(text, str(path))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of results.json, made from the dataclasses."""
    definitions = _adapter().json_schema()["$defs"]
    top = definitions.pop("Results")
    top["properties"]["schema"] = {"const": RESULTS_SCHEMA, "title": "Schema", "type": "string"}
    top["required"] = ["schema", *top["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **top,
        "title": f"Results of a robustgate run ({RESULTS_SCHEMA})",
        "$defs": definitions,
    }


@cache
def _adapter() -> TypeAdapter[tuple[Results]]:
    # Pydantic takes no configuration for a bare standard dataclass, but hands a container's down to those within.
    return TypeAdapter(tuple[Results], config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))


def _validated(text: str, heading: str) -> Results:
    """Return the results that a JSON text holds; `heading` begins the message where it holds something else."""
    try:
        return _adapter().validate_json(f"[{text}]")[0]
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise ResultsError(_message(heading, [_problem(detail) for detail in details])) from error


def _refuse_not_json(content: object, heading: str) -> None:
    problems = [f"{place}: expected a JSON value, got {got}" for place, got in _not_json(content, "")]
    if problems:
        raise ResultsError(_message(heading, problems))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(f"key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def _not_json(value: object, place: str) -> Iterator[tuple[str, str]]:
    """Yield place and text of every value that JSON cannot hold."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _not_json(item, f"{place}.{key}" if place else key)
            else:
                yield place, f"the key {key!r}"
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _not_json(item, f"{place}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, f"the number {value!r}"
    elif isinstance(value, str) and SURROGATE.search(value):
        yield place, f"the text {value!r}, which UTF-8 cannot hold"
    elif not isinstance(value, str | int | float | None):
        yield place, f"{value!r} ({type(value).__name__})"


def _problem(detail: Any) -> str:
    """Return one mistake in our words, from one of pydantic's error details."""
    kind, location = detail["type"], detail["loc"][1:]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    if kind == "unexpected_keyword_argument":
        parent, _, _ = place.rpartition(".")
        known = _keys_at(location[:-1])
        key = f"unknown key {location[-1]!r}{nearest(location[-1], known)}"
        return f"{parent or 'top level'}: {key}; known: {listing(known)}"
    if kind == "missing":
        return f"{place}: expected a value, got no such key"
    if kind == "literal_error":
        expected = detail["ctx"]["expected"]
        hint = nearest(str(detail["input"]), re.findall("'([^']*)'", expected))
        return f"{place}: expected {expected}, got {_show(detail['input'])}{hint}"
    return f"{place}: expected {EXPECTED.get(kind, detail['msg'])}, got {_show(detail['input'])}"


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    """Return the keys of the record that stands at `location` in a results.json."""
    record: Any = Results
    for part in location:
        record = get_type_hints(record)[part] if is_dataclass(record) else get_args(record)[0]
        record = get_args(record)[0] if isinstance(record, UnionType) else record
    return [field.name for field in fields(record)]


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _message(heading: str, problems: list[str]) -> str:
    count = len(problems)
    shown = [f"  {problem}" for problem in problems[:MOST_PROBLEMS]]
    rest = [f"  and {count - MOST_PROBLEMS} more"] if count > MOST_PROBLEMS else []
    return "\n".join([f"{heading}: {count} mistake{'s' if count != 1 else ''}", *shown, *rest])
