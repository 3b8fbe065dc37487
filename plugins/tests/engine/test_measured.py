"""Outcomes that are taken apart and put together: whatever the order, each sample keeps its own adversarial example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robustgate.core.errors import MeasurementError
from robustgate.engine.examples import Examples
from robustgate.engine.figures import unite
from robustgate.engine.measure import ARRAYS, Outcome
from robustgate.engine.measured import Joined, Measured, Part, Some

SHAPE = (3, 2, 2)


def numbered(folder: Path, numbers: np.ndarray, attack: int = 0) -> Part:
    """Samples of which about half fell; the example of each carries the attack's number and the sample's."""
    random = np.random.default_rng([attack, *numbers])
    folder.mkdir()
    fell = random.random(len(numbers)) < 0.5
    with Examples(folder, len(numbers), SHAPE) as examples:
        for row in random.permutation(np.flatnonzero(fell)):
            examples.add(np.array([row]), torch.full((1, *SHAPE), float(1000 * attack + numbers[row])))
    outcome = Outcome(
        labels=np.zeros(len(numbers), np.int64),
        predictions=np.where(fell, attack + 1, 0),
        details={},
        norms=np.where(fell, random.random(len(numbers)), np.inf).astype(np.float32),
        queries=numbers.astype(np.int64),
        gradients=random.integers(0, 9, len(numbers)),
        examples=examples.places,
    )
    return Part(outcome=outcome, folder=folder)


def has_its_own(measured: Measured, numbers: np.ndarray, attacks: np.ndarray) -> bool:
    """Ask for the examples of all rows that have one, in some orders and some of them twice."""
    random = np.random.default_rng(5)
    assert len(measured.has_example) == len(measured.outcome.labels) == len(numbers)
    rows = np.flatnonzero(measured.has_example)
    assert 2 < len(rows) < len(numbers)
    asked = [rows, rows[::-1], random.permutation(rows), random.choice(rows, 30), rows[:1]]
    for some in asked:
        points = measured.points(some)
        assert points.shape == (len(some), *SHAPE)
        expected = 1000 * attacks[some] + numbers[some]
        np.testing.assert_array_equal(points, np.broadcast_to(expected[:, None, None, None], points.shape))
    return True


def in_parts(folder: Path, numbers: np.ndarray, ends: list[int], attack: int = 0, upto: int = 37) -> Joined:
    """Samples measured in parts that end there, of which the first `upto` are asked for."""
    folder.mkdir()
    starts = [0, *ends[:-1]]
    parts = [
        numbered(folder / f"{first}-{last}", numbers[first:last], attack)
        for first, last in zip(starts, ends, strict=True)
    ]
    outcome = Outcome.join([part.outcome for part in parts]).take(slice(upto))
    return Joined(parts=parts, outcome=outcome)


NUMBERS = np.random.default_rng(1).permutation(200)[:40]
OWN = np.zeros(40, np.int64)


def test_a_part_gives_each_sample_its_own_example(tmp_path: Path) -> None:
    part = numbered(tmp_path / "part", NUMBERS)
    np.testing.assert_array_equal(part.has_example, ~part.outcome.correct)
    assert has_its_own(part, NUMBERS, OWN)
    # A part's outcome is put into the order of drawing; its file stays as it is.
    order = np.random.default_rng(2).permutation(40)
    assert has_its_own(Part(outcome=part.outcome.take(order), folder=part.folder), NUMBERS[order], OWN)


def test_some_samples_keep_their_own_examples(tmp_path: Path) -> None:
    part = numbered(tmp_path / "part", NUMBERS)
    rows = np.random.default_rng(2).permutation(40)[:25]
    some = Some(whole=part, rows=rows)
    np.testing.assert_array_equal(some.outcome.queries, NUMBERS[rows])
    assert has_its_own(some, NUMBERS[rows], OWN[rows])
    assert has_its_own(Some(whole=some, rows=np.arange(24, 4, -1)), NUMBERS[rows][:4:-1], OWN[:20])


@pytest.mark.parametrize("ends", [[40], [1, 2, 40], [15, 16, 39, 40], [20, 40]])
def test_joined_parts_give_each_sample_its_own_example(tmp_path: Path, ends: list[int]) -> None:
    # Where not all are asked for, the last part, or the last two, reach farther.
    for upto in (40, 37):
        joined = in_parts(tmp_path / str(upto), NUMBERS, ends, upto=upto)
        np.testing.assert_array_equal(joined.outcome.queries, NUMBERS[:upto])
        assert has_its_own(joined, NUMBERS[:upto], OWN[:upto])


@pytest.mark.parametrize("comparable", [True, False])
def test_the_worst_gives_each_sample_the_example_of_what_felled_it(tmp_path: Path, comparable: bool) -> None:
    attacks = {
        "first": in_parts(tmp_path / "first", NUMBERS, [7, 30, 40], attack=0),
        "second": in_parts(tmp_path / "second", NUMBERS, [40], attack=1),
        "third": in_parts(tmp_path / "third", NUMBERS, [1, 40], attack=2),
    }
    worst = unite(attacks, comparable=comparable)
    fell = np.stack([~one.outcome.correct for one in attacks.values()])
    norms = np.stack([one.outcome.norms for one in attacks.values()])
    by = norms.argmin(axis=0) if comparable else fell.argmax(axis=0)
    assert len(set(by[fell.any(axis=0)])) == 3
    np.testing.assert_array_equal(worst.has_example, fell.any(axis=0))
    assert has_its_own(worst, NUMBERS[:37], by)
    rows = np.random.default_rng(4).permutation(37)[:30]
    assert has_its_own(Some(whole=worst, rows=rows), NUMBERS[rows], by[rows])


def test_a_sample_that_no_attack_felled_or_that_was_wrong_before_has_none(tmp_path: Path) -> None:
    attacks = {str(attack): numbered(tmp_path / str(attack), NUMBERS, attack) for attack in (0, 1)}
    for one in attacks.values():
        # Wrong without attack: it has norm zero, and there is nothing to keep.
        one.outcome.predictions[:5], one.outcome.norms[:5], one.outcome.examples[:5] = 9, 0, -1
    worst = unite(attacks, comparable=True)
    fell = np.any([~one.outcome.correct for one in attacks.values()], axis=0)
    assert fell[:5].all()
    np.testing.assert_array_equal(worst.has_example[:5], False)
    np.testing.assert_array_equal(worst.has_example[5:], fell[5:])


def test_what_joins_is_kept_where_all_its_parts_are(tmp_path: Path) -> None:
    part = numbered(tmp_path / "part", NUMBERS)
    made, kept = part, Part(outcome=part.outcome, folder=part.folder, cached=True)
    for parts, cached in (((kept, kept), True), ((kept, made), False), ((made, kept), False)):
        joined = Joined(parts=parts, outcome=Outcome.join([one.outcome for one in parts]))
        assert joined.cached is cached
        assert Some(whole=joined, rows=np.arange(3)).cached is cached
        assert unite(dict(zip("ab", parts, strict=True)), comparable=True).cached is cached


def test_without_examples_there_are_none_to_ask_for(tmp_path: Path) -> None:
    zeros = np.zeros(3, np.int64)
    part = Part(outcome=Outcome(labels=zeros, predictions=zeros, details={}), folder=tmp_path)
    for measured in (part, Some(whole=part, rows=zeros), Joined(parts=[part], outcome=part.outcome)):
        with pytest.raises(MeasurementError, match="no adversarial examples were kept"):
            _ = measured.has_example
        with pytest.raises(MeasurementError, match="no adversarial examples were kept"):
            measured.points(zeros[:1])


def test_outcomes_are_taken_apart_and_joined_array_by_array(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    arrays = {name: random.permutation(20).astype(np.float32) for name in ARRAYS}
    whole = Outcome(**arrays, details={"told": 1})
    order = random.permutation(20)
    taken = whole.take(order)
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(taken, name), array[order])
    again = Outcome.join([taken.take(slice(3)), taken.take(slice(3, 4)), taken.take(slice(4, None))])
    again = again.take(np.argsort(order))
    again.save(tmp_path / "outcome.npz")
    for found in (again, Outcome.load(tmp_path / "outcome.npz", {"told": 1})):
        assert (found.arrays.keys(), found.details) == (arrays.keys(), {"told": 1})
        for name, array in arrays.items():
            np.testing.assert_array_equal(getattr(found, name), array)
    natural = Outcome(labels=arrays["labels"], predictions=arrays["predictions"], details={})
    assert natural.take(order).arrays.keys() == {"labels", "predictions"}
