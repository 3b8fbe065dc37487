"""Images that are not in memory give the rows of the array that they stand for, and let go of what they read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robustgate.core.components import Images, Samples
from robustgate.core.images import Chosen, Joined, Mapped, join, released, take

ALL = np.random.default_rng(0).integers(0, 256, (10, 4, 5, 3), dtype=np.uint8)


def mapped(folder: Path, images: np.ndarray = ALL, name: str = "images.npy") -> np.ndarray:
    np.save(folder / name, images)
    return np.load(folder / name, mmap_mode="r")


def kinds(folder: Path) -> dict[str, tuple[Images, np.ndarray]]:
    """Each kind of images, and the array that it stands for."""
    rows = np.array([7, 0, 3, 3, 9])
    file = mapped(folder)
    return {
        "mapped": (released(file), ALL),
        "a part of a file": (released(file[2:8]), ALL[2:8]),
        "every other": (released(file[::2]), ALL[::2]),
        "column by column": (released(mapped(folder, np.asfortranarray(ALL), "columns.npy")), ALL),
        "chosen": (Chosen(file, rows), ALL[rows]),
        "joined": (Joined([file[:3], ALL[3:4], file[4:]]), ALL),
        "chosen of joined": (Chosen(Joined([file, ALL]), rows + 5), np.concatenate([ALL, ALL])[rows + 5]),
    }


@pytest.mark.parametrize("kind", ["mapped", "a part of a file", "every other", "column by column", "chosen", "joined",
                                  "chosen of joined"])  # fmt: skip
def test_rows_are_those_of_the_array(tmp_path: Path, kind: str) -> None:
    images, expected = kinds(tmp_path)[kind]
    assert (images.shape, images.dtype, len(images)) == (expected.shape, np.uint8, len(expected))
    last = len(expected) - 1
    for rows in (slice(None), slice(1, 3), slice(4, 99), slice(2, 2), slice(None, None, -1), [last, 0], last, -1,
                 np.array([last, 0, 0]), np.array([], np.int64)):  # fmt: skip
        found = images[rows]
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, expected[rows], err_msg=str(rows))
    for rows in (last + 1, [0, last + 1]):
        with pytest.raises(IndexError):
            images[rows]


def test_what_is_read_is_a_copy(tmp_path: Path) -> None:
    images = released(mapped(tmp_path))
    images[0:2][:] = 0
    np.testing.assert_array_equal(images[:], ALL)


def test_an_array_in_memory_stays_as_it_is(tmp_path: Path) -> None:
    assert released(ALL) is ALL
    images = released(mapped(tmp_path))
    assert isinstance(images, Mapped)
    assert released(images) is images


def resident(path: Path) -> int:
    """Return how many bytes of a file this process holds in memory."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()
        if "-" in head[0] and not head[0].endswith(":"):
            inside = line.endswith(str(path))
        elif inside and head[0] == "Rss:":
            total += 1024 * int(head[1])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="looks into Linux's /proc")
def test_no_page_stays_in_memory(tmp_path: Path) -> None:
    file = mapped(tmp_path, np.zeros((2000, 32, 32, 3), np.uint8))
    part, whole = released(file[500:1500]), released(file)
    for images in (part, whole):
        for start in range(0, len(images), 100):
            assert not images[start : start + 100].any()
    assert resident(tmp_path / "images.npy") == 0
    assert int(np.asarray(file).sum()) == 0
    assert resident(tmp_path / "images.npy") >= file.nbytes  # what is let go of is measured


def test_samples_are_taken_and_joined_with_all_that_belongs_to_them(tmp_path: Path) -> None:
    labels = np.arange(10) % 3
    samples = Samples(
        images=mapped(tmp_path), labels=labels, classes=("a", "b", "c"), names=tuple(f"{row}" for row in range(10))
    )
    rows = np.array([9, 4])
    both = join([take(samples, rows), samples], "files")
    np.testing.assert_array_equal(both.images[:], np.concatenate([ALL[rows], ALL]))
    assert both.labels.tolist() == [0, 1, *labels]
    assert both.names == ("9", "4", *samples.names)
    assert both.classes == samples.classes
    assert join([samples], "files") is samples
