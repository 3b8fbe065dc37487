"""Real pytest runs of the shipped suite on the tiny project: what passes, what fails, what is said."""

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
import torch

PLANNED = 12


@dataclass(frozen=True)
class Done:
    """A finished pytest run."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(pytester: pytest.Pytester, tiny) -> Callable[..., Done]:
    """Run pytest in the tiny project: in this process, or with workers in a process of its own."""

    def run_pytest(*words: str) -> Done:
        os.chdir(tiny.folder)
        if "-n" in words:
            command = [sys.executable, "-m", "pytest", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            return Done(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)
        result = pytester.runpytest_inprocess(*words)
        return Done(returncode=int(result.ret), stdout=str(result.stdout), stderr=str(result.stderr))

    return run_pytest


@pytest.fixture
def suite(run: Callable[..., Done]) -> Callable[..., Done]:
    """Run the shipped suite in the tiny project."""
    return lambda *words: run("--pyargs", "robustness_tests", *words)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "robustgate-report" / "results.json").read_text())


def verdicts(folder: Path) -> dict[str, str]:
    return {case["name"]: case["verdict"] for case in results(folder)["cases"]}


def test_green_run_writes_its_reports(tiny, suite) -> None:
    done = suite()
    assert done.returncode == 0, done.stdout
    found = results(tiny.folder)
    assert found["run"]["verdict"] == "pass"
    assert found["run"]["complete"] is True
    assert found["run"]["measured"] == found["run"]["planned"] == PLANNED
    assert {file.name for file in (tiny.folder / "robustgate-report").iterdir()} == {
        "results.json",
        "report.md",
        "report.html",
        "pairs.md",
        "pairs.csv",
        "pairs.tex",
        "corruptions.md",
        "corruptions.csv",
        "corruptions.tex",
    }
    assert f"pass: {PLANNED} of {PLANNED} planned cases measured (0 kept from before)" in done.stdout


def test_a_broken_rule_fails_its_cases_and_no_others(tiny, suite) -> None:
    tiny.configure(("max_drop = 0.3", "max_drop = 0.001"))
    done = suite()
    assert done.returncode == 1
    assert [name for name, verdict in verdicts(tiny.folder).items() if verdict != "pass"] == ["tiny-fp25-day"]
    assert results(tiny.folder)["run"]["verdict"] == "fail"
    lines = done.stdout.splitlines()
    at = lines.index("tiny / fp25 / day on clean images")
    right = tiny.correct(tiny.day, 127.5 * 3.1 / 3)
    # All of the test set is measured: these are facts, without an interval.
    share = 100 * right / 144
    assert lines[at + 1] == f"  accuracy {share:.1f} % on 144 images; the reference holds 100.0 %"
    assert lines[at + 2] == f'  rule "holds" of policy edge: max_drop 0.1 points; the drop is {100 - share:.1f}'
    assert lines[at + 3].startswith("  most lost: bright 100 → ")
    assert lines[at + 4].startswith("  pytest --pyargs robustness_tests --robustgate-config robustgate.toml -k ")


def test_the_last_line_of_a_failure_runs_that_case_alone(tiny, suite) -> None:
    tiny.configure(("min = 0.3", "min = 0.99"))
    done = suite()
    commands = [line.strip() for line in done.stdout.splitlines() if line.startswith("  pytest --pyargs")]
    assert commands
    for command in (commands[0], commands[-1]):
        again = suite(*shlex.split(command)[3:])
        assert again.returncode == 1
        assert "1 failed" in again.stdout
        assert "passed" not in again.stdout


def test_a_module_beside_the_configuration_is_found_from_anywhere(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    command = [str(Path(sys.executable).with_name("pytest")), "--pyargs", "robustness_tests", "-k", "test_clean", "-q"]
    for words in ((), ("-n", "1")):
        done = subprocess.run(
            [*command, "--robustgate-config", str(tiny.folder / "robustgate.toml"), *words],
            cwd="/", capture_output=True, text=True, check=False, timeout=300,
            env={**os.environ, "PYTEST_ADDOPTS": f"-p no:cacheprovider --robustgate-report {tiny.folder}/report"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_selection_runs_only_what_it_names_and_says_so(tiny, suite) -> None:
    done = suite("-k", "fp25 and pgd")
    assert done.returncode == 0, done.stdout
    found = results(tiny.folder)
    measured = [case["name"] for case in found["cases"] if case["value"] is not None]
    assert measured == ["tiny-fp25-day-pgd"]
    assert {case["message"] for case in found["cases"] if case["value"] is None} == {"not selected"}
    assert (found["run"]["verdict"], found["run"]["complete"]) == ("incomplete", False)
    assert "11 cases were not selected: this run certifies nothing as a whole" in done.stdout
    assert "not selected" in (tiny.folder / "robustgate-report" / "report.md").read_text()
    assert "not selected" in (tiny.folder / "robustgate-report" / "report.html").read_text()


def test_complete_turns_a_selection_red(tiny, suite) -> None:
    assert suite("-k", "fp25", "--robustgate-complete").returncode == 1
    assert suite("--robustgate-complete").returncode == 0


@pytest.mark.parametrize(
    ("marker", "count"), [("adversarial", 4), ("corruption", 4), ("clean", 2), ("domain_shift", 2)]
)
def test_markers_select_kinds(tiny, suite, marker: str, count: int) -> None:
    done = suite("-m", marker, "--collect-only", "-q")
    assert sum("::" in line for line in done.stdout.splitlines()) == count


def test_workers_and_order_change_no_byte(tiny, suite) -> None:
    def judged(*words: str, cache: str) -> tuple[list[Any], dict[str, bytes]]:
        tiny.configure(('cache = "cache"', f'cache = "{cache}"'), ("min = 0.3", "min = 0.9"))
        suite(*words)
        cases = results(tiny.folder)["cases"]
        for case in cases:
            del case["seconds"], case["cached"]
        kept = (tiny.folder / cache / "measurements").glob("*/*/*.*")
        return cases, {file.relative_to(tiny.folder / cache).as_posix(): file.read_bytes() for file in kept}

    alone = judged(cache="one")
    assert judged("-n", "2", cache="two") == alone
    assert judged("-n", "2", "--dist", "worksteal", "-k", "tiny", cache="three") == alone
    assert len(alone[1]) == 3 * PLANNED + 4


LATE = """
import time
from pathlib import Path

