"""`robustgate compare A B` against known answers: what it calls worse, at which confidence, and what it will not."""

from __future__ import annotations

import json
from dataclasses import replace
from math import erf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from robustgate.cli import app
from robustgate.core.records import Case, CaseResult, Finding, Results, RunRecord, Shift, Timing, Variant, VariantRecord
from robustgate.engine.packed import pack
from robustgate.reports.results_json import write
from robustgate.statistics.paired import PairedCounts, drop_interval
from robustgate.statistics.proportion import clopper_pearson

N = 144
CLEAN = Shift(kind="clean", name="clean")
PGD = Shift(kind="adversarial", name="pgd", attack="pgd", norm="linf", eps=0.02, detail="linf, eps 0.02, 4 steps")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def compare(*words: str) -> Result:
    return CliRunner().invoke(app, ["compare", "a.json", "b.json", *words], env={"COLUMNS": "120"})


def told(*words: str) -> dict[str, Any]:
    """All that a comparison says, and its status."""
    done = compare("--json", "c.json", *words)
    return json.loads(Path("c.json").read_text()) | {"status": done.exit_code}


def changes(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["name"].split("-")[1], one["change"]) for one in found["cases"]]


def row(compression: str, wrong: int, shift: Shift = CLEAN, n: int = N, **given: Any) -> CaseResult:
    """A case of `n` samples, the first `wrong` of which are wrong."""
    case = Case(variant=Variant(model="tiny", source="day", compression=compression), shift=shift)
    right = np.arange(n) >= wrong
    figures = {"value": float(right.mean()), "n": n, "n_total": n, "correct": n - wrong, "data": "a1" * 32}
    return replace(CaseResult.of(case, verdict="pass"), **(figures | {"right": pack(right)} | given))


def unmeasured(compression: str, **given: Any) -> CaseResult:
    case = Case(variant=Variant(model="tiny", source="day", compression=compression), shift=CLEAN)
    return CaseResult.of(case, **({"verdict": "incomplete", "message": "not selected", "selected": False} | given))


def variant(size: int, ratio: tuple[float, float, float] | None) -> VariantRecord:
    timings = ()
    if ratio:
        low, middle, high = ratio
        figures = {"ratio": middle, "ratio_low": low, "ratio_high": high, "low_ms": 1.0, "high_ms": 1.0}
        timings = (Timing(batch=1, rounds=300, median_ms=1.0, reference_ms=1.0, **figures),)
    return VariantRecord(
        name="tiny-fp25-day",
        model="tiny",
        source="day",
        compression="fp25",
        format="torch",
        artifact_sha256="0f" * 32,
        parameters=8,
        nonzero_parameters=8,
        size_bytes=size,
        deflated_bytes=size,
        latency_ms=1.0 if ratio else None,
        timings=timings,
        seconds_to_build=1.0,
    )


def report(file: str, *rows: CaseResult, run: dict[str, Any] | None = None, **more: Any) -> None:
    record = RunRecord(
        id=f"run-{file[0]}",
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        seed=0,
        device="cpu",
        processor="x86_64",
        policy="edge",
        confidence=0.99,
        policies=(),
        versions={"python": "3.12", "robustgate": "0.2", "torch": "2.9"},
        config="robustgate.toml",
        config_sha256="c3" * 32,
        planned=len(rows),
        selected=len(rows),
        measured=sum(one.value is not None for one in rows),
        complete=True,
        verdict="pass",
    )
    parts = {"variants": (), "cases": rows, "findings": ()} | more
    write(Results(run=replace(record, **(run or {})), **parts), Path(file))


def test_identical_runs_differ_in_nothing() -> None:
    for file in ("a.json", "b.json"):
        report(file, row("none", 0), row("fp25", 10), row("fp25", 40, PGD), variants=(variant(100, (0.6, 0.7, 0.8)),))
    done = compare("--fail-on-worse")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:4] == [
        "nothing is worse or better, as far as the samples tell",
        "A: run run-a of 2026-01-01, policy edge, seed 0: pass",
        "B: run run-b of 2026-01-01, policy edge, seed 0: pass",
        "3 cases compared: 3 the same, sample by sample",
    ]
    found = told()
    assert (found["counted"], {one["change"] for one in found["cases"]}) == (0, {"same"})
    assert found["verdicts"] == []
    assert [one["speed"] for one in found["variants"]] == ["unclear"]


