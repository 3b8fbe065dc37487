"""`robustgate merge`: four shards of a run, measured apart, make the single run; what is not one run is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from robustgate.cli import app
from robustgate.core.records import Results
from robustgate.engine.reporting import write_reports
from robustgate.reports import history
from robustgate.reports.results_json import dumps, load

# Two policies, rules on variants and over shifts, a waiver, and what breaks a rule.
MORE = """
[[policies.edge.rules]]
name = "fits"
rule = "size"
max = "1 MB"
[[policies.edge.rules]]
name = "small"
rule = "parameters"
max = 20
[[policies.edge.waivers]]
where = { compression = "none", attack = "fgsm" }
until = 2999-12-31
reason = "ticket 1"
[policies.cloud]
scope = "population"
confidence = 0.95
[[policies.cloud.rules]]
name = "far from chance"
min = 0.55
[[policies.cloud.rules]]
name = "corrupted"
rule = "mean_corruption_accuracy"
min = 0.4
"""
SHARDS = (
    "test_clean or test_domain_shift",
    "test_corruption or (test_cost and fp25)",
    "test_adversarial and none or test_masking",
    "test_adversarial and fp25 or test_overall or (test_cost and none)",
)
REPORT = Path("robustgate-report")


def suite(*words: str) -> int:
    """Run the shipped suite with nothing kept from before; return its exit status."""
    shutil.rmtree("cache", ignore_errors=True)
    command = [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, capture_output=True, check=False, timeout=300).returncode


def merge(*words: object) -> Result:
    return CliRunner().invoke(app, ["merge", *map(str, words)])


def timeless(results: Results) -> Results:
    """The results without times."""
    return replace(
        results,
        run=replace(results.run, id="", started="", seconds=0.0),
        variants=tuple(replace(one, seconds_to_build=0.0) for one in results.variants),
        cases=tuple(replace(row, seconds=0.0, cached=False) for row in results.cases),
    )


def pages(results: Results, folder: Path) -> dict[str, bytes]:
    write_reports(timeless(results), folder, None)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_four_shards_make_the_single_run(tiny) -> None:
    tiny.configure(("enabled = false", "samples = 8\nsteps = 2\nqueries = 4"), ("min = 0.3", "min = 0.82"), extra=MORE)
    asked = ("--robustgate-policy", "edge,cloud")
    assert suite(*asked) == 1
    single = load(REPORT / "results.json")
    assert single.run.complete
    assert {row.verdict for row in single.cases} == {"pass", "fail", "waived"}
    shards = []
    for index, chosen in enumerate(SHARDS):
        suite(*asked, "--robustgate-report", f"shard{index}", "-k", chosen)
        shards.append(load(Path(f"shard{index}/results.json")))
        assert not shards[-1].run.complete
    assert sum(shard.run.measured for shard in shards) == single.run.planned
    done = merge(*(f"shard{index}/results.json" for index in (2, 0, 3, 1)), "--output", "merged")
    assert (done.exit_code, done.stderr) == (0, "")
    merged = load(Path("merged/results.json"))
    assert dumps(timeless(merged)) == dumps(timeless(single))
    assert pages(merged, Path("a")) == pages(single, Path("b"))
    assert (merged.run.id, merged.run.started) == (shards[0].run.id, shards[0].run.started)
    assert merged.run.seconds == round(sum(shard.run.seconds for shard in shards), 1)
    told = done.stdout.splitlines()
    assert told[0].startswith(f"fail: {single.run.planned} of {single.run.planned} planned cases measured (0 kept")
    assert told[-1] == f"report: {Path('merged/report.html')}"


# What is refused, and what is not.


@pytest.fixture
def shards(tiny) -> list[Path]:
    """Two shards that both measured the clean cases."""
    assert suite("--robustgate-report", "a", "-k", "test_clean") == 0
    assert suite("--robustgate-report", "b", "-k", "test_clean or test_domain_shift") == 0
    return [Path("a/results.json"), Path("b/results.json")]


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_what_is_refused_is_told_and_leaves_nothing(shards: list[Path]) -> None:
    def set_value(content: dict[str, Any]) -> None:
        content["cases"][0]["value"] = 0.5

    def set_seed(content: dict[str, Any]) -> None:
        content["run"]["seed"] = 7

    done = merge(*shards, "--output", "merged")
    assert (done.exit_code, done.stderr) == (0, "")
    assert load(Path("merged/results.json")).run.measured == 4
    shutil.rmtree("merged")
    whole = shards[1].read_text()
    for change, message in (
        (set_value, "shards disagree:\n  clean/tiny-none-day: a/results.json and b/results.json differ in value: 1.0"),
        (
            set_seed,
            "these are not shards of one run:\n  b/results.json: seed: expected 0, as in a/results.json, got 7\n",
        ),
    ):
        shards[1].write_text(whole)
        edit(shards[1], change)
        done = merge(*shards, "--output", "merged")
        assert (done.exit_code, done.stdout) == (4, "")
        assert isinstance(done.exception, SystemExit)
        assert done.stderr.startswith(f"robustgate: {message}")
        assert not Path("merged").exists()
    shards[1].write_text('{"schema": "robustgate/results/2"}')
    done = merge(*shards, "--output", "merged")
    assert done.exit_code == 4
    assert "b/results.json: schema: expected 'robustgate/results/1', got " in done.stderr
    assert not Path("merged").exists()


def test_no_shards_are_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = merge("--output", "merged")
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr == "robustgate: no shards to merge: name the results.json of each\n"
    assert not list(tmp_path.iterdir())


def test_the_merged_run_is_added_to_a_history(shards: list[Path]) -> None:
    done = merge(*shards, "--output", "merged", "--history", "runs.sqlite")
    assert (done.exit_code, done.stderr) == (0, "")
    merged = load(Path("merged/results.json"))
    found = history.read(Path("runs.sqlite"), 9)
    assert [run.name for run in found.runs] == [merged.run.id]
    assert {(one.kind, one.name) for one in found.series} == {
        (row.shift.kind, row.name) for row in merged.cases if row.value is not None
    }
    assert merge(*shards, "--output", "again").exit_code == 0
    assert len(history.read(Path("runs.sqlite"), 9).runs) == 1
    Path("runs.sqlite").write_text("<<<<<<< HEAD\n" * 99)
    refused = merge(*shards, "--output", "third", "--history", "runs.sqlite")
    assert refused.exit_code == 4
    assert "runs.sqlite: cannot be used as a history" in refused.stderr


def test_help_fits_one_screen() -> None:
    done = CliRunner().invoke(app, ["merge", "--help"], terminal_width=80)
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "Example: robustgate merge shards/*/results.json --output report" in done.stdout
