"""Kept adversarial examples: they fool as recorded, an export is what was kept, an error leaves nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustgate.config import load
from robustgate.core.components import Query, Samples
from robustgate.core.errors import MeasurementError
from robustgate.core.images import take
from robustgate.core.records import Case, Picture
from robustgate.engine import measured as module
from robustgate.engine.example_files import export
from robustgate.engine.examples import EXAMPLES, Examples, read
from robustgate.engine.gate import Gate
from robustgate.engine.measure import Outcome
from robustgate.engine.measured import Measured, Part
from robustgate.engine.measurements import OUTCOMES
from robustgate.engine.pictures import MOST, SIDE, magnified, pictures
from robustgate.engine.plan import make_plan
from robustgate.engine.store import _is_sealed

ATTACKED = ("tiny-none-day-pgd", "tiny-fp25-day-fgsm")


def open_gate(path: Path) -> Gate:
    return Gate(make_plan(load(path)), today=date(2026, 1, 1))


def case_named(gate: Gate, name: str) -> Case:
    return next(case for case in gate.plan.cases if case.name == name)


def kept(gate: Gate, name: str) -> tuple[Path, Outcome]:
    """The folder of a case that was measured at once, and what it holds: all samples in the order of the split."""
    found = gate.result(case_named(gate, name))
    whole = gate.foundry.store.folder / "measurements" / str(found.measurement)
    (folder,) = (place for place in whole.iterdir() if place.suffix != ".lock")
    assert folder.name == f"0-{found.n}"
    return folder, Outcome.load(folder / OUTCOMES, {})


def logits(tiny, points: np.ndarray, filters: int) -> torch.Tensor:
    """The decision of the tiny network by hand: its first filters, as many as the variant has, and its head."""
    conv = torch.tensor([1.0, 1.0, 1.0, 0.1])[:filters] / 3
    answers = torch.relu(torch.from_numpy(points).sum(dim=1, keepdim=True) * conv[:, None, None]).mean((2, 3))
    bright = 20 * answers.sum(dim=1) - 20 * 0.5 * 3.1
    return torch.stack([torch.zeros_like(bright), bright], dim=1)


@pytest.mark.parametrize("name", ATTACKED)
def test_what_is_kept_fools_as_recorded(tiny, name: str) -> None:
    gate = open_gate(tiny.configure())
    folder, outcome = kept(gate, name)
    eps = gate.plan.configuration.attacks[name.rsplit("-", 1)[1]].eps
    rows = np.flatnonzero(outcome.examples >= 0)
    # Nothing is wrong without attack under the reference; the pruned network loses some before, and those have none.
    wrong = outcome.norms == 0
    np.testing.assert_array_equal(outcome.examples >= 0, ~outcome.correct & ~wrong)
    assert len(rows) > 5
    points = read(folder, outcome.examples[rows])
    assert (points.dtype, points.shape) == (np.float32, (len(rows), 3, 8, 8))
    answered = logits(tiny, points, filters=4 if "none" in name else 3).argmax(dim=1).numpy()
    np.testing.assert_array_equal(answered, outcome.predictions[rows])
    assert (answered != outcome.labels[rows]).all()
    originals = np.broadcast_to(tiny.day[rows].astype(np.float32)[:, None, None, None] / 255, points.shape)
    norms = np.abs(points - originals).max((1, 2, 3))
    np.testing.assert_allclose(norms, outcome.norms[rows], atol=1e-7)
    assert norms.max() <= eps + 1e-6
    assert 0 <= points.min() <= points.max() <= 1


def test_the_file_is_sealed_with_the_measurement_and_made_again_when_damaged(tiny) -> None:
    path = tiny.configure()
    folder, _ = kept(open_gate(path), ATTACKED[0])
    whole = (folder / EXAMPLES).read_bytes()
    assert {file.name for file in folder.iterdir()} == {EXAMPLES, OUTCOMES, "details.json", "seal.json"}
    (folder / EXAMPLES).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert not _is_sealed(folder)
    again, _ = kept(open_gate(path), ATTACKED[0])
    assert (again / EXAMPLES).read_bytes() == whole


def test_what_is_no_attack_keeps_no_examples_and_has_no_pictures(tiny) -> None:
    gate = open_gate(tiny.configure())
    folder, outcome = kept(gate, "tiny-none-day")
    assert outcome.examples is None
    assert not (folder / EXAMPLES).exists()
    assert gate.result(case_named(gate, "tiny-none-day")).pictures == ()
    with pytest.raises(MeasurementError, match="no adversarial examples were kept"):
        gate.export_examples(case_named(gate, "tiny-none-day"), tiny.folder / "out")
    assert not (tiny.folder / "out").exists()


def test_an_export_equals_what_is_kept(tiny) -> None:
    gate = open_gate(tiny.configure())
    folder, outcome = kept(gate, ATTACKED[1])
    path = gate.export_examples(case_named(gate, ATTACKED[1]), tiny.folder / "out" / "deep")
    assert path == tiny.folder / "out" / "deep" / f"{ATTACKED[1]}.npz"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    rows = np.flatnonzero(outcome.examples >= 0)
    with np.load(path, allow_pickle=False) as found:
        np.testing.assert_array_equal(found["index"], rows)
        np.testing.assert_array_equal(found["perturbed"], read(folder, outcome.examples[rows]))
        np.testing.assert_array_equal(found["images"], np.load(tiny.folder / "day.npz")["images"][rows])
        assert (found["images"].dtype, found["perturbed"].dtype) == (np.uint8, np.float32)
        assert list(found["classes"]) == ["dark", "bright"]
        for one, many in (("label", "labels"), ("prediction", "predictions"), ("norm", "norms")):
            np.testing.assert_array_equal(found[one], found[many][rows])
        for name in ("labels", "predictions", "norms", "queries", "gradients"):
            np.testing.assert_array_equal(found[name], getattr(outcome, name))
        names = gate.library.samples("day", "test").names
        assert list(found["name"]) == [names[row] for row in rows]


def many_samples(count: int, side: int = 4) -> Samples:
    images = np.random.default_rng(1).integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    names = tuple(f"{row}.png" for row in range(count))
    return Samples(images=images, labels=np.zeros(count, np.int64), classes=("a", "b"), names=names)


def written(folder: Path, samples: Samples, rows: np.ndarray) -> tuple[Part, np.ndarray]:
    """Examples of `rows`, found in that order in parts of 7, and an outcome that says where each is."""
    folder.mkdir(exist_ok=True)
    height, width = samples.images.shape[1:3]
    points = np.random.default_rng(2).random((len(rows), 3, height, width), np.float32)
    with Examples(folder, len(samples), (3, height, width)) as examples:
        for start in range(0, len(rows), 7):
            examples.add(rows[start : start + 7], torch.from_numpy(points[start : start + 7]))
    norms = np.where(examples.places >= 0, 0.25, np.inf).astype(np.float32)
    predictions = (examples.places >= 0).astype(np.int64)
    outcome = Outcome(labels=samples.labels, predictions=predictions, details={}, norms=norms, examples=examples.places)
    return Part(outcome=outcome, folder=folder), points


def export_all(measured: Measured, samples: Samples, path: Path) -> None:
    export(measured, samples, np.arange(len(samples)), path)


def pictures_of_all(measured: Measured, samples: Samples) -> tuple[Picture, ...]:
    return pictures(measured, samples, np.arange(len(samples)))


def test_examples_of_many_batches_come_back_in_the_order_of_the_samples(tmp_path: Path) -> None:
    samples = many_samples(1500)
    rows = np.random.default_rng(0).permutation(1500)[:1234]
    part, points = written(tmp_path / "kept", samples, rows)
    np.testing.assert_array_equal(np.load(tmp_path / "kept" / EXAMPLES, allow_pickle=False), points)
    export_all(part, samples, tmp_path / "out.npz")
    order = np.argsort(rows)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["index"], rows[order])
        np.testing.assert_array_equal(found["perturbed"], points[order])
        np.testing.assert_array_equal(found["images"], samples.images[rows[order]])


def test_of_some_samples_the_examples_are_told_by_their_places_in_the_split(tmp_path: Path) -> None:
    samples = many_samples(40)
    numbers = np.random.default_rng(3).permutation(40)[:25]
    chosen = take(samples, numbers)
    part, points = written(tmp_path / "kept", chosen, np.arange(5, 20))
    export(part, samples, numbers, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["index"], numbers[5:20])
        assert list(found["name"]) == [f"{number}.png" for number in numbers[5:20]]
        np.testing.assert_array_equal(found["images"], samples.images[numbers[5:20]])
        np.testing.assert_array_equal(found["perturbed"], points)
        np.testing.assert_array_equal(found["numbers"], numbers)
        np.testing.assert_array_equal(found["predictions"], part.outcome.predictions)
        np.testing.assert_array_equal(found["norm"], part.outcome.norms[5:20])
    drawn = pictures(part, samples, numbers)
    assert [one.name for one in drawn] == [f"{number}.png" for number in numbers[5:8]]
    for one, number in zip(drawn, numbers[5:8], strict=True):
        np.testing.assert_array_equal(decoded(one.original), samples.images[number])


def test_nothing_that_fell_is_an_empty_array(tmp_path: Path) -> None:
    samples = many_samples(9)
    part, _ = written(tmp_path / "kept", samples, np.empty(0, np.int64))
    export_all(part, samples, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert found["perturbed"].shape == (0, 3, 4, 4)
        assert found["name"].shape == (0,)
    assert pictures_of_all(part, samples) == ()


def test_attacks_of_several_norms_together_have_no_norm(tmp_path: Path) -> None:
    samples = many_samples(9)
    part, _ = written(tmp_path / "kept", samples, np.arange(3))
    joined = Part(outcome=replace(part.outcome, norms=None), folder=part.folder)
    export_all(joined, samples, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert not {"norm", "norms"} & set(found)
    assert [one.norm for one in pictures_of_all(joined, samples)] == [None] * 3


def test_no_more_than_a_batch_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = many_samples(1000)
    part, _ = written(tmp_path / "kept", samples, np.arange(1000))
    sizes = []
    monkeypatch.setattr(module, "read", lambda folder, places: sizes.append(len(places)) or read(folder, places))
    export_all(part, samples, tmp_path / "out.npz")
    assert sum(sizes) == 1000
    assert max(sizes) <= 128


@pytest.mark.parametrize("places", [[-1], [0, 3], [2, -1, 0]])
def test_a_place_that_there_is_not_is_refused(tmp_path: Path, places: list[int]) -> None:
    written(tmp_path, many_samples(5), np.arange(3))
    with pytest.raises(MeasurementError, match="expected places from 0 to 2, got "):
        read(tmp_path, np.array(places))
    assert read(tmp_path, np.empty(0, np.int64)).shape == (0, 3, 4, 4)


class Broken:
    """Fells dark images by white ones, and breaks at the first bright one that it is given."""

    needs_gradient, minimizes, norm, eps = False, False, "linf", 1.0

    def run(self, images, labels, draws, target) -> Iterator[Query]:
        rows = torch.arange(len(images))
        yield Query(rows, torch.ones_like(images))
        if bool(labels.any()):
            yield Query(rows, images)
            raise MeasurementError("planted")


def test_an_attack_that_raises_leaves_nothing(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = open_gate(tiny.configure())
    case = case_named(gate, ATTACKED[0])
    sizes = []
    add = Examples.add
    monkeypatch.setattr(Examples, "add", lambda self, rows, points: sizes.append(len(rows)) or add(self, rows, points))
    monkeypatch.setitem(gate.plan.configuration.attacks, "pgd", Broken())
    with pytest.raises(MeasurementError, match="planted"):
        gate.result(case)
    assert sum(sizes) > 0  # some were on the disk already
    # Neither a part, whole or begun, nor anything of it: only the locks.
    assert {one.suffix for one in (gate.foundry.store.folder / "measurements").glob("*/*")} == {".lock"}
    with pytest.raises(MeasurementError, match="planted"):
        gate.export_examples(case, tiny.folder / "out")
    assert not (tiny.folder / "out").exists()


@pytest.mark.parametrize("error", [MeasurementError("x"), KeyboardInterrupt()])
def test_a_writer_left_with_an_error_leaves_no_file(tmp_path: Path, error: BaseException) -> None:
    def write() -> None:
        with Examples(tmp_path, 5, (3, 4, 4)) as examples:
            examples.add(np.array([2]), torch.zeros(1, 3, 4, 4))
            raise error

    with pytest.raises(type(error)):
        write()
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = many_samples(200)
    part, _ = written(tmp_path / "kept", samples, np.arange(200))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "case.npz").write_bytes(b"old")

    def full(folder: Path, places: np.ndarray) -> np.ndarray:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "read", full)
    with pytest.raises(OSError, match="No space left"):
        export_all(part, samples, tmp_path / "out" / "case.npz")
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "out").iterdir()] == [("case.npz", b"old")]


# Pictures.


def decoded(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True)))).astype(int)


def test_pictures_are_of_the_first_that_fell_and_show_what_was_changed(tiny) -> None:
    gate = open_gate(tiny.configure())
    found = gate.result(case_named(gate, ATTACKED[0]))
    folder, outcome = kept(gate, ATTACKED[0])
    rows = np.flatnonzero(outcome.examples >= 0)[:MOST]
    assert len(found.pictures) == len(rows) == 3
    points = read(folder, outcome.examples[rows])
    for row, point, picture in zip(rows, points, found.pictures, strict=True):
        level = int(tiny.day[row])
        assert (picture.label, picture.prediction) == (("dark", "bright") if level <= 127 else ("bright", "dark"))
        assert picture.norm == float(outcome.norms[row])
        np.testing.assert_array_equal(decoded(picture.original), np.full((8, 8, 3), level))
        np.testing.assert_array_equal(decoded(picture.perturbed), np.rint(255 * point.transpose(1, 2, 0)))
        # eps 0.02: sixteen times that is within one half, 32 times is not.
        assert picture.magnification == 16
        difference = 255 * 16 * (point.transpose(1, 2, 0) - level / 255)
        np.testing.assert_allclose(decoded(picture.difference), 127.5 + difference, atol=0.51)


def test_large_images_are_scaled_down_and_a_lone_changed_value_is_still_seen(tmp_path: Path) -> None:
    side = 250
    samples = many_samples(2, side)
    point = samples.images[1:].astype(np.float32).transpose(0, 3, 1, 2) / 255
    point[0, 2, 100, 31] += 0.125 if point[0, 2, 100, 31] < 0.5 else -0.125
    with Examples(tmp_path, 2, (3, side, side)) as examples:
        examples.add(np.array([1]), torch.from_numpy(point))
    outcome = Outcome(
        labels=samples.labels, predictions=np.array([0, 1]), details={}, norms=np.array([np.inf, 0.125], np.float32),
        examples=examples.places,
    )  # fmt: skip
    (picture,) = pictures_of_all(Part(outcome=outcome, folder=tmp_path), samples)
    original, difference = decoded(picture.original), decoded(picture.difference)
    assert original.shape == difference.shape == (83, 83, 3)
    assert max(original.shape) <= SIDE
    assert picture.magnification == 4
    changed = np.argwhere(np.abs(difference - 127.5) > 1)
    assert changed.tolist() == [[33, 10, 2]]
    assert difference[33, 10, 2] in (0, 255)
    block = samples.images[1, :3, :3].reshape(9, 3).mean(axis=0)
    np.testing.assert_allclose(original[0, 0], block, atol=0.51)


@pytest.mark.parametrize(
    ("largest", "factor"), [(1.0, 0.5), (0.5, 1.0), (0.25, 2.0), (0.004, 64.0), (1e-6, 2.0**18), (0.0, 1.0)]
)
def test_a_difference_is_magnified_as_far_as_it_can_be_shown(largest: float, factor: float) -> None:
    assert magnified(largest) == factor
    assert largest * factor <= 0.5


def test_a_name_that_is_no_text_can_be_reported(tmp_path: Path) -> None:
    samples = many_samples(1)
    part, _ = written(tmp_path, samples, np.arange(1))
    named = Samples(images=samples.images, labels=samples.labels, classes=samples.classes, names=("\udcff.png",))
    (picture,) = pictures_of_all(part, named)
    assert isinstance(picture, Picture)
    assert picture.name == "?.png"
