"""Names of classes: as a list, from a file, known of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robustgate.config.reader import Reader
from robustgate.core.errors import DomainError
from robustgate.domains._classes import Classes, class_names


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_known_names_are_the_published_ones(real_data: Path, name: str) -> None:
    with np.load(real_data / "cifar" / f"{name}_test_2000.npz") as arrays:
        assert class_names(name) == tuple(arrays["classes"])


def test_a_file_holds_one_name_a_line(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("tench\n great white shark \n\n", encoding="utf-8")
    assert class_names(file) == ("tench", "great white shark")
    assert class_names(("b", "a")) == ("b", "a")


def test_files_that_do_not_serve_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DomainError, match=r"no such file: .*cifar-10 \(did you mean 'cifar10'\?\); expected a text file"
    ):
        class_names(tmp_path / "cifar-10")
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(DomainError, match=r"empty\.txt: expected one class a line, got an empty file"):
        class_names(empty)
    empty.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DomainError, match=r"empty\.txt: cannot be read as a text file"):
        class_names(empty)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("cifar10", "cifar10"), ("names.txt", Path("/somewhere/names.txt")), (["b", "a"], ("b", "a"))],
)
def test_the_configuration_tells_names_files_and_data_sets_apart(value, expected) -> None:
    assert Reader(Path("/somewhere")).value(Classes, value, "classes") == expected
