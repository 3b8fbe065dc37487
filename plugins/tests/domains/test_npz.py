"""Arrays in files: the splits are what the files say, and a file that is wrong is named with what was expected."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from robustgate.core.components import Samples
from robustgate.core.errors import DomainError
from robustgate.domains._classes import class_names
from robustgate.domains.npz import Npz

CLASSES = np.array(["ant", "bee", "cat"])
# Uneven classes, in no order: 10 ants, 7 bees, 3 cats.
LABELS = np.array([0, 1, 0, 2, 1, 0, 0, 1, 1, 0, 2, 0, 1, 0, 0, 1, 2, 1, 0, 0])


def arrays(count: int = 20, **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """Every pixel of image i is i, so that a sample says where it comes from. None leaves an array out."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 3))
    found = {"images": images, "labels": LABELS[:count], "classes": CLASSES, **changes}
    return {key: value for key, value in found.items() if value is not None}


def written(folder: Path, name: str = "all.npz", **changes) -> Path:
    np.savez(folder / name, **arrays(**changes))
    return folder / name


def rows(samples: Samples) -> list[int]:
    return samples.images[:][:, 0, 0, 0].tolist()


def test_a_split_is_its_file_in_order(tmp_path: Path) -> None:
    path = written(tmp_path, labels=LABELS.astype(np.uint8))
    samples = Npz(files={"test": path}).load("test")
    assert rows(samples) == list(range(20))
    assert samples.labels.tolist() == LABELS.tolist()
    assert (samples.labels.dtype, samples.images.dtype) == (np.int64, np.uint8)
    assert samples.classes == ("ant", "bee", "cat")
    assert samples.names[:2] == ("all.npz[0]", "all.npz[1]")


def test_the_calibration_share_is_the_last_of_each_class(tmp_path: Path) -> None:
    domain = Npz(files={"train": written(tmp_path)}, calibration=0.3)
    calibration, train = domain.load("calibration"), domain.load("train")
    # 0.3 of 10, 7 and 3 are 3, 2 and 1: the last so many of each, in the order of the file.
    assert rows(calibration) == [14, 15, 16, 17, 18, 19]
    assert np.bincount(calibration.labels).tolist() == [3, 2, 1]
    assert rows(train) == list(range(14))
    for samples in (calibration, train):
        assert samples.labels.tolist() == LABELS[rows(samples)].tolist()
        assert samples.names == tuple(f"all.npz[{row}]" for row in rows(samples))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_train_and_calibration_are_the_file_and_share_nothing(tmp_path: Path, share: float) -> None:
    domain = Npz(files={"train": written(tmp_path)}, calibration=share)
    assert sorted(rows(domain.load("train")) + rows(domain.load("calibration"))) == list(range(20))


def test_the_whole_is_every_file_once(tmp_path: Path) -> None:
    train, test = written(tmp_path, "train.npz"), written(tmp_path, "test.npz", count=5)
    whole = Npz(files={"test": test, "train": train}, calibration=0.3).load("whole")
    assert rows(whole) == [*range(20), *range(5)]
    assert whole.names[19:21] == ("train.npz[19]", "test.npz[0]")
    # Counted thrice, its images would make every interval too narrow.
    assert len(Npz(files={"train": train, "calibration": train, "test": train}).load("whole")) == 20