def test_five_planted_errors_are_found_paired_with_their_interval() -> None:
    report("a.json", row("fp25", 10))
    report("b.json", row("fp25", 15))
    (case,) = told()["cases"]
    interval = drop_interval(PairedCounts(n=N, lost=5, gained=0), 0.99, corrected=True)
    assert case["drop"] == pytest.approx(
        {"n": N, "lost": 5, "gained": 0, "value": 5 / N, "low": interval.low, "high": interval.high}
    )
    # McNemar's test, corrected for continuity: (5 - 1) / √5 standard deviations, so 92.6 % sure, and no more.
    sure = erf((5 - 1) / sqrt(5) / sqrt(2))
    assert 0.926 < sure < 0.927
    assert changes(told("--confidence", "0.926", "--fail-on-worse")) == [("fp25", "worse")]
    assert compare("--confidence", "0.926", "--fail-on-worse").exit_code == 1
    assert compare("--confidence", "0.926").exit_code == 0
    assert changes(told("--confidence", "0.927")) == [("fp25", "unclear")]
    assert compare("--confidence", "0.927", "--fail-on-worse").exit_code == 0
    report("b.json", row("fp25", 5))
    assert changes(told("--confidence", "0.926", "--fail-on-worse")) == [("fp25", "better")]
    assert compare("--confidence", "0.926", "--fail-on-worse").exit_code == 0


@pytest.mark.parametrize(
    ("row_changes", "run_changes", "reason"),
    [
        ({"data": "b2" * 32}, {}, "on other data"),
        ({}, {"seed": 3}, "in the order of another seed"),
        ({"data": None, "right": None}, {}, "a run is of an older robustgate, which did not tell"),
    ],
)
def test_what_cannot_be_paired_is_judged_by_two_intervals(
    row_changes: dict[str, Any], run_changes: dict[str, Any], reason: str
) -> None:
    report("a.json", row("fp25", 10))
    report("b.json", row("fp25", 15, **row_changes), run=run_changes)
    found = told("--confidence", "0.92")
    (case,) = found["cases"]
    # Paired these five would do, as above.
    assert (case["change"], case["drop"], found["counted"]) == ("unclear", None, 1)
    assert case["reason"].startswith(reason)
    for side, correct in (("before", 134), ("after", 129)):
        exact = clopper_pearson(correct, N, 0.92)
        assert (case[side]["low"], case[side]["high"]) == (pytest.approx(exact.low), pytest.approx(exact.high))
    report("b.json", row("fp25", 60, **row_changes), run=run_changes)
    assert changes(told("--fail-on-worse")) == [("fp25", "worse")]
    done = compare("--fail-on-worse")
    assert done.exit_code == 1
    assert "Worse; unpaired, by two intervals" in done.stdout


def test_many_comparisons_share_one_error() -> None:
    """So many lost and none gained have the p-values 0.0015, 0.0044 and 0.0077."""
    lost = {"twelve": 12, "ten": 10, "nine": 9}
    report("a.json", *(row(name, 0) for name in lost))
    report("b.json", *(row(name, count) for name, count in lost.items()))
    # Below 0.01 / 3, 0.01 / 2 and 0.01: each that is decided leaves its share to the others.
    found = told()
    assert changes(found) == [("twelve", "worse"), ("ten", "worse"), ("nine", "worse")]
    assert (found["counted"], found["each"]) == (3, pytest.approx(0.99))
    # With a fourth that chance explains, only the first is below 0.01 / 4, and the second not below 0.01 / 3.
    report("a.json", *(row(name, 0) for name in lost), row("three", 0))
    report("b.json", *(row(name, count) for name, count in lost.items()), row("three", 3))
    found = told()
    assert changes(found) == [("twelve", "worse"), ("ten", "unclear"), ("nine", "unclear"), ("three", "unclear")]
    assert (found["counted"], found["each"]) == (4, pytest.approx(1 - 0.01 / 3))
    # Nothing could call a case worse of which no sample came out otherwise: it takes no share.
    same = [row(f"same{place}", 7) for place in range(50)]
    report("a.json", *(row(name, 0) for name in lost), *same)
    report("b.json", *(row(name, count) for name, count in lost.items()), *same)
    assert (told()["counted"], changes(told())[:4][-1]) == (3, ("same0", "same"))


