"""The history: what a run leaves there, all of it or nothing, and what is said where it cannot."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from robustgate.core.errors import ResultsError
from robustgate.core.records import Results
from robustgate.reports import history
from robustgate.reports.history import History, append, keep, read
from robustgate.reports.results_json import write

# Appends a run many times as soon as the other process is there too.
PROBE = """
import sys, time
from pathlib import Path
from robustgate.reports.history import append
from robustgate.reports.results_json import load
results, mine, other = load(Path(sys.argv[1])), Path(sys.argv[3]), Path(sys.argv[4])
mine.touch()
while not other.exists():
    time.sleep(0.001)
for _ in range(10):
    append(results, Path(sys.argv[2]))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "history.sqlite"


def series(found: History, label: str) -> history.Series:
    (one,) = (one for one in found.series if one.label == label)
    return one


def test_a_run_is_kept_figure_by_figure(results: Results, file: Path) -> None:
    assert keep(results, file) == ""
    found = read(file, 20)
    (run,) = found.runs
    assert (run.number, run.name, run.config_sha256) == (1, results.run.id, results.run.config_sha256)
    assert (run.started, run.verdict, run.version) == (results.run.started, results.run.verdict, "0.1.0")
    assert len(found.series) == len(results.cases) + len(results.findings)
    artifacts = {one.name: one.artifact_sha256 for one in results.variants}
    kept = {(one.kind, one.name): one for one in found.series}
    for case in results.cases:
        (point,) = kept[case.shift.kind, case.name].points
        assert (point.value, point.low, point.high, point.verdict) == (case.value, case.low, case.high, case.verdict)
        assert (point.n, point.n_total, point.data) == (case.n, case.n_total, case.data)
        assert point.artifact == artifacts[f"{case.model}-{case.compression}-{case.source}"]
    for finding in results.findings:
        one = kept["variant", finding.subject]
        assert (one.policy, one.rule, one.metric) == ("digits", "fits the device", "size_bytes")
        assert (one.points[0].value, one.points[0].verdict) == (finding.value, finding.verdict)


def test_runs_stand_in_their_order_and_the_last_are_read(results: Results, file: Path) -> None:
    case = next(case for case in results.cases if case.verdict == "pass")
    for place in range(5):
        changed = replace(case, value=place / 10)
        append(replace(results, run=replace(results.run, id=f"run {place}"), cases=(changed,), findings=()), file)
    found = read(file, 3)
    assert [(run.number, run.name) for run in found.runs] == [(3, "run 2"), (4, "run 3"), (5, "run 4")]
    (one,) = found.series
    assert [(point.run, point.value) for point in one.points] == [(3, 0.2), (4, 0.3), (5, 0.4)]


def test_what_was_not_measured_has_no_point(selection: Results, file: Path) -> None:
    append(selection, file)
    assert {one.kind for one in read(file, 1).series} == {"adversarial", "variant"}
    none = replace(selection, findings=tuple(replace(one, value=None) for one in selection.findings))
    append(none, file)
    assert {one.kind for one in read(file, 1).series} == {"adversarial"}


def test_two_processes_add_their_runs_at_once(single: Results, file: Path, tmp_path: Path) -> None:
    write(single, tmp_path / "results.json")
    here, there = tmp_path / "here", tmp_path / "there"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROBE, tmp_path / "results.json", file, *places],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for places in ((here, there), (there, here))
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    found = read(file, 100)
    assert [run.number for run in found.runs] == list(range(1, 21))
    (one,) = found.series
    assert [(point.run, point.value) for point in one.points] == [(number, 0.4115) for number in range(1, 21)]


def test_a_run_is_there_whole_or_not_at_all(single: Results, file: Path) -> None:
    append(single, file)
    before = file.read_bytes()
    twice = replace(single, cases=(*single.cases, *single.cases))
    with pytest.raises(ResultsError, match="UNIQUE constraint failed"):
        append(twice, file)
    assert [run.number for run in read(file, 9).runs] == [1]
    assert file.read_bytes() == before


def another(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE theirs (one TEXT)")


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute(f"PRAGMA user_version = {history.VERSION + 1}")


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda file: file.write_bytes(b"<<<<<<< HEAD\n" * 99), "file is not a database"),
        (lambda file: (file.unlink(), another(file)), "it is another database"),
        (newer, "version 2 is of a newer robustgate"),
        (cut_off, "database disk image is malformed"),
        (lambda file: (file.unlink(), file.mkdir()), "unable to open database file"),
    ],
)
def test_what_cannot_be_added_to_is_one_line_and_stays_as_it_is(single: Results, file: Path, harm, told: str) -> None:
    append(single, file)
    harm(file)
    content = file.read_bytes() if file.is_file() else None
    assert keep(single, file) == f"the run was not added to the history: {file}: cannot be used as a history: {told}"
    assert (file.read_bytes() if file.is_file() else None) == content


def test_a_folder_that_cannot_be_made_is_told(single: Results, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert "cannot be used as a history: File exists" in keep(single, tmp_path / "cache" / "history.sqlite")


def test_it_waits_for_another_process_and_then_says_so(
    single: Results, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(single, file)
    monkeypatch.setattr(history, "BUSY_SECONDS", 0.01)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert keep(single, file).endswith("cannot be used as a history: database is locked")
    other.execute("ROLLBACK")
    other.close()
    assert keep(single, file) == ""


def test_none_is_kept_where_none_is_asked_for(single: Results, tmp_path: Path) -> None:
    assert keep(single, None) == ""
    assert list(tmp_path.iterdir()) == []


def test_reading_what_is_not_there(file: Path) -> None:
    with pytest.raises(ResultsError, match=r"no history at .*: every run adds itself there"):
        read(file, 1)
    assert not file.parent.exists()
    file.parent.mkdir()
    file.touch()
    with pytest.raises(ResultsError, match="cannot be used as a history: no such table: run"):
        read(file, 1)
