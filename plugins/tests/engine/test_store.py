"""What is made once and kept: whole or not at all, once even for two processes, and again where it is damaged."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robustgate.engine.store import SEAL, Store

IDENTITY = {"seed": 1, "names": ["a", "b"]}


class Builder:
    """Fills an entry, and counts how often it was asked to."""

    def __init__(self, content: str = "made") -> None:
        self.content = content
        self.built = 0

    def __call__(self, folder: Path) -> None:
        assert list(folder.iterdir()) == []
        self.built += 1
        (folder / "one.bin").write_bytes(bytes(range(256)))
        (folder / "two.txt").write_text(self.content)


def left_over(folder: Path) -> list[str]:
    """Everything in a store's kind but lock files and sealed entries."""
    return [
        place.name for place in (folder / "kind").iterdir() if place.suffix != ".lock" and not (place / SEAL).is_file()
    ]


def test_an_entry_is_built_once_and_then_kept(tmp_path: Path) -> None:
    store, build = Store(tmp_path), Builder()
    place, kept = store.entry("kind", IDENTITY, build)
    assert (kept, build.built) == (False, 1)
    assert (place / "two.txt").read_text() == "made"
    assert Store(tmp_path).entry("kind", IDENTITY, build) == (place, True)
    assert build.built == 1
    assert left_over(tmp_path) == []


def test_another_identity_or_kind_is_another_entry(tmp_path: Path) -> None:
    store, build = Store(tmp_path), Builder()
    place, _ = store.entry("kind", IDENTITY, build)
    others = [
        store.entry("kind", {**IDENTITY, "seed": 2}, build),
        store.entry("kind", {**IDENTITY, "names": ["b", "a"]}, build),
        store.entry("kind", {**IDENTITY, "more": None}, build),
        store.entry("other", IDENTITY, build),
    ]
    assert build.built == 5
    assert len({place, *(other for other, kept in others if not kept)}) == 5


def test_the_order_of_keys_is_no_part_of_an_identity(tmp_path: Path) -> None:
    store, build = Store(tmp_path), Builder()
    place, _ = store.entry("kind", {"a": 1, "b": (2, 3)}, build)
    assert store.entry("kind", {"b": [2, 3], "a": 1}, build) == (place, True)


def test_the_seal_tells_what_the_entry_is(tmp_path: Path) -> None:
    place, _ = Store(tmp_path).entry("kind", IDENTITY, Builder())
    seal = json.loads((place / SEAL).read_text())
    assert seal["identity"] == IDENTITY
    assert seal["files"].keys() == {"one.bin", "two.txt"}


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one byte changed": lambda place: (place / "one.bin").write_bytes(b"\1" + bytes(range(1, 256))),
    "truncated": lambda place: os.truncate(place / "one.bin", 100),
    "empty": lambda place: os.truncate(place / "two.txt", 0),
    "a file missing": lambda place: (place / "two.txt").unlink(),
    "the seal missing": lambda place: (place / SEAL).unlink(),
    "the seal truncated": lambda place: os.truncate(place / SEAL, 30),
    "the seal a list": lambda place: (place / SEAL).write_text("[]"),
    "the seal without files": lambda place: (place / SEAL).write_text("{}"),
    "the seal not text": lambda place: (place / SEAL).write_bytes(b"\xff\xfe\x00"),
    "a file that is a folder": lambda place: ((place / "two.txt").unlink(), (place / "two.txt").mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    store, build = Store(tmp_path), Builder()
    place, _ = store.entry("kind", IDENTITY, build)
    damage(place)
    assert store.entry("kind", IDENTITY, build) == (place, False)
    assert build.built == 2
    assert (place / "one.bin").read_bytes() == bytes(range(256))
    assert (place / "two.txt").read_text() == "made"
    assert store.entry("kind", IDENTITY, build) == (place, True)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=["an error", "Ctrl-C"])
def test_a_builder_that_raises_leaves_nothing_and_the_next_one_builds(tmp_path: Path, error: BaseException) -> None:
    store, build = Store(tmp_path), Builder()

    def fail(folder: Path) -> None:
        build(folder)
        raise error

    with pytest.raises(type(error)):
        store.entry("kind", IDENTITY, fail)
    assert left_over(tmp_path) == []
    assert not list(tmp_path.rglob("*.bin"))
    assert store.entry("kind", IDENTITY, build)[1] is False
    assert build.built == 2


def test_a_part_is_an_entry_of_its_own(tmp_path: Path) -> None:
    store, build = Store(tmp_path), Builder()
    assert store.parts("kind", IDENTITY) == ()
    place, kept = store.entry("kind", IDENTITY, build, "0-50")
    other, _ = store.entry("kind", IDENTITY, build, "50-100")
    assert (kept, build.built) == (False, 2)
    assert (place, other) == tuple(store.place("kind", IDENTITY) / name for name in ("0-50", "50-100"))
    assert store.parts("kind", IDENTITY) == ("0-50", "50-100")
    assert store.parts("kind", {**IDENTITY, "seed": 2}) == store.parts("other", IDENTITY) == ()
    (place / "one.bin").write_bytes(b"")
    assert store.entry("kind", IDENTITY, build, "50-100") == (other, True)
    assert store.entry("kind", IDENTITY, build, "0-50") == (place, False)
    assert build.built == 3


def test_what_is_still_being_built_is_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    seen = []

    def rename(place: Path, target: Path) -> None:
        assert (place / SEAL).is_file()
        seen.append((target.name, store.parts("kind", IDENTITY)))
        os.rename(place, target)

    monkeypatch.setattr(Path, "rename", rename)
    for name in ("0-50", "50-100"):
        store.entry("kind", IDENTITY, Builder(), name)
    assert seen == [("0-50", ()), ("50-100", ("0-50",))]
    assert store.parts("kind", IDENTITY) == ("0-50", "50-100")


PROCESS = """
import os, sys, time
from pathlib import Path
from robustgate.engine.store import Store

folder, act = Path(sys.argv[1]), sys.argv[2]

def build(place):
    (place / "half.bin").write_bytes(b"half")
    if act == "die":
        os._exit(9)
    with (folder / "log").open("a") as log:
        log.write("built\\n")
    (folder / "started").touch()
    time.sleep(1.0)
    (place / "whole.bin").write_bytes(b"whole")

while act == "second" and not (folder / "started").exists():
    time.sleep(0.02)
place, kept = Store(folder).entry("kind", {"seed": 1}, build)
print(kept, (place / "whole.bin").read_text(), flush=True)
"""


def process(folder: Path, act: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PROCESS, str(folder), act], stdout=subprocess.PIPE, text=True)


def test_two_processes_build_one_entry_once(tmp_path: Path) -> None:
    both = process(tmp_path, "first"), process(tmp_path, "second")
    told = [one.communicate(timeout=60)[0] for one in both]
    assert told == ["False whole\n", "True whole\n"]
    assert (tmp_path / "log").read_text() == "built\n"
    assert left_over(tmp_path) == []


def test_a_killed_builder_neither_blocks_nor_leaves_a_part(tmp_path: Path) -> None:
    killed = process(tmp_path, "die")
    killed.communicate(timeout=60)
    assert killed.returncode == 9
    told, _ = process(tmp_path, "again").communicate(timeout=60)
    assert told == "False whole\n"
    # What the dead one had written is gone, too.
    assert left_over(tmp_path) == []
    assert len(list(tmp_path.rglob("half.bin"))) == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_an_entry_is_for_everybody_whom_the_umask_lets_in(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        place, _ = Store(tmp_path).entry("kind", IDENTITY, Builder())
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