def test_the_worst_stands_first_and_what_is_gone_or_new_says_why() -> None:
    stronger = replace(PGD, detail="linf, eps 0.04, 4 steps")
    report(
        "a.json",
        *(row("worse", 0), row("worst", 0), row("better", 60), row("unclear", 10), row("same", 3)),
        *(row("gone", 0), row("left", 0), row("other", 0, PGD), unmeasured("new")),
    )
    report(
        "b.json",
        *(row("worse", 30), row("worst", 60), row("better", 0), row("unclear", 11), row("same", 3)),
        *(unmeasured("left"), row("other", 99, stronger), row("new", 0), row("newest", 0)),
    )
    found = told()
    assert changes(found) == [
        *(("worst", "worse"), ("worse", "worse"), ("gone", "gone"), ("left", "gone"), ("other", "incomparable")),
        *(("unclear", "unclear"), ("better", "better"), ("new", "new"), ("newest", "new"), ("same", "same")),
    ]
    reasons = {one["name"].split("-")[1]: one["reason"] for one in found["cases"]}
    assert reasons["gone"] == "no longer planned"
    assert reasons["left"] == "not measured: not selected"
    assert reasons["other"] == "under another shift: linf, eps 0.02, 4 steps → linf, eps 0.04, 4 steps"
    assert reasons["new"] == "not measured before: not selected"
    assert reasons["newest"] == "not planned before"
    lines = compare().stdout.splitlines()
    assert lines[0] == "2 worse, 1 better"
    assert lines[3] == (
        "5 cases compared: 2 worse, 1 better, 1 within chance, 1 the same, sample by sample, 2 gone, 1 not comparable, "
        "2 new"
    )
    text = "\n".join(lines)
    places = [text.index(f"\n{title}") for title in ("Worse", "Gone", "Not comparable", "Better", "Within", "New")]
    assert places == sorted(places)


def test_a_case_that_stopped_early_is_compared_on_what_both_measured() -> None:
    """Of the first 50 samples 20 are wrong before and 26 after; of all 144 before, 20 are."""
    report("a.json", row("fp25", 20))
    report("b.json", row("fp25", 26, n=50, n_total=N))
    (case,) = told()["cases"]
    assert (case["before"]["value"], case["after"]["value"]) == (30 / 50, 24 / 50)
    assert (case["drop"]["n"], case["drop"]["lost"], case["drop"]["gained"]) == (50, 6, 0)
    assert "1 case stopped early: compared on the first samples, which both measured" in compare().stdout


def test_verdicts_that_changed_are_told_the_worst_first() -> None:
    rule = Finding(
        policy="edge",
        rule="fits",
        subject="tiny-fp25-day",
        metric="size_bytes",
        limit_kind="max",
        limit=9.0,
        value=8.0,
        low=8.0,
        high=8.0,
        verdict="pass",
        message="small",
    )
    masking = Shift(kind="masking", name="linf", detail="linf")
    checked = replace(row("fp25", 4, masking), data=None, right=None)
    report("a.json", replace(row("none", 3), verdict="fail"), row("fp25", 3), row("int8", 3), checked, findings=(rule,))
    report(
        "b.json",
        *(row("none", 3), replace(row("fp25", 3), verdict="undecided"), unmeasured("int8")),
        replace(checked, verdict="fail"),
        findings=(replace(rule, verdict="waived"),),
    )
    found = told()
    assert [tuple(one.values()) for one in found["verdicts"]] == [
        ("masking/tiny-fp25-day-linf", "pass", "fail"),
        ("clean/tiny-fp25-day", "pass", "undecided"),
        ("tiny-fp25-day: rule 'fits' of policy edge", "pass", "waived"),
        ("clean/tiny-none-day", "fail", "pass"),
    ]
    # A check for masking asks each variant about samples of its own: its figures are not compared.
    assert ("fp25", "same") in changes(found)
    assert len(found["cases"]) == 3