def pytest_runtest_setup(item):
    ends = time.monotonic() + 60
    while "none" in item.name and len(list(Path("cache/measurements").glob("*/*/seal.json"))) < 2:
        assert time.monotonic() < ends
        time.sleep(0.05)
"""


def test_what_another_worker_of_the_run_has_measured_was_not_kept_from_before(tiny, suite) -> None:
    # The reference is measured beside the compressed network, and only then its own worker opens its gate.
    (tiny.folder / "late.py").write_text(LATE)
    done = suite("-n", "2", "-p", "late", "-k", "pgd")
    assert done.returncode == 0, done.stdout
    assert f"2 of {PLANNED} planned cases measured (0 kept from before)" in done.stdout


def test_parallel_run_has_the_same_report_and_exit_status(tiny, suite) -> None:
    done = suite("-n", "2")
    assert done.returncode == 0, done.stdout
    assert results(tiny.folder)["run"]["complete"] is True
    tiny.configure(("min = 0.3", "min = 0.9"))
    assert suite("-n", "2").returncode == 1


def test_stopping_at_the_first_failure_leaves_an_incomplete_run(tiny, suite) -> None:
    tiny.configure(("min = 0.3", "min = 0.99"))
    done = suite("-x")
    assert done.returncode == 1
    found = results(tiny.folder)["run"]
    assert (found["verdict"], found["complete"]) == ("fail", False)
    assert "selected, but not measured" in {case["message"] for case in results(tiny.folder)["cases"]}


def test_last_failed_runs_only_the_failures(tiny, suite) -> None:
    tiny.configure(("max_drop = 0.3", "max_drop = 0.001"))
    suite()
    again = suite("--lf")
    assert "1 failed" in again.stdout
    assert "passed" not in again.stdout


def test_junit_names_every_case(tiny, suite) -> None:
    tiny.configure(("max_drop = 0.3", "max_drop = 0.001"))
    suite("--junitxml", "junit.xml")
    text = (tiny.folder / "junit.xml").read_text()
    assert 'tests="12"' in text
    assert 'failures="1"' in text
    assert "test_adversarial[tiny-fp25-day-pgd]" in text
    assert "the drop is" in text


def test_a_waiver_turns_a_failure_green_until_its_day(tiny, suite) -> None:
    waiver = '\n[[policies.edge.waivers]]\nwhere = { compression = "fp25" }\nuntil = %s\nreason = "ticket 1"\n'
    broken = ("max_drop = 0.3", "max_drop = 0.001")
    tiny.configure(broken, extra=waiver % "2999-01-01")
    assert suite().returncode == 0
    assert results(tiny.folder)["run"]["verdict"] == "waived"
    assert verdicts(tiny.folder)["tiny-fp25-day"] == "waived"
    tiny.configure(broken, extra=waiver % "2020-01-01")
    done = suite()
    assert done.returncode == 1
    assert "expired on 2020-01-01: ticket 1" in done.stdout


def test_a_size_rule_is_a_case_of_its_own(tiny, suite) -> None:
    rule = '\n[[policies.edge.rules]]\nname = "fits"\nrule = "size"\nmax = "%s"\n'
    tiny.configure(extra=rule % "1 MB")
    assert suite().returncode == 0
    tiny.configure(extra=rule % "10 B")
    done = suite("-m", "cost")
    assert done.returncode == 1
    assert 'rule "fits" of policy edge: max 10 B; it is' in done.stdout
    assert "2 failed" in done.stdout
    assert {finding["verdict"] for finding in results(tiny.folder)["findings"]} == {"fail"}


def test_an_error_in_one_variant_leaves_the_others_measured(tiny, suite) -> None:
    (tiny.folder / "tiny_network.py").write_text(
        (tiny.folder / "tiny_network.py")
        .read_text()
        .replace(".mean((2, 3)))", ".mean((2, 3)) / (len(self.conv.weight) - 3))")
    )
    done = suite()
    assert done.returncode == 1
    found = verdicts(tiny.folder)
    assert {name for name, verdict in found.items() if verdict == "error"} == {name for name in found if "fp25" in name}
    assert "NaN or infinite logits" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_one_clear_error(tiny, suite) -> None:
    done = suite("--robustgate-device", "cuda", "-k", "none and pgd")
    assert done.returncode == 1
    assert "device 'cuda': torch finds no CUDA device here; use 'auto' or 'cpu'" in done.stdout
    assert "Traceback" not in done.stdout
    assert verdicts(tiny.folder)["tiny-none-day-pgd"] == "error"


def test_a_mistake_in_the_configuration_is_one_clear_usage_error(tiny, suite) -> None:
    tiny.configure(('method = "pgd"', 'method = "pdg"'))
    done = suite()
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "attacks.pgd.method: unknown name 'pdg' in attacks (did you mean 'pgd'?)" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_without_a_configuration_the_suite_says_what_to_do(tiny, suite) -> None:
    (tiny.folder / "robustgate.toml").unlink()
    done = suite()
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "name one with --robustgate-config FILE" in done.stderr


def test_a_rule_that_selects_nothing_is_an_error(tiny, suite) -> None:
    tiny.configure(('compression = "fp*"', 'compression = "fb*"'))
    done = suite()
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "rule 'holds' selects no case: where.compression = 'fb*'" in done.stderr


def test_a_users_own_tests_have_the_fixtures(tiny, run) -> None:
    (tiny.folder / "test_own.py").write_text(
        """
import pytest

@pytest.mark.adversarial
def test_attacked(case, gate):
    assert gate.check(case).value > 0.3

def test_shifts(variant, shift):
    assert shift.phrase

def test_variants(variant, gate):
    assert gate.subject(variant).logits is not None

@pytest.mark.parametrize("case", [1, 2])
def test_not_ours(case):
    assert case in (1, 2)
"""
    )
    done = run("test_own.py")
    # 4 attacked cases, 12 shifts of variants, 2 variants, 2 of the test's own parameters.
    assert "20 passed" in done.stdout, done.stdout
    assert done.returncode == 0


def test_a_test_that_never_checks_its_case_is_not_green(tiny, run) -> None:
    (tiny.folder / "test_own.py").write_text("def test_nothing(case, gate):\n    pass\n")
    done = run("test_own.py")
    assert "12 passed" in done.stdout
    assert "red: 12 selected cases were not measured" in done.stdout
    assert done.returncode == 1
