"""How many epochs of a recipe fit into some minutes: told by a few steps of training."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robustgate.core.catalog import shelf
from robustgate.core.components import Samples
from robustgate.core.files import write_whole
from robustgate.core.images import take
from robustgate.core.records import Variant
from robustgate.engine import course
from robustgate.engine.gate import Gate, steady
from robustgate.engine.networks import load_reference
from robustgate.engine.store import Store

MOST = 30
BATCH, STEPS = 128, 3
# What a step takes, in steps of plain training; of a recipe that is not named here, as much as of the dearest.
COSTS: Mapping[str, float] = {"supervised": 1.0, "distillation": 1.5, "sam": 2.0, "asam": 2.0, "adcorda": 3.0}
# The time goes half into training and half into judging; with each variant its control is trained.
SHARE = 0.5 / 2


def chosen(gate: Gate, variants: Sequence[Variant], recipes: Sequence[str], seconds: float, key: str) -> dict[str, int]:
    """Return for each recipe how many epochs fit, 1 to 30, where all of them have so many seconds for these variants.

    The choice is kept under `key`: made anew on a busier day it would be another, and what was trained by the first one
    of no use.
    """

    def choose(folder: Path) -> None:
        epoch = sum(pace(gate, variant) for variant in variants)
        for_each = SHARE * seconds / len(recipes)
        epochs = {name: for_each / (epoch * COSTS.get(name, max(COSTS.values()))) for name in recipes}
        kept = {name: max(1, min(MOST, int(count))) for name, count in epochs.items()}
        write_whole(folder / "epochs.json", json.dumps(kept))

    store = Store(gate.plan.configuration.gate.cache)
    folder, _ = store.entry("repairs", {"key": key, "recipes": list(recipes), "seconds": seconds}, choose)
    found: dict[str, int] = json.loads((folder / "epochs.json").read_text(encoding="utf-8"))
    return found


def pace(gate: Gate, variant: Variant) -> float:
    """Return the seconds that an epoch of plain training takes a variant's reference."""
    samples = gate.library.samples(variant.source, "train")
    model, example = gate.plan.configuration.models[variant.model], gate.foundry.example(variant.source)
    network = load_reference(model, variant.model, variant.source, example.cpu())
    module = network.module.to(gate.device)
    batch = min(BATCH, len(samples))
    recipe = shelf("training").component("supervised")(epochs=1, batch_size=batch)

    def first(count: int) -> Samples:
        return take(samples, np.arange(min(count * batch, len(samples))))

    with steady(gate.plan.configuration.gate.threads):
        course.train(module, recipe, first(1))  # what is made at a first step is not made again
        began = time.perf_counter()
        part = first(STEPS)
        course.train(module, recipe, part)
    return (time.perf_counter() - began) * len(samples) / len(part)
