"""What is there before anything runs: how many samples, which artifacts. Nothing is decoded, and no torch imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robustgate.core.components import Extent, Split
from robustgate.core.errors import DomainError
from robustgate.core.files import sha256
from robustgate.core.records import Variant
from robustgate.engine.cost import Data, data_of
from robustgate.engine.identity import component_identity
from robustgate.engine.plan import Plan
from robustgate.engine.store import SEAL, code_version


def extents(plan: Plan) -> dict[Data, Extent]:
    """Return how many samples the cases of a plan have, where their domains can tell without reading any."""
    found: dict[Data, Extent] = {}
    domains = plan.configuration.domains
    for place in dict.fromkeys(data_of(plan, case) for case in plan.cases):
        source, target, corruption, _ = place
        if corruption is None:  # a stored benchmark's files are looked for, and not opened
            extent = counted(domains[target or source], plan.configuration.judging_split(target) if target else "test")
            if extent is not None:
                found[place] = extent
    return found


def counted(domain: object, split: Split) -> Extent | None:
    """Return how many samples a split of a domain has, where the domain can tell.

    One whose files are missing or damaged tells nothing either: the run says what is wrong with them.
    """
    count = getattr(domain, "count", None)
    try:
        return count(split) if count is not None else None
    except DomainError:
        return None


def kept(plan: Plan) -> set[Variant]:
    """Return the variants of which the cache holds an artifact of these weights, steps, versions, seed and threads.

    The data, of which an artifact is made too, are not read for it, nor is a network's code run: what differs in these
    alone is built again all the same.
    """
    gate = plan.configuration.gate
    found = [_identity(seal) for seal in (gate.cache / "artifacts").glob(f"*/{SEAL}")]
    code = code_version()
    alike = [
        one
        for one in found
        if (one.get("seed"), one.get("threads"), one.get("code")) == (gate.seed, gate.threads, code)
        and gate.device in ("auto", one.get("device"))
    ]
    made = {_made(one) for one in alike}
    return {variant for variant in plan.variants if made and _wanted(plan, variant) in made}


def _identity(seal: Path) -> dict[str, Any]:
    try:
        identity = json.loads(seal.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # damaged: it will be built again
    return identity if isinstance(identity, dict) else {}


def _made(identity: dict[str, Any]) -> str:
    """Return what an artifact was made of, of that which `_wanted` can tell."""
    made = [step[:2] for step in identity["steps"]]
    return json.dumps([identity["names"], identity["model"][0], made], sort_keys=True)


def _wanted(plan: Plan, variant: Variant) -> str | None:
    steps = plan.chains[variant.compression]
    try:
        made = [[component_identity(step.component), component_identity(step.finetune)] for step in steps]
        weights = sha256(plan.configuration.models[variant.model].weights[variant.source])
    except OSError:
        return None  # a file that is missing: the run says so
    return json.dumps([[variant.model, variant.source], weights, made], sort_keys=True)
