"""Real runs that compare with a baseline: red without one, green with one, red when the model is worse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from robustgate.cli import app

RULE = '\n[[policies.edge.rules]]\nname = "no worse"\nwhere = { kind = "clean" }\n'
RULE += 'max_drop = 0.01\nmax_drop_from = "baseline"\n'
REPORT = Path("robustgate-report/results.json")
BASELINE = Path("robustgate-baseline.json")


def accept(*words: str) -> Result:
    return CliRunner().invoke(app, ["baseline", "accept", str(REPORT), *words])


@pytest.fixture
def suite(pytester: pytest.Pytester, tiny) -> Callable[..., tuple[int, str]]:
    """Run the shipped suite in the tiny project, in this process."""

    def run(*words: str) -> tuple[int, str]:
        os.chdir(tiny.folder)
        result = pytester.runpytest_inprocess("--pyargs", "robustness_tests", *words)
        return int(result.ret), str(result.stdout)

    return run


def rows() -> dict[str, dict[str, Any]]:
    return {f"{row['shift']['kind']}/{row['name']}": row for row in json.loads(REPORT.read_text())["cases"]}


def verdict(case: str) -> tuple[str, float | None]:
    """The verdict of the rule against the baseline on a case, and its drop."""
    (finding,) = (one for one in rows()[case]["findings"] if one["rule"] == "no worse")
    assert finding["against"] == "baseline"
    return finding["verdict"], finding["value"]


def worse(tiny, threshold: float) -> None:
    """Write weights that call an image bright when its mean is above `threshold`."""
    tiny.write_weights()
    path = tiny.folder / "tiny.safetensors"
    state = load_file(path)
    state["head.bias"] = state["head.bias"] * threshold / 0.5
    save_file(state, path)


def test_red_without_a_baseline_green_with_one_red_when_the_model_is_worse(tiny, suite) -> None:
    tiny.configure(extra=RULE)
    status, output = suite()
    assert status == 1
    assert (
        'not measured: rule "no worse" of policy edge: max_drop 1.0 points from the baseline; no baseline at '
        "robustgate-baseline.json: accept one with `robustgate baseline accept robustgate-report/results.json`"
    ) in output
    assert "cases were not measured" not in output
    clean = rows()["clean/tiny-fp25-day"]
    assert verdict("clean/tiny-fp25-day") == ("incomplete", None)
    assert clean["verdict"] == "incomplete"
    assert json.loads(REPORT.read_text())["run"]["verdict"] == "incomplete"

    done = accept()
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == ["  there was no baseline before"]
    kept = json.loads(BASELINE.read_text())["cases"]
    assert sorted(kept) == sorted(rows())
    assert kept["clean/tiny-fp25-day"]["correct"] == clean["correct"] < clean["n"] == 144

    status, output = suite()
    assert status == 0, output
    assert verdict("clean/tiny-fp25-day") == ("pass", 0.0)
    assert "no longer planned" not in output

    # A head that calls an image bright only above 60 %: 25 grey levels of the uncompressed model are lost.
    worse(tiny, 0.6)
    status, output = suite()
    assert status == 1
    lost = tiny.correct(tiny.day) - tiny.correct(tiny.day, 255 * 0.6)
    assert verdict("clean/tiny-none-day") == ("fail", lost / 144)
    assert f"max_drop 1.0 points; the drop from the baseline is {100 * lost / 144:.1f}" in output


def test_workers_compare_with_the_baseline_too(tiny) -> None:
    tiny.configure(extra=RULE)
    command = [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", "-n", "2", "-k", "clean"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, done.stdout
    assert verdict("clean/tiny-fp25-day") == ("incomplete", None)
    assert accept("--partial").exit_code == 0
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
    assert verdict("clean/tiny-fp25-day") == ("pass", 0.0)


def test_a_waiver_does_not_replace_a_baseline(tiny, suite) -> None:
    waiver = '[[policies.edge.waivers]]\nwhere = { kind = "clean" }\nuntil = 2999-01-01\nreason = "later"\n'
    tiny.configure(extra=RULE + waiver)
    status, _ = suite("-k", "clean")
    assert status == 1
    assert rows()["clean/tiny-fp25-day"]["verdict"] == "incomplete"


def test_a_renamed_case_is_red_and_what_it_was_called_is_told(tiny, suite) -> None:
    suite("-k", "clean")
    assert accept("--partial").exit_code == 0
    tiny.configure(("fp25", "fp_25"), extra=RULE)
    status, output = suite("-k", "clean")
    assert status == 1
    assert "holds no case 'clean/tiny-fp_25-day': was it renamed from 'clean/tiny-fp25-day'? Accept a new one" in output
    assert (
        "robustgate-baseline.json holds 1 case that is no longer planned, clean/tiny-fp25-day among them"
        in output.splitlines()
    )


def test_other_data_and_another_seed_are_red(tiny, suite) -> None:
    tiny.configure(extra=RULE)
    suite("-k", "clean")
    assert accept("--partial").exit_code == 0
    tiny.configure(("[gate]", "[gate]\nseed = 3"), extra=RULE)
    status, output = suite("-k", "clean")
    assert (status, "was measured in the order of another seed: expected 3, got 0; accept a new one" in output) == (
        1,
        True,
    )
    tiny.configure(extra=RULE)
    content = dict(np.load("day.npz"))
    content["images"] = content["images"].copy()
    content["images"][0] += 1
    np.savez("day.npz", **content)
    status, output = suite("-k", "clean")
    assert (status, "was measured on other data: expected " in output) == (1, True)


def test_a_damaged_baseline_is_red_and_the_other_rules_are_judged(tiny, suite) -> None:
    tiny.configure(extra=RULE)
    (tiny.folder / BASELINE).write_text("<<<<<<< HEAD\n")
    status, output = suite("-k", "clean")
    assert status == 1
    assert "robustgate-baseline.json: expected a whole baseline, the file is damaged: " in output
    assert {one["rule"]: one["verdict"] for one in rows()["clean/tiny-fp25-day"]["findings"]} == {
        "floor": "pass",
        "holds": "pass",
        "no worse": "incomplete",
    }
