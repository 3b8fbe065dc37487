"""`robustgate trend`: what it draws of a history, and that every real run adds itself to it, once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from robustgate.cli import app
from robustgate.cli.trend import sparkline
from robustgate.config import load
from robustgate.core.errors import ResultsError
from robustgate.core.records import Case, CaseResult, Finding, Results, RunRecord, Shift, Variant
from robustgate.reports.history import append, prune, read

FILTERS = torch.tensor([1.0, 1.0, 1.0, 0.1])  # those of the tiny project
FILE = Path("history.sqlite")


def trend(*words: str) -> Result:
    return CliRunner().invoke(app, ["trend", *words], env={"COLUMNS": "100"})


def row(compression: str, correct: int, **given: Any) -> CaseResult:
    case = Case(
        variant=Variant(model="tiny", source="day", compression=compression), shift=Shift(kind="clean", name="clean")
    )
    figures = {"value": correct / 200, "low": correct / 200 - 0.05, "high": correct / 200 + 0.05, "correct": correct}
    return replace(CaseResult.of(case, verdict="pass"), **(figures | {"n": 200, "n_total": 200} | given))


def size(size_bytes: int) -> Finding:
    return Finding(
        policy="edge",
        rule="fits",
        subject="tiny-fp25-day",
        metric="size_bytes",
        limit_kind="max",
        limit=9000,
        value=size_bytes,
        low=size_bytes,
        high=size_bytes,
        verdict="pass" if size_bytes <= 9000 else "fail",
        message="small",
    )


def add(day: int, *rows: CaseResult, findings: tuple[Finding, ...] = (), **given: Any) -> None:
    """Add the run of a day in January to the history."""
    run = RunRecord(
        id=f"202601{day:02}T000000",
        started=f"2026-01-{day:02}T00:00:00+00:00",
        seconds=1.0,
        seed=0,
        device="cpu",
        processor="x86_64",
        policy="edge",
        confidence=0.99,
        policies=(),
        versions={"robustgate": "0.2"},
        config="robustgate.toml",
        config_sha256="c3" * 32,
        planned=len(rows),
        selected=len(rows),
        measured=len(rows),
        complete=True,
        verdict="pass",
    )
    append(Results(run=replace(run, **given), variants=(), cases=rows, findings=findings), FILE)


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four runs: one case falls, one rises, one stays; the second run did not measure the first case."""
    monkeypatch.chdir(tmp_path)
    add(1, row("fp25", 180), row("int8", 100), row("none", 190), findings=(size(8000),))
    add(2, row("int8", 110), row("none", 190), findings=(size(8000),))
    add(3, row("fp25", 170, data="a1" * 32), row("int8", 130), row("none", 190), findings=(size(8000),), seed=3)
    add(
        4,
        *(row("fp25", 150, verdict="fail", n_total=400, data="b2" * 32), row("int8", 140), row("none", 190)),
        findings=(size(9500),),
        seed=3,
        config_sha256="d4" * 32,
    )


def test_bars_reach_from_the_lowest_figure_to_the_highest() -> None:
    assert sparkline([0.2, 0.4, None, 0.9, 0.5]) == "▁▃·█▄"  # of seven steps: 0, 2, 7, 3
    assert sparkline([0.0, 1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1.0]) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.7, 0.7]) == "▅▅"


def test_all_that_changed_is_drawn_and_what_fell_stands_first(releases) -> None:
    done = trend("--history", str(FILE))
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "4 runs, 2026-01-01 to 2026-01-04"
    assert [line for line in lines if "tiny-" in line] == [
        "clean/tiny-fp25-day █·▆▁ 90.0 → 75.0 -10.0 fail",
        "clean/tiny-int8-day ▁▃▆█ 50.0 → 70.0 +5.0 pass",
        "tiny-fp25-day: fits (edge) ▁▁▁█ 8 kB → 9.5 kB +1.5 kB fail",
    ]
    assert lines[-1] == "1 other: unchanged in these runs, or not asked for"


def test_one_case_is_told_run_by_run(releases) -> None:
    done = trend("clean/tiny-fp25-day", "--history", str(FILE))
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[:2] == ["clean/tiny-fp25-day", "█·▆▁ accuracy, 75.0 to 90.0"]
    assert [line for line in lines if "2026-" in line] == [
        "1 2026-01-01 00:00 90.0 [85.0, 95.0] 200 pass",
        "3 2026-01-03 00:00 85.0 [80.0, 90.0] 200 pass data, seed",
        "4 2026-01-04 00:00 75.0 [70.0, 80.0] 200 of 400 fail data, configuration",
    ]
    assert lines[-1] == "1 run did not measure it"


def test_cases_are_named_by_patterns_and_runs_counted_from_the_last(releases) -> None:
    def found(*words: str) -> dict[str, Any]:
        return json.loads(trend(*words, "--json", "--history", str(FILE)).stdout)

    content = found("*fp25*", "*none*", "--last", "2")
    assert content["schema"] == "robustgate/trend/1"
    assert [run["number"] for run in content["runs"]] == [3, 4]
    points = {
        (one["kind"], one["name"]): [(point["run"], point["value"]) for point in one["points"]]
        for one in content["series"]
    }
    assert points == {
        ("clean", "tiny-fp25-day"): [(3, 0.85), (4, 0.75)],
        ("clean", "tiny-none-day"): [(3, 0.95), (4, 0.95)],
        ("variant", "tiny-fp25-day"): [(3, 8000.0), (4, 9500.0)],
    }
    # A case has its variant's name, as has a rule on it, with its own behind.
    assert [one["kind"] for one in found("tiny-fp25-day")["series"]] == ["clean", "variant"]
    assert [one["rule"] for one in found("tiny-fp25-day: *")["series"]] == ["fits"]


