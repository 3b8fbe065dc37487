"""Stored benchmarks in robustgate.toml: what must be there is looked for before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustgate.config import Configuration, load
from robustgate.core.errors import ConfigurationError

TEXT = """
[domains.cifar10]
kind = "npz"
files = { test = "cifar10.npz" }
[domains.other]
kind = "npz"
files = { test = "other.npz" }
[domains.cifar10_c]
kind = "cifar_c"
root = "CIFAR-10-C"

[models.net]
build = "robustgate.zoo:cifar_resnet"
normalize = "inside"
weights = { cifar10 = "net.safetensors" }

[shifts]
corruptions = { names = ["fog", "contrast"], severities = [1, 3], stored = { cifar10 = "cifar10_c" } }

[policies.edge]
[[policies.edge.rules]]
name = "floor"
min = 0.4
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose stored benchmark's files are there, and empty: planning reads none."""
    (tmp_path / "CIFAR-10-C").mkdir()
    for name in ("fog", "contrast", "labels"):
        (tmp_path / "CIFAR-10-C" / f"{name}.npy").touch()
    (tmp_path / "net.safetensors").touch()
    return tmp_path


def loaded(folder: Path, *changes: tuple[str, str]) -> Configuration:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "robustgate.toml").write_text(text)
    return load(folder / "robustgate.toml")


def test_a_stored_benchmark_is_named_for_a_source(folder: Path) -> None:
    assert loaded(folder).stored == {"cifar10": "cifar10_c"}
    assert loaded(folder, (', stored = { cifar10 = "cifar10_c" }', "")).stored == {}


def test_all_pairs_leave_it_out(folder: Path) -> None:
    pairs = loaded(folder, ("[shifts]\n", '[shifts]\npairs = "all"\n')).pairs
    assert pairs == (("cifar10", "other"),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            [('{ cifar10 = "cifar10_c"', '{ cifar10 = "cifar10_"')],
            "shifts.corruptions.stored.cifar10: no domain of corrupted images 'cifar10_' (did you mean 'cifar10_c'?)",
        ),
        (
            [('{ cifar10 = "cifar10_c"', '{ cifar10 = "other"')],
            "shifts.corruptions.stored.cifar10: no domain of corrupted images 'other'; known: cifar10_c",
        ),
        (
            [('{ cifar10 = "cifar10_c"', '{ other = "cifar10_c"')],
            "shifts.corruptions.stored.other: no source domain 'other'; known: cifar10",
        ),
        (
            [("[shifts]\n", '[shifts]\npairs = [["cifar10", "cifar10_c"]]\n')],
            "shifts.pairs[0]: 'cifar10_c' holds corrupted images only: name it in shifts.corruptions, stored = ",
        ),
        (
            [("weights = { cifar10 = ", "weights = { cifar10_c = ")],
            "models.net.weights.cifar10_c: 'cifar10_c' holds corrupted images only",
        ),
        (
            [('"contrast"', '"pixelate"')],
            "CIFAR-10-C/pixelate.npy; there: contrast, fog, labels",
        ),
        ([("CIFAR-10-C", "nowhere")], "nowhere/fog.npy; there: (none)"),
    ],
)
def test_what_does_not_fit_is_said_at_planning(folder: Path, changes, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        loaded(folder, *changes)
    assert message in str(raised.value)


def test_a_severity_that_is_missing_is_said_at_planning(folder: Path) -> None:
    for corruption in ("fog", "contrast"):
        (folder / "tree" / corruption / "1" / "n01").mkdir(parents=True)
    changes = ('kind = "cifar_c"\nroot = "CIFAR-10-C"', 'kind = "imagenet_c"\nroot = "tree"')
    with pytest.raises(ConfigurationError) as raised:
        loaded(folder, changes)
    (problem,) = raised.value.problems
    place = "shifts.corruptions.stored.cifar10"
    assert problem == f"{place}: domains.cifar10_c: no such folder: {folder}/tree/fog/3"


def test_a_benchmark_that_is_wrong_itself_is_complained_of_once(folder: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        loaded(folder, ('root = "CIFAR-10-C"', ""))
    (problem,) = raised.value.problems
    assert problem == "domains.cifar10_c: missing key 'root', expected a path"
