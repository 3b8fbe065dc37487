"""AdCorDA: the corrected set, what is trained on it, float and quantized, and that a kill changes nothing."""

from __future__ import annotations

import copy
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from bright_halves import course_of, network, network_of, same, samples_of, sides
from mortal import Killed, Mortal
from numpy.typing import NDArray
from torch import nn

from robustgate.attacks.ddn import Ddn
from robustgate.attacks.pgd import Pgd
from robustgate.config import load
from robustgate.core.components import Samples
from robustgate.core.errors import CompressionError
from robustgate.core.records import Variant
from robustgate.engine.course import Course, Lesson, train
from robustgate.engine.data import as_tensor
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.training._coral import coral
from robustgate.training.adcorda import AdCorDa
from robustgate.training.supervised import Supervised


def doubtful() -> Samples:
    """Every sixth label is the other one: what a network that has learnt the rest gets wrong."""
    samples = sides()
    labels = samples.labels.copy()
    labels[::6] = 1 - labels[::6]
    return samples_of(np.asarray(samples.images), labels)


SAMPLES = doubtful()


@pytest.fixture(scope="module")
def learnt() -> nn.Module:
    module = network()
    train(module, Supervised(epochs=6, batch_size=16, shift=0), sides())
    return module


@torch.no_grad()
def right(module: nn.Module, samples: Samples) -> NDArray[np.bool_]:
    images = torch.from_numpy(samples.images[:]).permute(0, 3, 1, 2) / 255
    return module(images).argmax(1).numpy() == samples.labels


def test_the_attack_that_nobody_names_finds_the_nearest_image_that_can_be_stored() -> None:
    assert AdCorDa(epochs=1).attack == Ddn(eps=1e4, levels=256)
    # A recipe is a key of the plan.
    assert len({AdCorDa(epochs=1), AdCorDa(epochs=1), AdCorDa(epochs=1, attack=Pgd(eps=0.1))}) == 2


def test_the_new_set_has_the_old_ones_size_labels_and_untouched_correct_samples(learnt: nn.Module) -> None:
    course = course_of(SAMPLES)
    corrected, rows = course.corrected(network_of(learnt), Ddn(eps=1e4, levels=256))
    before = right(learnt, SAMPLES)
    assert 10 < (~before).sum() < 30
    assert rows.tolist() == np.flatnonzero(~before).tolist()
    assert right(learnt, corrected).all()
    assert len(corrected) == len(SAMPLES)
    assert np.array_equal(corrected.labels, SAMPLES.labels)
    assert (corrected.names, corrected.classes) == (SAMPLES.names, SAMPLES.classes)
    assert np.array_equal(corrected.images[before], SAMPLES.images[before])
    assert not (corrected.images[rows] == SAMPLES.images[rows]).all(axis=(1, 2, 3)).any()


def test_what_cannot_be_corrected_stays_as_it_is(learnt: nn.Module) -> None:
    near, far = (course_of(SAMPLES).corrected(network_of(learnt), Pgd(eps=eps)) for eps in (0.22, 0.4))
    assert 0 < len(near[1]) < len(far[1]) <= (~right(learnt, SAMPLES)).sum()
    left = np.setdiff1d(np.arange(len(SAMPLES)), near[1])
    assert np.array_equal(near[0].images[left], SAMPLES.images[left])


