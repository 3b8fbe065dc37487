"""CIFAR-10-C folders: five blocks in the order of severity, and every way in which a folder does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robustgate.core.errors import DomainError
from robustgate.domains.cifar_c import CifarC

BLOCK = 6
LABELS = np.tile(np.array([3, 8, 8, 0, 6, 9], dtype=np.uint8), 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Row r of fog has the level r, of snow 100 + r."""
    for name, first in (("fog", 0), ("snow", 100)):
        levels = np.arange(first, first + 5 * BLOCK, dtype=np.uint8)
        np.save(tmp_path / f"{name}.npy", np.broadcast_to(levels[:, None, None, None], (5 * BLOCK, 32, 32, 3)))
    np.save(tmp_path / "labels.npy", LABELS)
    return tmp_path


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_a_severity_is_a_block_in_the_order_of_the_test_set(folder: Path, severity: int) -> None:
    samples = CifarC(root=folder).corrupted("fog", severity)
    rows = list(range(BLOCK * (severity - 1), BLOCK * severity))
    assert samples.images[:, 0, 0, 0].tolist() == rows
    assert samples.labels.tolist() == [3, 8, 8, 0, 6, 9]
    assert samples.names == tuple(f"fog.npy[{row}]" for row in rows)
    assert len(samples.classes) == 10
    assert isinstance(samples.images, np.memmap)


def test_cifar_100_c_has_a_hundred_classes(folder: Path) -> None:
    np.save(folder / "labels.npy", np.tile(np.array([0, 99, 42, 7, 7, 1]), 5))
    samples = CifarC(root=folder, classes="cifar100").corrupted("snow", 5)
    assert [samples.classes[label] for label in samples.labels[:2]] == ["apple", "worm"]
    with pytest.raises(DomainError, match=r"labels\.npy: expected labels from 0 to 9, got 99 at \[1\]"):
        CifarC(root=folder).corrupted("snow", 5)


def test_what_is_missing_is_said_without_reading_a_file(folder: Path) -> None:
    (folder / "fog.npy").write_bytes(b"not read")
    domain = CifarC(root=folder)
    assert domain.missing("fog", 5) is None
    for corruption, severity, message in (
        ("frog", 1, f"no such file: {folder}/frog.npy (did you mean 'fog'?); there: fog, labels, snow"),
        ("fog", 6, "expected a severity from 1 to 5, got 6"),
    ):
        assert domain.missing(corruption, severity) == message
        with pytest.raises(DomainError) as raised:
            domain.corrupted(corruption, severity)
        assert str(raised.value) == message
    (folder / "labels.npy").unlink()
    assert domain.missing("fog", 5) == f"no such file: {folder}/labels.npy; there: fog, snow"
    assert "there: (none)" in (CifarC(root=folder / "nowhere").missing("fog", 1) or "")


def test_blocks_that_are_none_are_refused(folder: Path) -> None:
    domain = CifarC(root=folder)
    np.save(folder / "labels.npy", np.sort(LABELS))
    with pytest.raises(DomainError, match=r"labels\.npy: expected the same labels in each of 5 blocks"):
        domain.corrupted("fog", 1)
    np.save(folder / "labels.npy", LABELS[:BLOCK])
    with pytest.raises(DomainError, match=r"labels\.npy: expected 30 labels, whole numbers, got uint8 \(6,\)"):
        domain.corrupted("fog", 1)
    np.save(folder / "fog.npy", np.zeros((29, 32, 32, 3), np.uint8))
    with pytest.raises(DomainError, match=r"fog\.npy: expected 5 blocks of as many images each, got 29 images"):
        domain.corrupted("fog", 1)


def test_a_truncated_file_is_named(folder: Path) -> None:
    path = folder / "snow.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DomainError, match=r"snow\.npy: expected 92,288 bytes .*, got 92,287: not copied whole\?"):
        CifarC(root=folder).corrupted("snow", 1)


def test_it_has_no_clean_images_and_says_what_it_is_for(folder: Path) -> None:
    with pytest.raises(
        DomainError, match=r"no test split; to measure on them, name this domain in shifts\.corruptions"
    ):
        CifarC(root=folder).load("test")
