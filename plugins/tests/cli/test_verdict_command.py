"""`robustgate verdict`: the exit status that pytest gave, from a results.json alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from robustgate.cli import app

REPORT = Path("robustgate-report/results.json")
FITS = '[[policies.edge.rules]]\nname = "fits"\nrule = "size"\nmax = "1 MB"\n'
# Of 144 images 118 are right under fgsm: 81.9 %, of new data nobody knows on which side of 80 %.
UNSURE = 'scope = "population"\non_undecided = "{}"\n[[policies.edge.rules]]\nname = "floor"\nmin = 0.8'


def suite(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def verdict(*words: str) -> Result:
    return CliRunner().invoke(app, ["verdict", str(REPORT), *words])


def summary(stdout: str) -> list[str]:
    """The lines of pytest's closing summary of the gate, up to its tables and the place of the report."""
    lines = stdout.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("=") and " robustgate: " in line)
    ends = ("What failed", "What took longest", "report: ")
    end = next(place for place, line in enumerate(lines) if place > start and line.startswith(ends))
    return [line for line in lines[start + 1 : end] if line]


@pytest.mark.parametrize(
    ("rules", "words", "status"),
    [
        pytest.param("min = 0.3", ("--robustgate-complete",), 0, id="green"),
        pytest.param("min = 0.3", ("-k", "fp25"), 0, id="partial"),
        pytest.param("min = 0.3", ("-k", "fp25", "--robustgate-complete"), 1, id="not-complete"),
        pytest.param("min = 0.3", ("-k", "test_cost"), 0, id="costs"),
        pytest.param("min = 0.99", ("-k", "fgsm"), 1, id="red"),
        pytest.param("undecided fail", ("-k", "fgsm"), 1, id="undecided"),
        pytest.param("undecided pass", ("-k", "fgsm"), 0, id="undecided-passes"),
    ],
)
def test_the_exit_status_is_the_one_that_pytest_gave(tiny, rules: str, words: tuple[str, ...], status: int) -> None:
    if rules.startswith("undecided"):
        heading = '[policies.edge]\n[[policies.edge.rules]]\nname = "floor"\nmin = 0.3'
        tiny.configure((heading, f"[policies.edge]\n{UNSURE.format(rules.split()[1])}"), extra=FITS)
    else:
        tiny.configure(("min = 0.3", rules), extra=FITS)
    ran = suite(*words)
    assert ran.returncode == status, ran.stdout
    done = verdict(*(["--complete"] if "--robustgate-complete" in words else []))
    assert (done.exit_code, done.stderr) == (status, "")
    lines = done.stdout.splitlines()
    told = [line for line in lines if not line.startswith("red: ")]
    assert told == summary(ran.stdout)
    assert (told != lines) == bool(status)


def edit(change: Any) -> None:
    content = json.loads(REPORT.read_text())
    change(content)
    REPORT.write_text(json.dumps(content))


def test_what_makes_a_run_red_is_told(tiny) -> None:
    tiny.configure(extra=FITS)
    assert suite("-k", "test_clean or test_cost").returncode == 0
    assert verdict().exit_code == 0
    whole = REPORT.read_text()

    def fail(content: dict[str, Any]) -> None:
        content["cases"][0]["findings"][0]["verdict"] = "fail"
        content["findings"][1]["verdict"] = "undecided"

    def lose(content: dict[str, Any]) -> None:
        content["cases"][0] |= {"value": None, "verdict": "incomplete"}

    def break_cost(content: dict[str, Any]) -> None:
        lost = content["findings"].pop()
        content["unjudged"] = [{key: lost[key] for key in ("policy", "rule", "subject")} | {"selected": True}]

    def empty(content: dict[str, Any]) -> None:
        content["run"]["measured"], content["findings"] = 0, []

    for change, reason in (
        (fail, "2 failed: a rule on tiny-none-day, clean/tiny-none-day"),
        (lose, "1 selected cases were not measured, tiny-none-day among them"),
        (break_cost, "1 rules on selected variants were not judged, 'fits' of policy edge on tiny-none-day among them"),
        (empty, "nothing was measured"),
    ):
        REPORT.write_text(whole)
        edit(change)
        done = verdict()
        assert (done.exit_code, done.stdout.splitlines()[-1]) == (1, f"red: {reason}")
    REPORT.write_text(whole)
    done = verdict("--complete")
    assert done.stdout.splitlines()[-1] == "red: 10 of 12 planned cases and 0 rules on variants were not measured"


def test_what_cannot_be_read_is_refused(tiny) -> None:
    done = verdict()
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr.startswith(f"robustgate: {REPORT}: expected a results.json, cannot read it")
    suite("-k", "test_clean and none")
    edit(lambda content: content.pop("unjudged"))
    done = verdict()
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr == (
        f"robustgate: {REPORT}: unjudged: expected the rules on variants that have no figure, got none: the run is of "
        "an older robustgate; run it again\n"
    )


def test_help_fits_one_screen() -> None:
    done = CliRunner().invoke(app, ["verdict", "--help"], terminal_width=80)
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "Example: robustgate verdict report/results.json --complete" in done.stdout
