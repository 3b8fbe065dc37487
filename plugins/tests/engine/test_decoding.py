"""Image files on their way into the store: in order, whole, and the first that is wrong is named."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from robustgate.core.components import Encoded
from robustgate.core.errors import DomainError
from robustgate.engine import decoding
from robustgate.engine.decoding import decoded
from robustgate.engine.store import Store

COUNT = 200


def encoded(read, **changes) -> Encoded:
    parts = {
        "labels": np.zeros(COUNT, np.int64),
        "classes": ("thing",),
        "names": tuple(f"{row}.png" for row in range(COUNT)),
        "size": (2, 3),
        "identity": "files",
    }
    return Encoded(**parts | changes, read=read)


def numbered(row: int) -> np.ndarray:
    """An image that says its row, and took the longer the earlier it stands."""
    time.sleep(0.0001 * (COUNT - row) / COUNT)
    return np.full((2, 3, 3), row, np.uint8)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "CHUNK_BYTES", 7 * 2 * 3 * 3)


def test_images_are_in_order_whichever_thread_was_first(tmp_path: Path) -> None:
    found = decoded(encoded(numbered), Store(tmp_path))
    assert (found.shape, found.dtype, len(found)) == ((COUNT, 2, 3, 3), np.uint8, COUNT)
    assert found[:][:, 0, 0, 0].tolist() == list(range(COUNT))


def test_they_are_decoded_in_several_threads(tmp_path: Path) -> None:
    threads = set()

    def read(row: int) -> np.ndarray:
        threads.add(threading.get_ident())
        return numbered(row)

    decoded(encoded(read), Store(tmp_path))
    assert threading.get_ident() not in threads
    assert len(threads) > 1


def test_the_first_that_is_wrong_is_named_even_if_a_later_one_fails_sooner(tmp_path: Path) -> None:
    def read(row: int) -> np.ndarray:
        if row in (20, 40):
            time.sleep(0.2 if row == 20 else 0)
            raise DomainError(f"{row}.png: broken")
        return numbered(row)

    with pytest.raises(DomainError, match=r"^20\.png: broken"):
        decoded(encoded(read), Store(tmp_path))
    assert not list(tmp_path.rglob("*.npy"))  # nothing is left of a part


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((3, 2, 3), np.uint8), r"5\.png: expected uint8 \(2, 3, 3\), got uint8 \(3, 2, 3\)"),
        (np.zeros((2, 3, 3), np.float32), r"5\.png: expected uint8 \(2, 3, 3\), got float32 \(2, 3, 3\)"),
    ],
)
def test_a_reader_that_gives_something_else_is_not_trusted(tmp_path: Path, wrong: np.ndarray, message: str) -> None:
    with pytest.raises(DomainError, match=message):
        decoded(encoded(lambda row: wrong if row == 5 else numbered(row)), Store(tmp_path))
