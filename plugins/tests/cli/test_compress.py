"""Variants built ahead: once, whole or not at all, and handed over with a card."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

LONG = """
[compressions.long]
steps = [{ method = "magnitude_pruning", sparsity = 0.5, finetune = { epochs = 60, batch_size = 2, lr = 0.001 } }]
"""
COMMAND = str(Path(sys.executable).with_name("robustgate"))


def compress(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, "compress", *words], cwd=folder, capture_output=True, text=True, check=False)


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([COMMAND, "compress", "*long*"], cwd=folder, stdout=subprocess.PIPE, text=True)


def test_what_is_built_is_kept(tiny) -> None:
    first, second = compress(tiny.folder), compress(tiny.folder)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert [line.split()[0] for line in first.stdout.splitlines()] == ["tiny-none-day", "tiny-fp25-day"]
    assert first.stdout.count("built in") == 2
    assert [line.split()[-1] for line in second.stdout.splitlines()] == ["kept", "kept"]


def test_an_export_has_the_artifact_and_a_card_that_tells_its_making(tiny) -> None:
    done = compress(tiny.folder, "tiny-fp25-day", "--export", "dist")
    assert done.returncode == 0, done.stderr
    place = tiny.folder / "dist" / "tiny-fp25-day"
    card = json.loads((place / "card.json").read_text())
    assert card["variant"] == {"name": "tiny-fp25-day", "model": "tiny", "source": "day", "compression": "fp25"}
    for name, digest in card["files"].items():
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest
    (step,) = card["recipe"]
    assert (step["method"], step["parameters"]["ratio"], step["finetune"]) == ("filter_pruning", 0.25, None)
    state = load_file(place / "weights.safetensors")
    assert card["figures"]["parameters"] == sum(value.numel() for value in state.values())
    weights = hashlib.sha256((tiny.folder / "tiny.safetensors").read_bytes()).hexdigest()
    assert weights in json.dumps(card["made_from"])
    assert card["made_from"]["code"]["torch"] == torch.__version__.split("+")[0]


def test_an_export_takes_the_place_of_the_one_before(tiny) -> None:
    compress(tiny.folder, "tiny-none-day", "--export", "dist")
    stale = tiny.folder / "dist" / "tiny-none-day" / "stale.txt"
    stale.touch()
    compress(tiny.folder, "tiny-none-day", "--export", "dist")
    assert not stale.exists()
    assert [path.name for path in (tiny.folder / "dist").iterdir()] == ["tiny-none-day"]


def test_a_pattern_that_fits_nothing_is_told_with_the_nearest_name(tiny) -> None:
    done = compress(tiny.folder, "tiny-fp52-day")
    assert done.returncode == 4
    assert "no variant 'tiny-fp52-day' (did you mean 'tiny-fp25-day'?)" in done.stderr


def test_what_cannot_be_built_is_told_and_the_others_are_built(tiny) -> None:
    tiny.configure(("ratio = 0.25", "parameters = 1"))
    done = compress(tiny.folder)
    assert done.returncode == 1
    assert "tiny-fp25-day: filter_pruning:" in done.stderr
    assert "tiny-none-day" in done.stdout


def test_two_processes_that_want_one_artifact_build_it_once(tiny) -> None:
    tiny.configure(extra=LONG)
    both = [start(tiny.folder) for _ in range(2)]
    lines = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    ours = [line for output in lines for line in output.splitlines() if "-long-" in line]
    assert sorted(line.split("  ")[-1].split()[0] for line in ours) == ["built", "kept"]


@pytest.mark.skipif(sys.platform == "win32", reason="kills by a signal")
def test_a_build_killed_in_the_middle_leaves_nothing_that_is_taken_for_whole(tiny) -> None:
    tiny.configure(extra=LONG)
    process = start(tiny.folder)
    artifacts = tiny.folder / "cache" / "artifacts"
    deadline = time.monotonic() + 60
    # The reference is whole, and the second artifact has been begun.
    while not (any(artifacts.glob("*/seal.json")) and any(artifacts.glob("*.building"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert any(artifacts.glob("*.building"))
    again = compress(tiny.folder, "*long*")
    assert again.returncode == 0, again.stderr
    assert "built in" in next(line for line in again.stdout.splitlines() if "tiny-long-day" in line)
    assert not any(artifacts.glob("*.building"))
    assert "kept" in compress(tiny.folder, "tiny-long-day").stdout
