"""Callables that return torch data sets: every kind of item, the arguments of each split, and what does not fit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from robustgate.core.errors import DomainError
from robustgate.domains.callable import CallableDataset

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
GREY = PIXELS[..., :1]


class Listed(Sequence[Any]):
    """A map-style data set of these items."""

    def __init__(self, items: Sequence[Any], classes: Sequence[Any] | None = ("ant", "bee", "cat")) -> None:
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]


def labelled(images: Any) -> Listed:
    return Listed(list(zip(images, (2, 0, 1), strict=True)))


def given(split: str) -> Listed:
    """Three images of the split's own brightness."""
    level = {"train": 10, "calibration": 20, "test": 30}[split]
    return labelled(np.full((3, 5, 4, 3), level, np.uint8))


def torchvision_like(*, train: bool, offset: int = 0) -> Listed:
    return labelled(np.full((3, 5, 4, 3), offset + train, np.uint8))


def made(found: Any, monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> CallableDataset:
    """The domain of a callable, in this module, that returns `found`."""
    monkeypatch.setattr(sys.modules[__name__], "current", lambda: found, raising=False)
    return CallableDataset(build=f"{__name__}:current", **parameters)


FORMS = {
    "pillow": [Image.fromarray(image) for image in PIXELS],
    "array": PIXELS,
    "array of floats": PIXELS / 255,
    "tensor": torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
    "tensor of floats": torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255,
}
GREYS = {
    "pillow": [Image.fromarray(image[..., 0]) for image in GREY],
    "array": GREY,
    "flat array": GREY[..., 0],
    "tensor": torch.from_numpy(GREY).permute(0, 3, 1, 2),
    "flat tensor of floats": torch.from_numpy(GREY[..., 0]).float() / 255,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_gives_the_same_pixels(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = made(labelled(FORMS[form]), monkeypatch).load("test")
    np.testing.assert_array_equal([samples.read(row) for row in range(3)], PIXELS)
    assert samples.read(0).dtype == np.uint8
    assert [samples.classes[label] for label in samples.labels] == ["cat", "ant", "bee"]
    assert samples.size == (5, 4)
    assert samples.names[1] == f"{__name__}:current[1]"


@pytest.mark.parametrize("form", GREYS)
def test_grey_images_become_rgb(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = made(labelled(GREYS[form]), monkeypatch).load("test")
    np.testing.assert_array_equal([samples.read(row) for row in range(3)], np.broadcast_to(GREY, PIXELS.shape))


def test_floats_of_eight_bits_come_back_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    samples = made(Listed([(levels.float() / 255, 0)]), monkeypatch).load("test")
    np.testing.assert_array_equal(samples.read(0)[..., 0], levels[0].numpy())


def test_torch_data_sets_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.tensor([2, 0, 1]))
    both = ConcatDataset([tensors, Subset(tensors, [2])])
    samples = made(both, monkeypatch, classes=("ant", "bee", "cat")).load("test")
    assert samples.labels.tolist() == [2, 0, 1, 1]
    assert samples.labels.dtype == np.int64
    np.testing.assert_array_equal(samples.read(3), PIXELS[2])


def test_the_split_is_an_argument_where_the_callable_takes_it() -> None:
    domain = CallableDataset(build=f"{__name__}:given")
    assert [int(domain.load(split).read(0)[0, 0, 0]) for split in ("train", "calibration", "test")] == [10, 20, 30]
    whole = domain.load("whole")
    assert [int(whole.read(row)[0, 0, 0]) for row in range(0, 9, 3)] == [10, 20, 30]
    assert whole.names[3] == f"{__name__}:given(calibration)[0]"


def test_splits_have_arguments_of_their_own() -> None:
    domain = CallableDataset(
        build=f"{__name__}:torchvision_like",
        args={"offset": 100},
        splits={"train": {"train": True}, "test": {"train": False}},
    )
    assert [int(domain.load(split).read(0)[0, 0, 0]) for split in ("train", "test")] == [101, 100]
    assert len(domain.load("whole")) == 6
    with pytest.raises(
        DomainError, match=r"no calibration split: it has the splits test, train; add splits\.calibration"
    ):
        domain.load("calibration")


def test_data_that_serve_two_splits_count_once_in_the_whole() -> None:
    splits = {"train": {"train": True}, "calibration": {"train": True}, "test": {"train": False}}
    whole = CallableDataset(build=f"{__name__}:torchvision_like", splits=splits).load("whole")
    assert [int(whole.read(row)[0, 0, 0]) for row in range(len(whole))] == [1, 1, 1, 0, 0, 0]


def test_one_data_set_is_a_test_set_and_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = made(labelled(PIXELS), monkeypatch)
    assert domain.load("whole").identity == domain.load("test").identity
    with pytest.raises(DomainError, match=r"no train split: it has no argument 'split'; add splits\.train"):
        domain.load("train")


def test_the_identity_is_that_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    identities = [made(labelled(images), monkeypatch).load("test").identity for images in (PIXELS, PIXELS / 255)]
    assert identities[0] == identities[1]
    assert made(labelled(PIXELS[::-1]), monkeypatch).load("test").identity != identities[0]


def test_images_that_are_drawn_at_random_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Augmented(Listed):
        def __getitem__(self, index: Any) -> Any:
            image, label = self.items[index]
            self.turn = getattr(self, "turn", 0) + 1
            return np.roll(image, self.turn, axis=0), label

    samples = made(Augmented(labelled(PIXELS).items), monkeypatch).load("test")
    with pytest.raises(DomainError, match=r"current\[0\]: expected the same image each time, got another"):
        samples.read(0)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(PIXELS[0], 3)], r"current\[0\]: expected a label from 0 to 2, got 3"),
        ([(PIXELS[0], -1)], r"current\[0\]: expected a label from 0 to 2, got -1"),
        ([(PIXELS[0], 1.0)], r"current\[0\]: expected a label, a whole number, got 1\.0"),
        ([(PIXELS[0], "ant")], r"current\[0\]: expected a label, a whole number, got 'ant'"),
        ([(PIXELS[0], 0), (PIXELS[0, :4], 0)], r"current\[1\]: expected 5 x 4 pixels, like the first, got 4 x 4"),
        ([(PIXELS[0] * np.float32(1), 0)], r"current\[0\]: expected values in \[0, 1\], not normalised, got 4 to 248"),
        ([(np.full((5, 4), np.nan), 0)], r"current\[0\]: expected values in \[0, 1\], not normalised, got nan to nan"),
        ([(PIXELS[0].astype(np.int64), 0)], r"expected uint8, or floating-point values in \[0, 1\], got ndarray int64"),
        ([(PIXELS[0].transpose(2, 0, 1), 0)], r"expected an image, .*, got ndarray uint8 \(3, 5, 4\)"),
        ([(torch.zeros(5, 4, 3), 0)], r"expected an image, .*, got Tensor float32 \(5, 4, 3\)"),
        ([(torch.zeros(1, 3, 5, 4), 0)], r"expected an image, .*, got Tensor float32 \(1, 3, 5, 4\)"),
        ([(Image.new("I;16", (4, 5)), 0)], r"expected 8 bits a channel, got Pillow's mode 'I;16'"),
        ([PIXELS[0]], r"current\[0\]: expected an image and its label, got ValueError: "),
        ([], "the test split is empty"),
    ],
)
def test_items_that_do_not_fit_are_named(items, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DomainError, match=message):
        made(Listed(items), monkeypatch).load("test")