def test_nothing_changed(releases) -> None:
    done = trend("--last", "1", "--history", str(FILE))
    assert done.stdout.splitlines() == ["1 run, 2026-01-04", "4 others: unchanged in these runs, or not asked for"]


def test_what_cannot_be_drawn_is_one_message(tiny) -> None:
    def refused(*words: str) -> str:
        done = trend(*words)
        assert (done.exit_code, done.stdout, isinstance(done.exception, SystemExit)) == (4, "", True)
        return done.stderr

    assert refused().startswith(f"robustgate: no history at {tiny.folder / 'cache' / FILE}: every run adds itself")
    add(1, row("fp25", 180))
    wrong = refused("clean/tiny-fp52-day", "--history", str(FILE))
    assert wrong == ("robustgate: no case 'clean/tiny-fp52-day' in these runs (did you mean 'clean/tiny-fp25-day'?)\n")
    FILE.write_text("<<<<<<< HEAD\n" * 99)
    assert "history.sqlite: cannot be used as a history: file is not a database" in refused("--history", str(FILE))
    tiny.configure(("[gate]", "[gate]\nhistory = false"))
    assert "gate.history is false: no run is kept" in refused()
    (tiny.folder / "robustgate.toml").unlink()
    assert "no robustgate.toml here, and no [tool.robustgate] in pyproject.toml; name one: --config" in refused()
    assert refused().endswith("--config, or the file: --history\n")


def test_only_the_last_runs_are_kept_where_that_is_asked_for(releases) -> None:
    before = read(FILE, 100)
    assert len(before.runs) > 2
    done = trend("--history", str(FILE), "--keep", "2", "--json")
    assert done.exit_code == 0
    assert done.stderr == f"{len(before.runs) - 2} runs removed from {FILE}\n".replace("1 runs", "1 run")
    after = read(FILE, 100)
    assert after.runs == before.runs[-2:]
    kept = {run.number for run in after.runs}
    for one in before.series:
        points = tuple(point for point in one.points if point.run in kept)
        assert [two.points for two in after.series if two.label == one.label] == ([points] if points else [])
    assert json.loads(done.stdout)["runs"][0]["number"] == before.runs[-2].number
    # What is added next is the newest.
    add(28, row("fp25", 100))
    assert read(FILE, 100).runs[-1].number > before.runs[-1].number
    assert trend("--history", str(FILE), "--keep", "99").stderr == f"0 runs removed from {FILE}\n"


def test_the_room_of_what_is_removed_is_given_back(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for day in range(1, 21):
        add(day, *(row(f"c{number}", day) for number in range(200)))
    size = FILE.stat().st_size
    assert prune(FILE, 1) == 19
    assert FILE.stat().st_size < size / 4
    with pytest.raises(ResultsError, match="nothing to remove"):
        prune(tmp_path / "none.sqlite", 1)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", "cache/history.sqlite"),
        ("history = true", "cache/history.sqlite"),
        ("history = false", None),
        ('history = "kept/runs.sqlite"', "kept/runs.sqlite"),
    ],
)
def test_where_the_history_lies(tiny, key: str, expected: str | None) -> None:
    tiny.configure(("[gate]", f"[gate]\n{key}"))
    file = load(tiny.folder / "robustgate.toml").gate.history_file
    assert file == (None if expected is None else tiny.folder / expected)


def test_two_real_runs_are_two_points_whoever_measures(tiny) -> None:
    """The second model's filters are weaker: it calls an image bright only above 60 %, not above 50 %."""
    for filters, words in ((FILTERS, ["-n", "2"]), (FILTERS * 0.5 / 0.6, [])):
        tiny.write_weights(filters)
        assert suite("-k", "clean", *words).returncode == 0
    found = read(tiny.folder / "cache" / FILE, 9)
    assert [(run.number, run.planned, run.measured) for run in found.runs] == [(1, 12, 2), (2, 12, 2)]
    points = {one.label: [point.value for point in one.points] for one in found.series}
    assert points.keys() == {"clean/tiny-fp25-day", "clean/tiny-none-day"}
    right = [tiny.correct(tiny.day, threshold) / len(tiny.day) for threshold in (127.5, 255 * 0.6)]
    assert points["clean/tiny-none-day"] == right
    (line,) = [line for line in trend().stdout.splitlines() if "clean/tiny-none-day" in line]
    assert f"█▁   {100 * right[0]:.1f} → {100 * right[1]:.1f}" in line


def test_a_run_whose_history_is_damaged_is_green_and_says_so(tiny) -> None:
    tiny.configure(("[gate]", '[gate]\nhistory = "runs.sqlite"'))
    Path("runs.sqlite").write_text("<<<<<<< HEAD\n" * 99)
    done = suite("-k", "clean")
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if "the history" in line]
    assert line == (
        f"the run was not added to the history: {tiny.folder / 'runs.sqlite'}: cannot be used as a history: "
        "file is not a database"
    )
    assert json.loads(Path("robustgate-report/results.json").read_text())["run"]["measured"] == 2
    assert not (tiny.folder / "cache" / FILE).exists()


def suite(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
