"""`robustgate baseline accept` as a person types it: what it keeps, what it tells, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from robustgate.cli import app
from robustgate.core.records import Case, CaseResult, Finding, PolicyRecord, Results, RunRecord, Shift, Variant
from robustgate.engine.packed import pack
from robustgate.reports.results_json import write

REPORT = Path("robustgate-report/results.json")
BASELINE = Path("robustgate-baseline.json")
PGD = Shift(kind="adversarial", name="pgd", attack="pgd", norm="linf", eps=0.02, detail="linf, eps 0.02, 4 steps")


def accept(*words: str, results: Path = REPORT) -> Result:
    return CliRunner().invoke(app, ["baseline", "accept", str(results), *words])


def row(compression: str, wrong: int, shift: Shift | None = None, **changes: Any) -> CaseResult:
    """A case of 144 samples, the first `wrong` of which are wrong."""
    case = Case(
        variant=Variant(model="tiny", source="day", compression=compression),
        shift=shift or Shift(kind="clean", name="clean"),
    )
    right = np.arange(144) >= wrong
    given = {"value": float(right.mean()), "n": 144, "n_total": 144, "correct": 144 - wrong, "data": "a1" * 32}
    return replace(CaseResult.of(case, verdict="pass"), **(given | {"right": pack(right)} | changes))


def finding(**changes: Any) -> Finding:
    figures = {"policy": "edge", "rule": "floor", "subject": "tiny-fp25-day", "metric": "accuracy", "message": "low"}
    figures |= {"limit_kind": "min", "limit": 0.99, "value": 0.9, "low": 0.9, "high": 0.9, "verdict": "fail"}
    return Finding(**(figures | changes))


def policy(on_undecided: Any = "fail") -> PolicyRecord:
    return PolicyRecord(
        name="edge",
        confidence=0.99,
        scope="test_set",
        early_stop=False,
        familywise="holm",
        prove=None,
        on_undecided=on_undecided,
        interval="clopper_pearson",
        findings={},
        verdict="pass",
    )


def report(
    *rows: CaseResult, run_id: str = "20260101T000000", policies: tuple[PolicyRecord, ...] = (), **more: Any
) -> None:
    """Write the results of a run."""
    run = RunRecord(
        id=run_id,
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        seed=0,
        device="cpu",
        processor="x86_64",
        policy="edge",
        confidence=0.99,
        policies=policies or (policy(),),
        versions={"python": "3.12", "robustgate": "0.2", "torch": "2.9"},
        config="robustgate.toml",
        config_sha256="c3" * 32,
        planned=len(rows),
        selected=len(rows),
        measured=sum(one.value is not None for one in rows),
        complete=all(one.value is not None for one in rows),
        verdict="pass",
    )
    write(Results(**({"run": run, "variants": (), "cases": rows, "findings": ()} | more)), REPORT)


def unmeasured(compression: str) -> CaseResult:
    variant = Variant(model="tiny", source="day", compression=compression)
    return CaseResult.of(Case(variant=variant, shift=PGD), verdict="incomplete", message="not selected", selected=False)


def test_a_first_baseline_is_written_and_told(tiny) -> None:
    report(row("none", 0), row("fp25", 10), row("fp25", 40, PGD))
    done = accept()
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{BASELINE}: 3 cases of run 20260101T000000",
        "  there was no baseline before",
    ]
    assert {name: case["correct"] for name, case in json.loads(BASELINE.read_text())["cases"].items()} == {
        "adversarial/tiny-fp25-day-pgd": 104,
        "clean/tiny-fp25-day": 134,
        "clean/tiny-none-day": 144,
    }


def test_accepting_twice_writes_the_same_bytes_and_says_so(tiny) -> None:
    report(row("none", 0), row("fp25", 10))
    accept()
    first = BASELINE.read_bytes()
    done = accept()
    assert BASELINE.read_bytes() == first
    assert done.stdout.splitlines()[1:] == [
        "  against run 20260101T000000, paired, intervals at 99 %:",
        "  cases that are the same, sample by sample: 2",
    ]


def test_what_changed_is_told_case_by_case(tiny) -> None:
    report(row("none", 0), row("fp25", 10), row("int8", 40, PGD), row("old", 0), row("moved", 0))
    accept()
    changed = row("none", 12), row("fp25", 11), row("int8", 0, PGD), row("new", 0), row("moved", 0)
    report(*changed[:-1], replace(changed[-1], data="b2" * 32), run_id="20260201T000000")
    lines = accept().stdout.splitlines()
    assert lines[0].endswith(": 5 cases of run 20260201T000000")
    assert lines[2].startswith("  worse: clean/tiny-none-day: 100.0 → 91.7 %, a drop of 8.3 [")
    assert lines[3].startswith("  better: adversarial/tiny-int8-day-pgd: 72.2 → 100.0 %, a drop of -27.8 [")
    assert [*lines[1:2], *lines[4:]] == [
        "  against run 20260101T000000, paired, intervals at 99 %:",
        "  new: clean/tiny-new-day",
        "  gone: clean/tiny-old-day",
        "  incomparable: clean/tiny-moved-day",
        "  cases that differ by no more than chance: 1",
    ]


def test_cases_that_stopped_early_are_told(tiny) -> None:
    report(row("fp25", 10), row("int8", 10, n_total=2000))
    assert accept().stdout.splitlines()[2:] == [
        "  cases that stopped early: 1; a rule compares with their first samples only (early_stop)"
    ]


def test_a_baseline_that_cannot_be_read_is_replaced_and_told(tiny) -> None:
    BASELINE.write_text("<<<<<<< HEAD\n")
    report(row("fp25", 10))
    done = accept()
    assert done.exit_code == 0
    assert "the baseline before cannot be compared with: " in done.stdout
    assert json.loads(BASELINE.read_text())["schema"] == "robustgate/baseline/1"


def test_the_file_is_the_configured_one_or_the_one_that_is_named(tiny) -> None:
    tiny.configure(("[gate]", '[gate]\nbaseline = "standards/edge.json"'))
    report(row("fp25", 10))
    assert accept().exit_code == 0
    assert accept("--output", "other.json").exit_code == 0
    assert Path("other.json").read_bytes() == Path("standards/edge.json").read_bytes()
    assert not BASELINE.exists()


def test_without_a_configuration_the_file_must_be_named(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    report(row("fp25", 10))
    (tiny.folder / "elsewhere").mkdir()
    monkeypatch.chdir(tiny.folder / "elsewhere")
    results = tiny.folder / REPORT
    done = accept(results=results)
    assert (done.exit_code, done.stdout) == (4, "")
    assert "name one: --config, or the file to write: --output" in done.stderr
    assert accept("--output", "here.json", results=results).exit_code == 0
    assert Path("here.json").exists()
    assert accept("--config", str(tiny.folder / "robustgate.toml"), results=results).exit_code == 0
    assert (tiny.folder / BASELINE).exists()


# What is refused.


def test_an_incomplete_run_is_refused_and_what_is_missing_named(tiny) -> None:
    report(row("fp25", 10), unmeasured("fp25"), unmeasured("int8"))
    done = accept()
    assert (done.exit_code, done.stdout, done.stderr) == (
        1,
        "",
        f"robustgate: {REPORT}: 2 of 3 planned cases were not measured: adversarial/tiny-fp25-day-pgd, "
        "adversarial/tiny-int8-day-pgd; --partial accepts the others\n",
    )
    assert not BASELINE.exists()
    assert accept("--partial").exit_code == 0
    assert list(json.loads(BASELINE.read_text())["cases"]) == ["clean/tiny-fp25-day"]


def test_a_red_run_is_refused_and_what_is_red_named(tiny) -> None:
    size = finding(rule="fits", metric="size", value=9.0)
    report(row("none", 0), row("fp25", 10, findings=(finding(),)), findings=(size,))
    done = accept()
    assert (done.exit_code, done.stdout, done.stderr) == (
        1,
        "",
        f"robustgate: {REPORT}: the run is red: a rule on tiny-fp25-day, clean/tiny-fp25-day; "
        "--allow-red accepts it all the same\n",
    )
    assert not BASELINE.exists()
    assert accept("--allow-red").exit_code == 0
    assert BASELINE.exists()


@pytest.mark.parametrize(
    ("changes", "on_undecided", "status"),
    [
        ({"verdict": "waived"}, "fail", 0),
        ({"verdict": "undecided"}, "fail", 1),
        ({"verdict": "undecided"}, "pass", 0),
        # Only a baseline was missing: or a first one could not be accepted.
        ({"verdict": "incomplete", "against": "baseline", "value": None, "low": None, "high": None}, "fail", 0),
        ({"verdict": "fail", "against": "baseline"}, "fail", 1),
        ({"verdict": "incomplete", "value": None, "low": None, "high": None}, "fail", 1),
    ],
)
def test_what_counts_as_red(tiny, changes: dict[str, Any], on_undecided: str, status: int) -> None:
    report(row("fp25", 10, findings=(finding(**changes),)), policies=(policy(on_undecided),))
    assert accept().exit_code == status


def test_a_case_that_broke_is_red_and_not_measured(tiny) -> None:
    report(row("fp25", 10), replace(unmeasured("fp25"), verdict="error", selected=True))
    assert "1 of 2 planned cases were not measured: adversarial/tiny-fp25-day-pgd" in accept().stderr
    assert "the run is red: adversarial/tiny-fp25-day-pgd" in accept("--partial").stderr


def test_a_run_of_nothing_is_refused_whatever_is_allowed(tiny) -> None:
    report(unmeasured("fp25"))
    done = accept("--partial", "--allow-red")
    assert (done.exit_code, done.stderr) == (1, f"robustgate: {REPORT}: no case was measured: nothing to accept\n")


def test_what_is_no_results_file_is_refused(tiny) -> None:
    done = accept(results=Path("absent.json"))
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr.startswith("robustgate: absent.json: expected a results.json, cannot read it")
    report(row("fp25", 10), replace(row("none", 0), right="eJwDAAAAAAE="))
    done = accept()
    assert (done.exit_code, isinstance(done.exception, SystemExit)) == (4, True)
    assert f"robustgate: {REPORT}: cases: clean/tiny-none-day: expected the outcomes of 144 samples" in done.stderr
    REPORT.write_text('{"schema": "robustgate/results/2"}')
    assert "schema: expected 'robustgate/results/1'" in accept().stderr


def test_help() -> None:
    for words in (["baseline"], ["baseline", "accept"]):
        done = CliRunner().invoke(app, [*words, "--help"])
        assert done.exit_code == 0
        assert "Usage: " in done.stdout
    assert "Example: robustgate baseline accept robustgate-report/results.json" in done.stdout
