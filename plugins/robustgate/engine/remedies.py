"""A recipe put into a compression's chain, in the text of the configuration, whose comments stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.items import Array

from robustgate.compression.artifact import Artifact
from robustgate.config import Configuration, Step
from robustgate.core.errors import CompressionError
from robustgate.core.records import REFERENCE, is_control


def own_text(configuration: Configuration) -> str:
    """Return the text of a configuration, as that of a robustgate.toml."""
    content = configuration.source.read_bytes().decode()
    if configuration.source.name != "pyproject.toml":
        return content
    document, project = tomlkit.document(), tomlkit.parse(content)
    tool: Any = project["tool"]
    for key, item in tool["robustgate"].value.body:
        document.append(key, item)
    return tomlkit.dumps(document)


def incurable(text: str, configuration: Configuration, compression: str) -> str:
    """Return why no recipe can be put into a compression's chain, or an empty text."""
    if compression == REFERENCE:
        return "it is the model as it was trained: robustgate train gives it other weights"
    if is_control(compression):
        return "it is the reference with a compression's fine-tuning, and changes with that"
    end = configuration.compressions[compression][-1]
    if isinstance(end.component, Artifact):
        return "it is a file that was made elsewhere: whoever makes it has to train it"
    tables: Any = tomlkit.parse(text)["compressions"]
    while compression in tables:
        last = tables[compression]["steps"][-1]
        if "use" not in last or not _is_made_last(end):
            return ""
        compression = last["use"]
    return f"{compression!r} is of the preset: write its steps into the configuration"


def remedied(text: str, configuration: Configuration, compression: str, recipe: Mapping[str, Any]) -> str:
    """Return a configuration's text with a recipe in a compression's chain, which `configuration` has read from it.

    A network is trained after all that is done to it, a file before it is made; what is made by its fine-tuning has
    the recipe in place of that. Raises CompressionError where there is nothing to train.
    """
    if problem := incurable(text, configuration, compression):
        raise CompressionError(problem)
    document = tomlkit.parse(text)
    tables: Any = document["compressions"]
    table = tables[compression]
    end = configuration.compressions[compression][-1]
    while _is_made_last(end) and "use" in table["steps"][-1]:
        # What another compression ends in is changed here alone: its steps take the place of its name.
        used = tables[table["steps"].pop()["use"]]["steps"]
        for step in used:
            _insert(table, len(table["steps"]), step.unwrap())
    steps = table["steps"]
    if hasattr(end.component, "finish"):
        steps[-1]["finetune"] = tomlkit.value(inline(recipe)) if isinstance(steps, Array) else recipe
    else:
        _insert(table, len(steps) - _is_made_last(end), {"finetune": recipe})
    return tomlkit.dumps(document)


def inline(value: Any) -> str:
    """Return a value as TOML in one line: ``{ recipe = "sam", epochs = 3 }``."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{tomlkit.key(key).as_string()} = {inline(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    text: str = tomlkit.item(value).as_string()
    return text


def _is_made_last(end: Step) -> bool:
    """Say whether a chain ends in what no training can follow, or in what is made by its own."""
    return hasattr(end.component, "finish") or getattr(end.component, "product", "network") == "file"


def _insert(table: Any, index: int, step: Mapping[str, Any]) -> None:
    """Insert a step into a compression's, in the form that they are written in."""
    steps = table["steps"]
    if not isinstance(steps, Array):
        steps.insert(index, step)
    elif "\n" in steps.as_string():
        steps.insert(index, tomlkit.value(inline(step)))
    else:  # tomlkit itself would leave no spaces
        parts = [one.as_string() for one in steps]
        parts.insert(index, inline(step))
        table["steps"] = tomlkit.value(f"[{', '.join(parts)}]")