def test_an_error_of_the_data_set_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Listed):
        def __getitem__(self, index: Any) -> Any:
            raise OSError("disk gone")

    with pytest.raises(DomainError, match=r"current\[0\]: expected an image and its label, got OSError: disk gone"):
        made(Broken([0]), monkeypatch).load("test")


def test_callables_that_do_not_serve_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    for found, message in (
        (Stream(), "current: expected a map-style data set, with a length and items, got Stream"),
        (Listed([(PIXELS[0], 0)], classes=None), "current: its data set has no classes; give their names as classes"),
    ):
        with pytest.raises(DomainError, match=message):
            made(found, monkeypatch).load("test")
    for build, message in (
        (f"{__name__}:givn", r"no 'givn' in it \(did you mean 'given'\?\)"),
        ("nowhere_at_all:given", "cannot import 'nowhere_at_all'"),
        ("builtins:dict", "builtins:dict: its data set has no classes"),
        (f"{__name__}:torchvision_like", r"torchvision_like with {} failed: TypeError: "),
    ):
        with pytest.raises(DomainError, match=message):
            CallableDataset(build=build).load("test")


def test_splits_must_agree_in_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    def differing(split: str) -> Listed:
        return Listed([(PIXELS[0], 0)], classes=("ant",) if split == "test" else ("bee",))

    monkeypatch.setattr(sys.modules[__name__], "differing", differing, raising=False)
    with pytest.raises(DomainError, match="differing: its splits differ in their classes"):
        CallableDataset(build=f"{__name__}:differing").load("whole")
