"""Samples on their way to a network: matched by class name, hashed by content, loaded once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robustgate.config import Pair
from robustgate.core.components import Encoded, Samples, Split
from robustgate.core.errors import DomainError
from robustgate.engine.data import Library, as_tensor
from robustgate.engine.store import Store

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


class Files:
    """A domain of PHOTOS as files that are still to be decoded; counts how often one is."""

    def __init__(self, identity: str = "four files") -> None:
        self.identity = identity
        self.reads: list[int] = []

    def load(self, split: Split) -> Encoded:
        parts = {"labels": PHOTOS.labels, "classes": PHOTOS.classes, "names": PHOTOS.names}
        return Encoded(**parts, size=(2, 3), read=self.read, identity=self.identity)

    def read(self, index: int) -> np.ndarray:
        self.reads.append(index)
        return PHOTOS.images[index]


def library(**domains: Samples) -> Library:
    return Library({name: Fixed(samples) for name, samples in domains.items()}, Store(Path("nowhere")))


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
        Library({"photos": Broken()}, Store(Path("nowhere"))).samples("photos", "test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 1, 3, 1])}, "c: expected a label in 0 to 2, one for each class, got 3"),
        ({"labels": np.array([0, -1, 2, 1])}, "b: expected a label in 0 to 2, one for each class, got -1"),
        ({"names": ("a", "b", "c")}, "the test split: expected a name for each of 4 labels, got 3"),
        (
            {"images": PHOTOS.images[:3]},
            r"the test split: expected images uint8 \(4, H, W, 3\), got uint8 \(3, 2, 3, 3\)",
        ),
        ({"images": PHOTOS.images / 255}, r"the test split: expected images uint8 \(4, H, W, 3\), got float64"),
        (
            {"images": PHOTOS.images[..., 0]},
            r"the test split: expected images uint8 \(4, H, W, 3\), got uint8 \(4, 2, 3\)",
        ),
    ],
)
def test_what_a_domain_gives_is_checked(changes, message: str) -> None:
    with pytest.raises(DomainError, match=rf"domains\.photos: {message}"):
        library(photos=replace(PHOTOS, **changes)).samples("photos", "test")


def test_files_are_decoded_once_and_never_in_a_second_run(tmp_path: Path) -> None:
    first, second = Files(), Files()
    found = Library({"photos": first}, Store(tmp_path))
    digest = found.digest("photos", "test")
    assert first.reads == []
    for _ in range(2):
        samples = found.samples("photos", "test")
    assert sorted(first.reads) == [0, 1, 2, 3]
    np.testing.assert_array_equal(samples.images[:], PHOTOS.images)
    again = Library({"photos": second}, Store(tmp_path))
    np.testing.assert_array_equal(again.samples("photos", "test").images[:], PHOTOS.images)
    assert (second.reads, again.digest("photos", "test")) == ([], digest)
    # Other files, or the same decoded otherwise, are other images.
    other = Files("four other files")
    assert Library({"photos": other}, Store(tmp_path)).digest("photos", "test") != digest
    Library({"photos": other}, Store(tmp_path)).samples("photos", "test")
    assert sorted(other.reads) == [0, 1, 2, 3]


def test_a_target_of_files_is_matched_like_any_other(tmp_path: Path) -> None:
    sources = {"drawings": Fixed(replace(PHOTOS, classes=("cat", "bee", "cow"))), "photos": Files()}
    pair = Pair(source="drawings", target="photos", missing="drop")
    found = Library(sources, Store(tmp_path), [pair])
    target = found.target("drawings", "photos")
    assert (target.names, target.labels.tolist(), target.classes) == (("b", "c", "d"), [1, 0, 1], ("cat", "bee", "cow"))
    np.testing.assert_array_equal(target.images[:], PHOTOS.images[1:])
    assert found.target_details("drawings", "photos")["classes"] == {"dropped": {"ant": 1}, "without_samples": ["cow"]}


def test_the_digest_of_a_target_changes_with_the_matching(tmp_path: Path) -> None:
    domains = {"photos": Fixed(PHOTOS), "sketches": Fixed(PHOTOS)}
    swap = {"ant": "bee", "bee": "ant"}
    ways = [{}, {"classes": swap}, {"classes": {"ant": "bee"}, "missing": "drop"}]
    pairs = [Pair(source="photos", target="sketches", **way) for way in ways]
    digests = {Library(domains, Store(tmp_path), [pair]).target_digest("photos", "sketches") for pair in pairs}
    assert len(digests) == 3


def test_a_split_is_loaded_once() -> None:
    domain = Fixed(PHOTOS)
    found = Library({"photos": domain}, Store(Path("nowhere")))
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