def test_sizes_and_latencies() -> None:
    report("a.json", row("fp25", 3), variants=(variant(1000, (0.60, 0.62, 0.64)),))
    report("b.json", row("fp25", 3), variants=(variant(1500, (0.70, 0.72, 0.74)),))
    done = compare("--fail-on-worse")
    assert done.exit_code == 1
    assert done.stdout.startswith("1 slower\n")
    assert [" ".join(line.split()) for line in done.stdout.splitlines() if "tiny-fp25-day" in line] == [
        "tiny-fp25-day 1 kB → 1.5 kB +50.0 %",
        "tiny-fp25-day 0.62 [0.6, 0.64] → 0.72 [0.7, 0.74] slower",
    ]
    report("b.json", row("fp25", 3), variants=(variant(1500, (0.63, 0.72, 0.74)),))
    assert (told()["variants"][0]["speed"], compare("--fail-on-worse").exit_code) == ("unclear", 0)
    # Times of another processor tell nothing of the release.
    report("b.json", row("fp25", 3), variants=(variant(1500, (0.7, 0.72, 0.74)),), run={"processor": "arm64"})
    assert (told()["variants"][0]["speed"], compare("--fail-on-worse").exit_code) == (None, 0)


def test_markdown_folds_what_nobody_must_look_at_and_escapes_what_comes_from_outside() -> None:
    name = "<img src=x>|*"
    report("a.json", row(name, 0), *(row(f"c{place:02}", 0) for place in range(30)))
    report("b.json", row(name, 60), *(row(f"c{place:02}", 1) for place in range(30)), run={"config_sha256": "d4" * 32})
    done = compare("--markdown")
    assert done.exit_code == 0
    parts = done.stdout.removesuffix("\n").split("\n\n")
    assert parts[0] == "## robustgate: 1 worse"
    assert "the two configurations differ: a verdict may have changed because its rule did" in parts
    worse = parts[parts.index("### Worse (1)") + 1].splitlines()
    assert worse[0] == "| case | accuracy, % | drop, points | lost, gained, of |"
    assert worse[2].startswith("| clean/tiny-&lt;img src=x&gt;\\|\\*-day | 100.0 → 58.3 | 41.7 ")
    assert worse[2].endswith(" | 60, 0, 144 |")
    place = parts.index("<details><summary>Within chance (30)</summary>")
    assert len(parts[place + 1].splitlines()) == 2 + 20
    assert parts[place + 2 : place + 4] == ["and 10 more: --json has all of them", "</details>"]


def test_nothing_in_common_is_no_pass() -> None:
    report("a.json", row("fp25", 0))
    report("b.json", row("int8", 0))
    done = compare()
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "nothing could be compared")
    assert compare("--fail-on-worse").exit_code == 1


def test_what_cannot_be_read_is_one_message() -> None:
    report("a.json", row("fp25", 0))
    done = compare()
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr.startswith("robustgate: b.json: expected a results.json, cannot read it")
    report("b.json", row("fp25", 0, right="eJwDAAAAAAE="))
    done = compare()
    assert (done.exit_code, isinstance(done.exception, SystemExit)) == (4, True)
    assert "cases: clean/tiny-fp25-day: expected the outcomes of 144 samples" in done.stderr


@pytest.mark.parametrize("command", ["compare", "trend"])
def test_help_fits_one_screen_and_shows_an_example(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80"})
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any(line.strip().startswith(f"Example: robustgate {command} ") for line in lines)
