"""--robustgate-examples: what is exported, by workers too, and what the reports then hold."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robustgate.core.records import CaseResult
from robustgate.reports import results_json

ATTACKED = [f"tiny-{compression}-day-{attack}" for compression in ("none", "fp25") for attack in ("fgsm", "pgd")]


@pytest.fixture
def suite(pytester: pytest.Pytester, tiny) -> Callable[..., int]:
    """Run the shipped suite in the tiny project: in this process, or with workers in a process of its own."""

    def run_suite(*words: str) -> int:
        os.chdir(tiny.folder)
        words = ("--pyargs", "robustness_tests", *words)
        if "-n" in words:
            command = [sys.executable, "-m", "pytest", *words]
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300).returncode
        return int(pytester.runpytest_inprocess(*words).ret)

    return run_suite


def cases(folder: Path) -> dict[str, CaseResult]:
    found = results_json.load(folder / "robustgate-report" / "results.json").cases
    return {case.name: case for case in found if case.shift.kind == "adversarial"}


def test_every_attacked_case_is_exported_and_nothing_else(tiny, suite) -> None:
    assert suite("-m", "adversarial or clean", "--robustgate-examples", "out/fooled") == 0
    folder = tiny.folder / "out" / "fooled"
    assert sorted(file.name for file in folder.iterdir()) == sorted(f"{name}.npz" for name in ATTACKED)
    for name, case in cases(tiny.folder).items():
        with np.load(folder / f"{name}.npz", allow_pickle=False) as found:
            assert len(found["index"]) == case.details["fallen"] > 0
            assert (found["predictions"] == found["labels"]).sum() == case.correct
            kept = tiny.folder / "cache" / "measurements" / str(case.measurement) / f"0-{case.n}"
            places = np.load(kept / "outcomes.npz")["examples"]
            np.testing.assert_array_equal(found["perturbed"], np.load(kept / "examples.npy")[places[found["index"]]])


def test_workers_export_the_same_bytes_and_send_the_same_pictures(tiny, suite) -> None:
    assert suite("-n", "2", "-m", "adversarial", "--robustgate-examples", "parallel") == 0
    sent = {name: case.pictures for name, case in cases(tiny.folder).items()}
    assert {len(pictures) for pictures in sent.values()} == {3}
    page = (tiny.folder / "robustgate-report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 9 * len(ATTACKED)
    assert suite("-m", "adversarial", "--robustgate-examples", str(tiny.folder / "alone")) == 0
    found = cases(tiny.folder)
    assert all(case.cached for case in found.values())  # what was kept from before is exported too
    assert {name: case.pictures for name, case in found.items()} == sent
    for name in ATTACKED:
        ours, theirs = (tiny.folder / folder / f"{name}.npz" for folder in ("alone", "parallel"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_ini_file_may_ask_for_it_and_nothing_is_exported_unasked(tiny, suite) -> None:
    assert suite("-k", "none and fgsm") == 0
    assert not list(tiny.folder.rglob("*fgsm.npz"))
    (tiny.folder / "pytest.ini").write_text("[pytest]\nrobustgate_examples = from_ini\n")
    assert suite("-k", "none and fgsm") == 0
    assert [file.name for file in (tiny.folder / "from_ini").iterdir()] == ["tiny-none-day-fgsm.npz"]


def test_a_folder_that_cannot_be_made_turns_the_case_red(tiny, suite) -> None:
    (tiny.folder / "out").write_text("a file")
    assert suite("-k", "none and fgsm", "--robustgate-examples", "out") == 1
    case = cases(tiny.folder)["tiny-none-day-fgsm"]
    assert case.verdict == "error"
    assert "out" in case.message