def test_keys_rename_the_arrays(tmp_path: Path) -> None:
    found = arrays()
    np.savez(tmp_path / "other.npz", x=found["images"], y=found["labels"], classes=CLASSES, images=np.zeros(3))
    samples = Npz(files={"test": tmp_path / "other.npz"}, keys={"images": "x", "labels": "y"}).load("test")
    assert (rows(samples), samples.labels.tolist()) == (list(range(20)), LABELS.tolist())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, r"no array 'labels'; it holds classes, images"),
        (
            {"images": arrays()["images"] / np.float32(255)},
            r"images: expected uint8 \(N, H, W, 3\), .* got float32 \(20,",
        ),
        ({"images": arrays()["images"][..., :2]}, r"images: expected uint8 .*, got uint8 \(20, 4, 4, 2\)"),
        ({"images": arrays()["images"][:, 0, 0]}, r"images: expected uint8 .*, got uint8 \(20, 3\)"),
        ({"images": arrays()["images"][:9]}, r"labels: expected 9 whole numbers, got int64 \(20,\)"),
        ({"labels": LABELS / 2}, r"labels: expected 20 whole numbers, got float64 \(20,\)"),
        ({"labels": LABELS[:, None]}, r"labels: expected 20 whole numbers, got int64 \(20, 1\)"),
        ({"labels": LABELS + 1}, r"labels: 3 is not the index of one of 3 classes"),
        ({"labels": LABELS - 1}, r"labels: -1 is not the index of one of 3 classes"),
        ({"classes": np.array("ant")}, r"classes: expected a list of texts, got <U3 \(\)"),
        ({"classes": CLASSES.astype(bytes)}, r"classes: expected a list of texts, got \|S3 \(3,\)"),
        ({"classes": CLASSES.astype(object)}, r"not an \.npz of plain arrays: Object arrays cannot be loaded"),
    ],
)
def test_wrong_content_names_the_file_and_what_was_expected(tmp_path: Path, changes, message: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(DomainError, match=rf"all\.npz: {message}"):
        Npz(files={"test": path}).load("test")


def test_a_damaged_file_is_named_whatever_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "all.npz"
    np.savez_compressed(path, **arrays(images=np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)))
    whole = path.read_bytes()
    swapped = bytearray(whole)
    swapped[100:160] = swapped[100:160][::-1]  # inside the compressed images
    for damaged in (whole[: len(whole) // 2], whole[:-1], bytes(swapped), b"", b"hello", b"\x80\x04]\x94."):
        path.write_bytes(damaged)
        with pytest.raises(DomainError, match=r"all\.npz: not an \.npz of plain arrays: "):
            Npz(files={"test": path}).load("test")
    np.save(tmp_path / "single.npy", LABELS)
    with pytest.raises(DomainError, match=r"single\.npy: not an \.npz of plain arrays"):
        Npz(files={"test": tmp_path / "single.npy"}).load("test")
    with pytest.raises(DomainError, match=r"no such file: .*missing\.npz"):
        Npz(files={"test": tmp_path / "missing.npz"}).load("whole")


def test_what_savez_wrote_is_mapped_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "all.npz"
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 5, 3), np.uint8)
    for order in (images, np.asfortranarray(images)):
        np.savez(path, **arrays(images=order))
        found = Npz(files={"test": path}).load("test").images
        assert isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, images)
    np.savez_compressed(path, **arrays(images=images))
    found = Npz(files={"test": path}).load("test").images
    assert not isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, images)


def test_a_mapped_file_is_checked_all_the_same(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[600] ^= 1  # inside the images: behind the two headers, before the labels
    for damaged in (bytes(flipped), whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(DomainError, match=r"all\.npz: not an \.npz of plain arrays: "):
            Npz(files={"test": path}).load("test")
    # A header that promises more images than there are.
    archive = written(tmp_path, "short.npz")
    with zipfile.ZipFile(archive) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(archive, "w") as new:
        for name, content in members.items():
            new.writestr(name, content[:-1] if name == "images.npy" else content)
    with pytest.raises(DomainError, match=r"short\.npz: not an \.npz of plain arrays: "):
        Npz(files={"test": archive}).load("test")


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    train = written(tmp_path, "train.npz")
    for changes, message in (
        ({"classes": CLASSES[[1, 0, 2]]}, "differ in their classes"),
        ({"images": np.zeros((20, 5, 4, 3), np.uint8)}, r"differ in the size of their images: \[\(4, 4\), \(5, 4\)\]"),
    ):
        domain = Npz(files={"train": train, "test": written(tmp_path, "test.npz", **changes)})
        with pytest.raises(DomainError, match=message):
            domain.load("whole")


@pytest.mark.parametrize("split", ["train", "calibration"])
def test_a_split_without_a_file_is_named(tmp_path: Path, split) -> None:
    with pytest.raises(DomainError, match=rf"no {split} split: files names test; add files\.{split}"):
        Npz(files={"test": written(tmp_path)}).load(split)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"files": {}}, "files must name at least a test file"),
        (
            {"files": {"test": Path("a")}, "pad": -1},
            "resize must be two whole numbers from 1, height and width, and pad",
        ),
        ({"files": {"test": Path("a")}, "resize": (0, 2)}, "resize must be two whole numbers from 1"),
        (
            {"files": {"test": Path("a")}, "classes": ("x",), "keys": {"classes": "y"}},
            "classes gives the names of the classes, and keys.classes an array of them: give one",
        ),
        ({"files": {"train": Path("a")}, "calibration": 1.0}, r"calibration must be a share in \[0, 1\), got 1"),
        ({"files": {"test": Path("a")}, "calibration": 0.1}, "calibration is a share of files.train"),
        (
            {"files": {"train": Path("a"), "calibration": Path("b")}, "calibration": 0.1},
            "only where files.calibration is not given",
        ),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Npz(**parameters)


def test_the_cifar_file_is_read_whole(real_data: Path) -> None:
    samples = Npz(files={"test": real_data / "cifar" / "cifar10_test_2000.npz"}).load("test")
    assert samples.images.shape == (2000, 32, 32, 3)
    assert np.bincount(samples.labels).tolist() == [200] * 10
    assert samples.classes[:2] == ("airplane", "automobile")


