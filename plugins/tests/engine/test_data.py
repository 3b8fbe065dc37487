"""Samples on their way to a network: matched by class name, hashed by content, loaded once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robustgate.core.components import Samples, Split
from robustgate.core.errors import DomainError
from robustgate.engine.data import Library, as_tensor

PHOTOS = Samples(
    images=np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3),
    labels=np.array([0, 1, 2, 1]),
    classes=("ant", "bee", "cat"),
    names=("a", "b", "c", "d"),
)


class Fixed:
    """A domain of the same samples in every split; counts how often it is read."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.loads: list[Split] = []

    def load(self, split: Split) -> Samples:
        self.loads.append(split)
        return self.samples


class Broken:
    def load(self, split: Split) -> Samples:
        raise DomainError("no such file: photos.npz")


def library(**domains: Samples) -> Library:
    return Library({name: Fixed(samples) for name, samples in domains.items()})


def digest(samples: Samples) -> str:
    return library(photos=samples).digest("photos", "test")


def changed(array: np.ndarray, index: int, value: int) -> np.ndarray:
    copied = array.copy()
    copied.flat[index] = value
    return copied


def test_a_target_of_the_same_classes_is_given_as_it_is() -> None:
    target = library(photos=PHOTOS, sketches=PHOTOS).target("photos", "sketches")
    assert target is PHOTOS


def test_classes_in_another_order_are_matched_by_name() -> None:
    sketches = replace(PHOTOS, classes=("cat", "ant", "bee"))
    target = library(photos=PHOTOS, sketches=sketches).target("photos", "sketches")
    assert target.classes == PHOTOS.classes
    assert target.labels.dtype == np.int64
    assert [target.classes[label] for label in target.labels] == [sketches.classes[label] for label in sketches.labels]
    assert target.images is sketches.images
    assert target.names == sketches.names
    assert sketches.labels.tolist() == [0, 1, 2, 1]  # its own labels are left alone


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ("ant", "bee", "cow"),
            "pair photos → sketches: expected the 3 classes of photos in sketches, got 3; "
            "only in photos: cat; only in sketches: cow",
        ),
        (("ant", "bee", "cat", "dog"), "got 4; only in photos: (none); only in sketches: dog"),
        (("cat", "bee"), "got 2; only in photos: ant; only in sketches: (none)"),
    ],
)
def test_other_classes_are_one_error_that_names_both_sides(classes: tuple[str, ...], message: str) -> None:
    sketches = replace(PHOTOS, classes=classes, labels=np.array([0, 1, 0, 1]))
    with pytest.raises(DomainError) as raised:
        library(photos=PHOTOS, sketches=sketches).target("photos", "sketches")
    assert message in str(raised.value)


def test_domains_that_cannot_serve_are_named() -> None:
    twice = replace(PHOTOS, classes=("ant", "bee", "bee"))
    with pytest.raises(DomainError, match=r"domains\.photos: two classes have one name: ant, bee, bee"):
        library(photos=twice).samples("photos", "test")
    empty = replace(PHOTOS, images=PHOTOS.images[:0], labels=PHOTOS.labels[:0], names=())
    with pytest.raises(DomainError, match=r"domains\.photos: the calibration split is empty"):
        library(photos=empty).samples("photos", "calibration")
    with pytest.raises(DomainError, match=r"domains\.photos: no such file: photos\.npz"):
        Library({"photos": Broken()}).samples("photos", "test")


def test_a_split_is_loaded_once() -> None:
    domain = Fixed(PHOTOS)
    found = Library({"photos": domain})
    for _ in range(2):
        found.samples("photos", "test")
        found.digest("photos", "test")
        found.samples("photos", "train")
    assert domain.loads == ["test", "train"]


@pytest.mark.parametrize(
    "changes",
    [
        {"images": changed(PHOTOS.images, 40, 0)},
        {"labels": changed(PHOTOS.labels, 3, 2)},
        {"classes": ("ant", "cat", "bee")},
        {"classes": ("ant", "bee", "cats")},
        # The same bytes, cut into images of another shape.
        {"images": PHOTOS.images.reshape(4, 3, 2, 3)},
    ],
)
def test_the_digest_changes_with_the_content(changes) -> None:
    assert digest(replace(PHOTOS, **changes)) != digest(PHOTOS)


def test_the_digest_is_that_of_the_content_alone() -> None:
    assert digest(replace(PHOTOS, images=PHOTOS.images.copy(), names=("w", "x", "y", "z"))) == digest(PHOTOS)
    assert digest(replace(PHOTOS, images=np.asfortranarray(PHOTOS.images))) == digest(PHOTOS)


def test_tensors_are_images_in_unit_range_with_channels_first() -> None:
    images, labels = as_tensor(PHOTOS, slice(1, 3), torch.device("cpu"))
    assert images.shape == (2, 3, 2, 3)
    assert images.is_contiguous()
    np.testing.assert_array_equal(images.numpy(), PHOTOS.images[1:3].transpose(0, 3, 1, 2) / np.float32(255))
    assert labels.tolist() == [1, 2]
    images.zero_()
    assert PHOTOS.images[1].any()  # a copy: nothing that is done to a batch reaches the data
