"""`robustgate report`: every report of a run again, from its results.json, byte for byte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from robustgate.cli import app

REPORT = Path("robustgate-report")
TABLES = {f"{name}.{suffix}" for name in ("pairs", "corruptions") for suffix in ("md", "csv", "tex")}
PAGES = {"report.html", "report.md", *TABLES}


def report(*words: str) -> Result:
    return CliRunner().invoke(app, ["report", *words])


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name in {*PAGES, "results.json"}}


def test_every_report_is_made_again_byte_for_byte(tiny) -> None:
    tiny.configure(("min = 0.3", "min = 0.82"))
    command = [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", "-p", "no:cacheprovider"]
    assert subprocess.run(command, capture_output=True, check=False, timeout=300).returncode == 1
    written = contents(REPORT)
    assert written.keys() == {*PAGES, "results.json"}
    results = REPORT / "results.json"
    history = ("--history", "cache/history.sqlite")
    done = report(str(results), "--output", "again", *history)
    assert (done.exit_code, done.stderr, done.stdout) == (0, "", f"report: {Path('again/report.html')}\n")
    assert contents(Path("again")) == {name: text for name, text in written.items() if name != "results.json"}
    for name in PAGES:
        (REPORT / name).unlink()
    assert report(str(results), *history).stdout == f"report: {REPORT / 'report.html'}\n"
    assert contents(REPORT) == written
    # Without a history all is the same but for its section.
    report(str(results))
    bare = contents(REPORT)
    assert {name for name in PAGES if bare[name] != written[name]} == {"report.html"}
    assert b'id="history"' in written["report.html"]
    assert b'id="history"' not in bare["report.html"]


def test_what_is_no_results_file_is_refused_and_nothing_written(tmp_path: Path) -> None:
    done = report(str(tmp_path / "absent.json"), "--output", str(tmp_path / "again"))
    assert (done.exit_code, done.stdout) == (4, "")
    assert "absent.json: expected a results.json, cannot read it" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_history_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = report(str(tmp_path / "absent.json"), "--history", str(tmp_path / "none.sqlite"))
    assert (done.exit_code, done.stderr) == (4, f"robustgate: --history: no such file: {tmp_path / 'none.sqlite'}\n")


def test_help_fits_one_screen() -> None:
    done = CliRunner().invoke(app, ["report", "--help"], terminal_width=80)
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "Example: robustgate report robustgate-report/results.json --output site" in done.stdout