GREY = np.random.default_rng(0).integers(0, 256, (20, 4, 6), dtype=np.uint8)


@pytest.mark.parametrize("images", [GREY, GREY[..., None]], ids=["flat", "one channel"])
def test_grey_images_become_rgb(tmp_path: Path, images: np.ndarray) -> None:
    samples = Npz(files={"test": written(tmp_path, images=images)}).load("test")
    assert samples.images.shape == (20, 4, 6, 3)
    np.testing.assert_array_equal(samples.images[:], np.repeat(GREY[..., None], 3, axis=3))
    np.testing.assert_array_equal(samples.images[7], np.repeat(GREY[7, ..., None], 3, axis=2))
    np.testing.assert_array_equal(samples.images[np.array([3, 1])][..., 0], GREY[[3, 1]])
    assert samples.images[:0].shape == (0, 4, 6, 3)


@pytest.mark.parametrize("size", [(4, 6), (8, 3), (5, 7), (3, 11), (1, 1)])
def test_images_are_resized_as_torch_does_it_and_then_padded(tmp_path: Path, size: tuple[int, int]) -> None:
    samples = Npz(files={"test": written(tmp_path, images=GREY)}, resize=size, pad=2).load("test")
    assert samples.images.shape == (20, size[0] + 4, size[1] + 4, 3)
    levels = torch.from_numpy(GREY).double()[:, None]
    expected = torch.nn.functional.interpolate(levels, size, mode="bilinear", antialias=True)
    expected = torch.nn.functional.pad(expected, (2, 2, 2, 2)).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    found = samples.images[:]
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found.astype(float), expected, atol=0.5 + 1e-5)
    np.testing.assert_array_equal(samples.images[[5, 2]], found[[5, 2]])
    assert samples.images[:0].shape == (0, *found.shape[1:])


def test_colour_images_are_framed_too(tmp_path: Path) -> None:
    path = written(tmp_path)
    samples = Npz(files={"train": path}, calibration=0.3, pad=1).load("calibration")
    assert samples.images.shape == (6, 6, 6, 3)
    np.testing.assert_array_equal(samples.images[:][:, 1:-1, 1:-1], arrays()["images"][14:])
    assert not samples.images[:][:, [0, -1]].any()


def test_classes_are_named_where_the_file_does_not(tmp_path: Path) -> None:
    path = written(tmp_path, classes=None)
    assert Npz(files={"test": path}, classes=("x", "y", "z")).load("test").classes == ("x", "y", "z")
    with pytest.raises(
        DomainError, match="no array 'classes'; it holds images, labels; or give their names as classes"
    ):
        Npz(files={"test": path}).load("test")
    with pytest.raises(DomainError, match=r"all\.npz: labels: 2 is not the index of one of 2 classes"):
        Npz(files={"test": path}, classes=("x", "y")).load("test")


def test_cifar_10_2_is_read_as_it_is_published(tmp_path: Path) -> None:
    labels = np.arange(20) % 10
    names = np.array(class_names("cifar10"))
    extra = {"ti_indices": np.arange(20), "keywords": np.array(["tabby"] * 20)}
    path = tmp_path / "cifar102_test.npz"
    np.savez(path, images=arrays()["images"], labels=labels, label_names=names, **extra)
    samples = Npz(files={"test": path}, keys={"classes": "label_names"}).load("test")
    assert samples.classes == tuple(names)
    assert samples.labels.tolist() == labels.tolist()


def test_usps_becomes_like_mnist(real_data: Path) -> None:
    digits = tuple("0123456789")
    usps = Npz(files={"test": real_data / "digits" / "usps_test_1000.npz"}, classes=digits, resize=(20, 20), pad=4)
    mnist = Npz(files={"test": real_data / "digits" / "mnist_test_2000.npz"}, classes=digits)
    for domain, expected in ((usps, 0.823), (mnist, 0.986)):
        samples = domain.load("test")
        assert samples.images.shape[1:] == (28, 28, 3)
        assert accuracy(real_data, samples) == pytest.approx(expected, abs=0.0005)


def accuracy(real_data: Path, samples: Samples) -> float:
    """The accuracy of the published MNIST network, whose figures stand beside the data."""
    layers = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))
    network.load_state_dict(load_file(real_data / "weights" / "mnist_provably_robust.safetensors"))
    images = torch.from_numpy(samples.images[:][..., :1].transpose(0, 3, 1, 2) / np.float32(255))
    with torch.no_grad():
        return float((network(images).argmax(dim=1).numpy() == samples.labels).mean())
