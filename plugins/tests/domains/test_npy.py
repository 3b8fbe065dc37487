"""Arrays in .npy files of their own: read as CIFAR-10.1 is published, and every way in which one does not fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from robustgate.core.errors import DomainError
from robustgate.domains.npy import Npy

NAMES = {"images": "cifar10.1_v6_data.npy", "labels": "cifar10.1_v6_labels.npy"}
IMAGES = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 32, 32, 3))
LABELS = np.arange(20, dtype=np.int32) % 10


def written(folder: Path, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> Npy:
    np.save(folder / NAMES["images"], images)
    np.save(folder / NAMES["labels"], labels)
    return domain(folder)


def domain(folder: Path, **parameters) -> Npy:
    files = {key: {"test": folder / name} for key, name in NAMES.items()}
    return Npy(**{**files, "classes": "cifar10", **parameters})


def test_cifar_10_1_is_read_as_it_is_published(tmp_path: Path) -> None:
    samples = written(tmp_path).load("test")
    np.testing.assert_array_equal(samples.images[:], IMAGES)
    assert (samples.labels.tolist(), samples.labels.dtype) == (LABELS.tolist(), np.int64)
    assert samples.classes[:2] == ("airplane", "automobile")
    assert samples.names[1] == "cifar10.1_v6_data.npy[1]"
    assert isinstance(samples.images, np.memmap), "mapped: nothing is read before it is asked for"


def test_the_whole_is_every_file_once(tmp_path: Path) -> None:
    written(tmp_path)
    np.save(tmp_path / "more.npy", IMAGES[:3])
    np.save(tmp_path / "more_labels.npy", LABELS[:3])
    test = {key: tmp_path / name for key, name in NAMES.items()}
    images = {"train": tmp_path / "more.npy", "calibration": tmp_path / "more.npy", "test": test["images"]}
    labels = dict.fromkeys(images, tmp_path / "more_labels.npy") | {"test": test["labels"]}
    whole = Npy(images=images, labels=labels, classes="cifar10").load("whole")
    assert whole.images[:][:, 0, 0, 0].tolist() == [0, 1, 2, *range(20)]
    assert whole.labels.tolist() == [0, 1, 2, *LABELS]
    assert whole.names[2:4] == ("more.npy[2]", "cifar10.1_v6_data.npy[0]")


def test_images_of_two_sizes_are_no_whole(tmp_path: Path) -> None:
    written(tmp_path)
    np.save(tmp_path / "small.npy", IMAGES[:3, :16])
    np.save(tmp_path / "small_labels.npy", LABELS[:3])
    images = {"train": tmp_path / "small.npy", "test": tmp_path / NAMES["images"]}
    labels = {"train": tmp_path / "small_labels.npy", "test": tmp_path / NAMES["labels"]}
    with pytest.raises(DomainError, match=r"differ in the size of their images: \[\(16, 32\), \(32, 32\)\]"):
        Npy(images=images, labels=labels, classes="cifar10").load("whole")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": IMAGES / np.float32(255)},
            r"data\.npy: expected images, uint8 \(N, H, W, 3\), got float32 \(20, 3",
        ),
        ({"images": IMAGES.transpose(0, 3, 1, 2)}, r"data\.npy: expected .*, got uint8 \(20, 3, 32, 32\)"),
        ({"labels": LABELS[:9]}, r"labels\.npy: expected 20 labels, whole numbers, got int32 \(9,\)"),
        ({"labels": LABELS[:, None]}, r"labels\.npy: expected 20 labels, whole numbers, got int32 \(20, 1\)"),
        ({"labels": LABELS / 2}, r"labels\.npy: expected 20 labels, whole numbers, got float64 \(20,\)"),
        ({"labels": LABELS + 1}, r"labels\.npy: expected labels from 0 to 9, got 10 at \[9\]"),
        ({"labels": LABELS - 1}, r"labels\.npy: expected labels from 0 to 9, got -1 at \[0\]"),
    ],
)
def test_wrong_content_names_the_file_and_what_was_expected(tmp_path: Path, changes, message: str) -> None:
    with pytest.raises(DomainError, match=rf"cifar10\.1_v6_{message}"):
        written(tmp_path, **changes).load("test")


@pytest.mark.parametrize(("cut", "got"), [(-1, "61,567"), (1000, "1,000")])
def test_a_truncated_file_is_named_with_its_size(tmp_path: Path, cut: int, got: str) -> None:
    # 128 bytes of header, 20 images of 3,072 bytes.
    domain = written(tmp_path)
    path = tmp_path / NAMES["images"]
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DomainError, match=rf"data\.npy: expected 61,568 bytes for uint8 \(20, 32, 32, 3\), got {got}"):
        domain.load("test")


def test_a_file_with_something_after_the_array_is_refused(tmp_path: Path) -> None:
    domain = written(tmp_path)
    with (tmp_path / NAMES["images"]).open("ab") as file:
        file.write(b"more")
    with pytest.raises(DomainError, match=r"expected 61,568 bytes .*, got 61,572"):
        domain.load("test")


def test_a_pickle_is_refused_with_the_reason(tmp_path: Path) -> None:
    # CIFAR-10.2 was once given out as a dict in an .npy file.
    both = np.array({"images": IMAGES, "labels": LABELS}, dtype=object)
    with pytest.raises(DomainError, match=r"data\.npy: .* got pickled Python objects, which run code"):
        written(tmp_path, images=both).load("test")
    (tmp_path / NAMES["images"]).write_bytes(pickle.dumps(IMAGES))
    with pytest.raises(DomainError, match=r"data\.npy: not an \.npy file: "):
        domain(tmp_path).load("test")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x09\x00v\x00{}"])
def test_what_is_no_npy_file_is_named(tmp_path: Path, content: bytes) -> None:
    written(tmp_path)
    (tmp_path / NAMES["images"]).write_bytes(content)
    with pytest.raises(DomainError, match=r"cifar10\.1_v6_data\.npy: not an \.npy file: "):
        domain(tmp_path).load("test")


def test_an_npz_is_no_npy(tmp_path: Path) -> None:
    written(tmp_path)
    with (tmp_path / NAMES["images"]).open("wb") as file:
        np.savez(file, images=IMAGES)
    with pytest.raises(DomainError, match=r"not an \.npy file: "):
        domain(tmp_path).load("test")


def test_files_and_splits_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match=r"no such file: .*cifar10\.1_v6_data\.npy"):
        domain(tmp_path).load("test")
    with pytest.raises(DomainError, match=r"no train split: images names test; add images\.train and labels\.train"):
        written(tmp_path).load("train")


@pytest.mark.parametrize("labels", [{}, {"train": Path("a")}])
def test_images_without_their_labels_are_refused(labels) -> None:
    with pytest.raises(ValueError, match="images and labels must each name a file for the same splits"):
        Npy(images={"test": Path("a")}, labels=labels, classes="cifar10")