def test_it_learns_the_corrected_images_and_aligns_them_with_those_that_were(learnt: nn.Module) -> None:
    module = copy.deepcopy(learnt)
    recipe = AdCorDa(epochs=1, batch_size=len(SAMPLES), layers={"logits": 1.0})
    course = course_of(SAMPLES)
    corrected, _ = course.corrected(network_of(learnt), recipe.attack)
    run = recipe.begin(network_of(module), course)
    images, labels = next(run.shuffled())
    # Nothing is moved on its way: a pixel aside, most corrections are none.
    shown = {image.tobytes() for image in (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()}
    assert shown == {image.tobytes() for image in corrected.images[:]}
    with torch.no_grad():
        source, target = (
            module(torch.from_numpy(one.images[:]).permute(0, 3, 1, 2) / 255) for one in (corrected, SAMPLES)
        )
        expected = nn.functional.cross_entropy(source, torch.from_numpy(SAMPLES.labels))
        expected = expected + coral(source, target)
    assert float(run.loss(images, labels).detach()) == pytest.approx(float(expected), rel=1e-4)


def test_a_network_that_is_right_everywhere_has_nothing_to_correct(learnt: nn.Module) -> None:
    assert right(learnt, sides()).all()
    with pytest.raises(CompressionError, match="adcorda: nothing was corrected: the network classifies every training"):
        train(learnt, AdCorDa(epochs=1), sides())


@pytest.mark.parametrize("at", np.random.default_rng(8).choice(36, 3, replace=False).tolist())
def test_a_training_that_was_killed_ends_with_the_same_weights_and_corrects_once(
    at: int, learnt: nn.Module, tmp_path: Path
) -> None:
    recipe = AdCorDa(epochs=3, batch_size=16, flip=True)
    whole = Mortal(copy.deepcopy(learnt))
    train(whole, recipe, SAMPLES, seed=4)
    heard: list[list[Lesson]] = [[], []]
    mortal = Mortal(copy.deepcopy(learnt), at)
    with pytest.raises(Killed):
        train(mortal, recipe, SAMPLES, seed=4, folder=tmp_path, pupil=heard[0].append)
    again = Mortal(copy.deepcopy(learnt))
    train(again, recipe, SAMPLES, seed=4, folder=tmp_path, pupil=heard[1].append)
    assert same(again.state_dict(), whole.state_dict())
    corrections = [[one for one in lessons if "correcting" in one.doing] for lessons in heard]
    assert corrections[0][-1].share == 1
    assert not corrections[1]


def test_the_set_that_is_kept_is_the_set_that_was_made(learnt: nn.Module, tmp_path: Path) -> None:
    attack = Ddn(eps=1e4, levels=256)
    made, rows = course_of(SAMPLES, folder=tmp_path).corrected(network_of(learnt), attack)
    course: Course = course_of(SAMPLES, folder=tmp_path)
    kept, again = course.corrected(network_of(learnt), attack)
    assert np.array_equal(rows, again)
    assert np.array_equal(kept.images[:], made.images[:])


# Through the engine: the tiny project's network, which takes grey levels of 128 to 141 for dark, learns that they are not.

CHAINS = """
[compressions.int8]
steps = [{ method = "static_quantization", calibration_images = 100 }]
[compressions.trained]
steps = [{ method = "quantization_aware_training", calibration_images = 100, finetune = { recipe = "adcorda", epochs = 20, batch_size = 16, lr = 0.005 } }]
[compressions.other]
steps = [{ finetune = { recipe = "adcorda", epochs = 1, attack = { method = "pgd", eps = 0.2 }, layers = { conv = 0.1 } } }]
"""


@pytest.fixture
def gate(tiny) -> Gate:
    tiny.write_weights(torch.tensor([0.9, 0.9, 0.9, 0.09]))
    return Gate(make_plan(load(tiny.configure(extra=CHAINS))), today=date(2026, 1, 1))


def right_of(gate: Gate, compression: str) -> int:
    """How many of 144 images a variant classifies right, as it ships."""
    subject = gate.foundry.subject(Variant(model="tiny", source="day", compression=compression))
    images, labels = as_tensor(gate.library.samples("day", "train"), slice(None), subject.device)
    return int((subject.logits(images).argmax(dim=1) == labels).sum())


def test_a_quantized_network_is_repaired_through_its_simulation(gate: Gate) -> None:
    assert right_of(gate, "none") == 144 - 14
    before = right_of(gate, "int8")
    assert 144 - 16 <= before <= 144 - 12
    assert right_of(gate, "trained") >= 144 - 6


def test_the_attack_and_the_layers_are_read_from_the_configuration(gate: Gate) -> None:
    recipe = gate.plan.chains["other"][0].finetune
    assert recipe == AdCorDa(epochs=1, attack=Pgd(eps=0.2), layers={"conv": 0.1})
    assert right_of(gate, "other") > 100
