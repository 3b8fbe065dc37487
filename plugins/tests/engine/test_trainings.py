"""Trainings inside a build: what a kill leaves of them, what they may look at, what judges."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from robustgate.config import load
from robustgate.core.components import Samples
from robustgate.core.errors import CompressionError
from robustgate.core.records import Variant
from robustgate.engine.artifacts import WEIGHTS
from robustgate.engine.course import Course, Lesson, Surroundings
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan

CHAINS = """
[compressions.tuned]
steps = [{ method = "filter_pruning", ratio = 0.25, finetune = { epochs = 4, lr = 0.01, batch_size = 16, shift = 1 } }]
[compressions.again]
steps = [{ finetune = { recipe = "sam", epochs = 2, lr = 0.01, batch_size = 16, shift = 1 } }]
"""
CORAL = """
[compressions.coral]
steps = [{ finetune = { recipe = "deep_coral", target = "night", epochs = 1, lr = 0.01, batch_size = 16, shift = 0 } }]
"""


def gate_of(tiny: Any, extra: str = CHAINS, *changes: tuple[str, str]) -> Gate:
    return Gate(make_plan(load(tiny.configure(*changes, extra=extra)), None), today=date(2026, 1, 1))


def variant(compression: str) -> Variant:
    return Variant(model="tiny", source="day", compression=compression)


def weights(gate: Gate, compression: str) -> dict[str, Any]:
    return load_file(gate.foundry.artifact(variant(compression)).folder / WEIGHTS)


def kept(tiny: Any) -> list[Path]:
    return sorted((tiny.folder / "cache").glob("trainings/*/*"))


class Killed(BaseException):
    """What nothing in the package catches."""


def test_a_build_that_was_killed_goes_on_after_its_last_whole_epoch(tiny) -> None:
    alone = weights(gate_of(tiny, CHAINS, ('cache = "cache"', 'cache = "alone"')), "tuned")
    epochs: list[int] = []

    def killing(lesson: Lesson) -> None:
        epochs.append(lesson.epoch)
        if lesson.epoch == 3:
            raise Killed

    gate = gate_of(tiny)
    gate.foundry.pupil = killing
    with pytest.raises(Killed):
        gate.record(variant("tuned"))
    assert kept(tiny), "two epochs are done, and none was kept"
    resumed: list[int] = []
    gate = gate_of(tiny)
    gate.foundry.pupil = lambda lesson: resumed.append(lesson.epoch)
    found = weights(gate, "tuned")
    assert resumed[0] == 3
    assert found.keys() == alone.keys()
    assert all(value.equal(alone[key]) for key, value in found.items())
    assert not kept(tiny), "what is built needs its epochs no more"


def test_what_fails_leaves_no_epochs_behind(tiny) -> None:
    # The second epoch diverges: the first was kept.
    gate = gate_of(tiny, CHAINS.replace("lr = 0.01", "lr = 1e30"))
    with pytest.raises(CompressionError, match="diverged"):
        gate.record(variant("tuned"))
    assert not kept(tiny)


def test_a_training_that_is_a_step_of_its_own_changes_the_weights_alone(tiny) -> None:
    gate = gate_of(tiny)
    before, after = weights(gate, "none"), weights(gate, "again")
    assert before.keys() == after.keys()
    assert any(not value.equal(before[key]) for key, value in after.items())
    assert gate.record(variant("again")).parameters == gate.record(variant("none")).parameters


def test_a_pair_s_target_that_a_training_looks_at_is_measured_on_its_test_split(tiny) -> None:
    split = ('files = { test = "night.npz" }', 'files = { train = "night_train.npz", test = "night.npz" }')
    with np.load(tiny.folder / "night.npz") as arrays:
        np.savez(
            tiny.folder / "night_train.npz",
            **{key: arrays[key] if key == "classes" else arrays[key][::2] for key in arrays},
        )
    for extra, total in ((CHAINS, 40 + 20), (CHAINS + CORAL, 40)):
        gate = gate_of(tiny, extra, split)
        cases = [case for case in gate.plan.cases if case.shift.kind == "domain_shift"]
        assert {gate.measurements.total(case) for case in cases} == {total}
        # A plan tells the same without reading an image.
        from robustgate.engine.stock import extents

        assert {extent.samples for place, extent in extents(gate.plan).items() if place[1] == "night"} == {total}


def test_the_images_that_a_training_looks_at_decide_which_artifact_it_is(tiny) -> None:
    split = ('files = { test = "night.npz" }', 'files = { train = "other.npz", test = "night.npz" }')
    folders = []
    for level in (10, 200):
        images = np.full((6, 8, 8, 3), level, np.uint8)
        np.savez(
            tiny.folder / "other.npz", images=images, labels=np.zeros(6, np.int64), classes=np.array(["dark", "bright"])
        )
        folders.append(gate_of(tiny, CORAL, split).foundry.artifact(variant("coral")).folder)
    assert folders[0] != folders[1]


@pytest.mark.parametrize("split", ["test", "whole"])
def test_no_recipe_is_given_what_judges(split) -> None:
    def never(*_: object) -> Samples:
        raise AssertionError("it was read")

    import torch

    surroundings = Surroundings(samples=never, unlabelled=never, teacher=never)
    course = Course(surroundings, example=torch.zeros(2, 3, 4, 4), seed=0, doing="a recipe")
    with pytest.raises(CompressionError, match=f"the {split} split judges, or holds what judges"):
        course.samples(split)
