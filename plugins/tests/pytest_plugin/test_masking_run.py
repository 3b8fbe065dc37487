"""Real pytest runs with checks for gradient masking: a sound network passes, one that hides its gradients is red."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

OFF = "[masking]\nenabled = false\n"
ON = "[masking]\nsamples = 60\nsteps = 8\nqueries = 30\n"
# The tiny network's logits reach 31: divided, its softmax is not saturated at the brightest image either.
LOGITS = "self.head(nn.functional.relu(self.conv(x)).mean((2, 3)))"


@dataclass(frozen=True)
class Done:
    """A finished pytest run."""

    returncode: int
    stdout: str


@pytest.fixture
def suite(pytester: pytest.Pytester, tiny) -> Callable[..., Done]:
    """Run the shipped suite in the tiny project: in this process, or with workers in a process of its own."""

    def run(*words: str) -> Done:
        os.chdir(tiny.folder)
        words = ("--pyargs", "robustness_tests", *words)
        if "-n" in words:
            command = [sys.executable, "-m", "pytest", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            return Done(done.returncode, done.stdout)
        result = pytester.runpytest_inprocess(*words)
        return Done(int(result.ret), str(result.stdout))

    return run


@pytest.fixture
def sound(tiny) -> Callable[..., None]:
    """Configure the tiny project with checks, its logits times a factor: one that hides nothing by default."""

    def configure(factor: float = 0.125, extra: str = "", masking: str = ON) -> None:
        file = tiny.folder / "tiny_network.py"
        text = file.read_text()
        assert LOGITS in text
        file.write_text(text.replace(LOGITS, f"{factor} * {LOGITS}"))
        tiny.configure((OFF, masking), extra=extra)

    return configure


def rows(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "robustgate-report" / "results.json").read_text())
    return {case["name"]: case for case in found["cases"]} | {"run": found["run"]}


CHECKED = ("tiny-none-day-linf", "tiny-fp25-day-linf")


def test_a_sound_network_passes_and_its_checks_are_cases_of_their_own(tiny, suite, sound) -> None:
    sound()
    done = suite("-v")
    assert done.returncode == 0, done.stdout
    found = rows(tiny.folder)
    assert (found["run"]["planned"], found["run"]["complete"], found["run"]["verdict"]) == (14, True, "pass")
    for name in CHECKED:
        assert f"test_masking[{name}] PASSED" in done.stdout.replace("\n", " ")
        row = found[name]
        assert (row["shift"]["kind"], row["shift"]["eps"], row["n"]) == ("masking", 0.05, 60)
        assert [finding["verdict"] for finding in row["findings"]] == ["pass"] * 6
        assert row["details"]["checks"]["zero gradient"] == {"n": 60, "lost": 0, "gained": 0}
        assert row["correct"] == row["details"]["attacked"] - row["details"]["fallen"]
    assert "under no rule" not in done.stdout


def test_a_network_that_hides_its_gradients_is_red_whatever_its_thresholds(tiny, suite, sound) -> None:
    sound(factor=1000)
    done = suite()
    assert done.returncode == 1
    found = rows(tiny.folder)
    assert {name for name, row in found.items() if row.get("verdict") == "fail" and name != "run"} == set(CHECKED)
    lines = done.stdout.splitlines()
    at = lines.index("tiny / fp25 / day checked for gradient masking (linf, eps 0.05)")
    assert " of 60 images, all right without attack, stand under all attacks together: " in lines[at + 1]
    told = "\n".join(lines[at + 2 : at + 8])
    assert "  masking: zero gradient: max 2.0 %; it is " in told
    assert "  masking: loss scale: max 2.0 %; it is " in told
    assert "Do not trust this model's robust accuracy" in told
    command = next(line.strip() for line in lines[at:] if line.startswith("  pytest --pyargs"))
    again = suite(*shlex.split(command)[3:])
    assert (again.returncode, "1 failed" in again.stdout, "passed" in again.stdout) == (1, True, False)


def test_a_waiver_excuses_it_until_its_day(tiny, suite, sound) -> None:
    waiver = '\n[[policies.edge.waivers]]\nwhere = {{ kind = "masking" }}\nuntil = {}\nreason = "ticket 1"\n'
    sound(factor=1000, extra=waiver.format("2999-01-01"))
    assert suite("-m", "masking").returncode == 0
    assert rows(tiny.folder)[CHECKED[0]]["verdict"] == "waived"
    tiny.configure((OFF, ON), extra=waiver.format("2020-01-01"))
    done = suite("-m", "masking")
    assert done.returncode == 1
    assert "expired on 2020-01-01: ticket 1" in done.stdout


def test_the_marker_selects_the_checks_and_the_defaults_plan_them(tiny, suite, sound) -> None:
    sound(masking="")
    done = suite("-m", "masking", "--collect-only", "-q")
    assert sorted(line.rpartition("[")[2] for line in done.stdout.splitlines() if "::" in line) == sorted(
        f"{name}]" for name in CHECKED
    )


def test_switched_off_there_is_nothing_to_collect(tiny, suite) -> None:
    assert "test_masking" not in suite("--collect-only", "-q").stdout
    assert suite("-m", "masking").returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_workers_and_order_change_no_byte(tiny, suite, sound) -> None:
    sound(factor=300)
    kept = []
    for words, cache in ((("-m", "masking"), "one"), (("-m", "masking", "-n", "2"), "two"), ((), "three")):
        tiny.configure((OFF, ON), ('cache = "cache"', f'cache = "{cache}"'))
        assert suite(*words).returncode == 1
        found = [rows(tiny.folder)[name] for name in CHECKED]
        for row in found:
            del row["seconds"], row["cached"], row["reproduce"]
        kept.append(found)
    assert kept[0] == kept[1] == kept[2]
    again = suite("-m", "masking")
    assert again.returncode == 1
    assert all(rows(tiny.folder)[name]["cached"] for name in CHECKED)


def test_other_settings_measure_anew(tiny, suite, sound) -> None:
    sound()
    suite("-m", "masking")
    before = [rows(tiny.folder)[name]["measurement"] for name in CHECKED]
    tiny.configure((OFF, ON.replace("steps = 8", "steps = 9")))
    suite("-m", "masking")
    after = [rows(tiny.folder)[name] for name in CHECKED]
    assert not any(row["cached"] for row in after)
    assert not set(before) & {row["measurement"] for row in after}
