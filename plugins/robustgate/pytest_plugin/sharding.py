"""One of several parts of a run, as a job of a CI matrix takes it; `robustgate merge` puts the parts together."""

from __future__ import annotations

import re

import pytest

from robustgate.pytest_plugin import option
from robustgate.pytest_plugin.items import variant_of


def shard_of(config: pytest.Config) -> tuple[int, int] | None:
    """Return which part of how many is asked for, or None. Raises UsageError for what is no such part."""
    text = option(config, "shard")
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise pytest.UsageError(f"robustgate: --robustgate-shard: expected a part of a whole, 1/4 to 4/4, got {text!r}")
    return int(found[1]), int(found[2])


def part_of(items: list[pytest.Item], number: int, of: int) -> list[pytest.Item]:
    """Return the tests of part `number`, from 1, of `of`, in their order.

    Parts are runs of variants, as even as they come, so that few variants are built twice. A test without a variant is
    in the first.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(map(variant_of, items)))}
    ordered = sorted(filter(variant_of, items), key=lambda item: places[variant_of(item)])
    first, end = (len(ordered) * place // of for place in (number - 1, number))
    mine = set(ordered[first:end])
    return [item for item in items if item in mine or (number == 1 and not variant_of(item))]
