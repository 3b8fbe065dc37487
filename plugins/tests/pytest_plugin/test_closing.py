"""The tables at the end of a run: what stands in them, in what order, and that they fit the terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustgate.core.records import (
    Case,
    CaseResult,
    Finding,
    LimitKind,
    PolicyRecord,
    Results,
    RunRecord,
    Shift,
    Variant,
    Verdict,
)
from robustgate.pytest_plugin.closing import broken, write_tables
from robustgate.reports.summary import failures, heading, slowest

NAMES = ("resnet18-int8-amazon", "resnet18-magnitude_pruning_and_distillation-amazon")
POLICY = PolicyRecord(
    name="edge",
    confidence=0.99,
    scope="test_set",
    early_stop=False,
    familywise="none",
    prove=None,
    on_undecided="fail",
    interval="wilson",
    findings={},
    verdict="fail",
)
RUN = RunRecord(
    id="1",
    started="2026-01-01",
    seconds=1,
    seed=0,
    device="cpu",
    processor="",
    policy="edge",
    confidence=0.99,
    policies=(POLICY,),
    versions={},
    config="robustgate.toml",
    config_sha256="",
    planned=1,
    selected=1,
    measured=1,
    complete=True,
    verdict="fail",
)


def case(name: str, compression: str = "int8") -> Case:
    return Case(
        variant=Variant(model="resnet18", source="amazon", compression=compression),
        shift=Shift(kind="corruption", name=name, corruption=name, severity=3),
    )


def finding(
    value: float | None, verdict: Verdict, kind: LimitKind = "min", limit: float = 0.55, **more: Any
) -> Finding:
    return Finding(
        **{
            "policy": "edge",
            "rule": "floor",
            "subject": "",
            "metric": "accuracy",
            "limit_kind": kind,
            "limit": limit,
            "value": value,
            "low": None if value is None else value - 0.04,
            "high": None if value is None else value + 0.04,
            "verdict": verdict,
            "message": f"{kind} 55.0 %; it is",
            **more,
        }
    )


def measured(name: str, *findings: Finding, seconds: float = 1.0, cached: bool = False, n: int = 500) -> CaseResult:
    row = CaseResult.of(case(name), verdict="pass")
    return replace(
        row, value=0.5, low=0.4, high=0.6, n=n, n_total=500, findings=findings, seconds=seconds, cached=cached
    )


def run_of(*cases: CaseResult, findings: tuple[Finding, ...] = (), **settings: Any) -> Results:
    return Results(
        run=replace(RUN, policies=(replace(POLICY, **settings),)), variants=(), cases=cases, findings=findings
    )


def written(results: Results, width: int = 80, *, verbosity: int = 0, colours: bool = False) -> str:
    out = io.StringIO()
    terminal: Any = SimpleNamespace(
        verbosity=verbosity, hasmarkup=colours, write=out.write, _tw=SimpleNamespace(fullwidth=width, _file=out)
    )
    write_tables(results, terminal)
    return out.getvalue()


def test_what_failed_stands_worst_first() -> None:
    results = run_of(
        measured("a", finding(0.56, "undecided")),
        measured("b", finding(0.45, "fail")),
        measured("c", finding(0.412, "fail"), finding(0.2, "pass", "max_drop", 0.3)),
        measured("d", finding(0.17, "fail", "max_drop", 0.05)),
        measured("e", finding(0.4, "waived", waiver="until 2030-01-01: ticket")),
        CaseResult.of(case("f"), verdict="error", message="no weights:\nthe file is missing"),
        CaseResult.of(case("g"), verdict="incomplete"),
        CaseResult.of(case("h"), verdict="incomplete", selected=False),
        findings=(
            finding(3.4e6, "fail", "max", 3e6, subject="resnet18-int8-amazon", message="max 3 MB; it is 3.4 MB"),
        ),
    )
    found = [(one.name.rpartition("-")[2], one.figure, one.limit, one.why) for one in failures(results)]
    assert found == [
        ("f", "—", "", "error: no weights: the file is missing"),
        ("c", "41.2 % [37.2, 45.2]", "min 55.0 %", "13.8 points too low"),
        ("d", "drop 17.0 [13.0, 21.0]", "max_drop 5.0 points", "12.0 points too much"),
        ("b", "45.0 % [41.0, 49.0]", "min 55.0 %", "10.0 points too low"),
        ("amazon", "3.4 MB", "max 3 MB", "too high"),
        ("g", "—", "", "not measured"),
        ("a", "56.0 % [52.0, 60.0]", "min 55.0 %", "undecided"),
    ]


def test_what_a_policy_lets_pass_did_not_fail() -> None:
    row = measured("a", finding(0.56, "undecided"))
    assert len(failures(run_of(row))) == 1
    assert failures(run_of(row, on_undecided="pass")) == []


def test_a_reason_is_short_and_tells_of_a_waiver_that_expired() -> None:
    missing = finding(None, "incomplete", message="max_drop 4.0 points from the baseline; there is none of this case")
    lapsed = finding(0.45, "fail", waiver="expired on 2025-01-01: ticket 1")
    loud = CaseResult.of(case("c"), verdict="error", message="word " * 100)
    found = {one.name[-1]: one for one in failures(run_of(measured("a", missing), measured("b", lapsed), loud))}
    assert (found["a"].figure, found["a"].why) == ("—", "there is none of this case")
    assert found["b"].why == "10.0 points too low; its waiver expired on 2025-01-01: ticket 1"
    assert len(found["c"].why) <= 60


def test_the_slowest_are_those_that_were_measured() -> None:
    rows = [measured(str(number), seconds=float(number), n=100 * number) for number in range(1, 9)]
    rows += [measured("kept", seconds=99.0, cached=True), measured("fast", seconds=0.04)]
    results = run_of(*rows)
    assert [row.seconds for row in slowest(results, 5)] == [8.0, 7.0, 6.0, 5.0, 4.0]
    assert "99" not in written(results)
    assert [line.split() for line in written(run_of(measured("x", seconds=4.0, n=350))).splitlines()[-1:]] == [
        ["resnet18-int8-amazon-x", "350", "4.0", "87.5"]
    ]


def test_ten_failures_are_listed_and_the_others_counted() -> None:
    rows = [measured(f"s{number:02}", finding(0.5 - number / 100, "fail")) for number in range(12)]
    text = written(run_of(*rows))
    assert sum(line.startswith("resnet18-int8-amazon") for line in text.split("What took")[0].splitlines()) == 10
    listed = text.split("What took")[0]
    assert "-s11" in listed
    assert "-s00" not in listed
    assert "-s01" not in listed
    assert "and 2 more: see the report" in text
    assert "more" not in written(run_of(*rows[:10]))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits(width: int) -> None:
    rows = [
        replace(measured("a", finding(0.412, "fail")), name=f"{name}-gaussian_noise_s3") for name in (*NAMES, "x" * 200)
    ]
    told = "the worst_corruption is 43.0 % [40.1, 46.0], on 500 to 1,567 images; fog at severity 5"
    overall = finding(0.43, "fail", subject=NAMES[0], rule="over all", message=f"min 55.0 %; {told}")
    text = written(run_of(*rows, findings=(overall,)), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    for name in (NAMES[0], "gaussian_noise_s3"):
        assert name in text
    squeezed = "".join(text.split())
    assert squeezed.count("x") >= 200
    assert "1567" in squeezed.replace(",", "") or width == 60


def test_at_80_columns_a_failed_case_takes_two_lines() -> None:
    name = "resnet8-int8-handwritten-gaussian_noise_s3"
    row = replace(measured("a", finding(0.412, "fail", rule="holds on new data", policy="edge")), name=name)
    lines = written(run_of(row)).split("What took")[0].strip().splitlines()
    assert lines[3:] == [
        "resnet8-int8-handwritten-  41.2 % [37.2, 45.2]  holds on new data   13.8 points",
        "gaussian_noise_s3          min 55.0 %           (edge)              too low",
    ]


def test_nothing_to_tell_is_nothing() -> None:
    fine = measured("a", finding(0.9, "pass"), cached=True)
    assert written(run_of(fine)) == ""
    assert written(run_of(measured("a", finding(0.4, "fail"))), verbosity=-2) == ""
    assert "What failed" in written(run_of(measured("a", finding(0.4, "fail"))), verbosity=-1)


def test_colours_are_where_pytest_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    results = run_of(measured("a", finding(0.4, "fail", rule="[red]floor[/red]")))
    assert "\x1b" not in written(results)
    assert "[red]floor[/red]" in written(results, 120)
    assert "\x1b[31m15.0" in written(results, colours=True)


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("a-b-c", 9, ["a-b-c"]),
        ("resnet8-int8-day-fog_s3", 17, ["resnet8-int8-day-", "fog_s3"]),
        ("abcdefghij-k", 4, ["abcd", "efgh", "ij-k"]),
    ],
)
def test_a_name_breaks_after_hyphens(name: str, width: int, lines: list[str]) -> None:
    assert broken(name, width).split("\n") == lines


def test_the_heading_names_each_policy_once() -> None:
    other = replace(POLICY, name="cloud", scope="population")
    run = replace(RUN, policy="edge, cloud", policies=(POLICY, other))
    results = replace(run_of(measured("a")), run=run)
    assert heading(results) == "policies edge on this test set, cloud on new data"
    same = replace(run, policies=(POLICY, replace(other, scope="test_set")))
    assert heading(replace(results, run=same)) == "policies edge, cloud, on this test set"
    assert heading(run_of(measured("a"))) == "policy edge, on this test set"


def test_a_run_ends_with_what_failed(pytester: pytest.Pytester, tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.configure(("min = 0.3", "min = 0.99"))
    monkeypatch.chdir(tiny.folder)
    done = pytester.runpytest_inprocess("--pyargs", "robustness_tests", "-q")
    text = str(done.stdout)
    section = text[text.index("What failed") : text.index("report: robustgate-report")]
    assert "floor (edge)" in section
    assert "min 99.0 %" in section
    assert "\x1b" not in text
    again = str(pytester.runpytest_inprocess("--pyargs", "robustness_tests", "-q", "-q").stdout)
    assert "What failed" not in again
    assert Path("robustgate-report/results.json").is_file()
