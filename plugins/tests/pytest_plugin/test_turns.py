"""Under pytest-xdist nothing runs beside a test that times: seen from when every test began and ended."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

RECORDER = """
import json, os, time
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    began = time.monotonic()
    try:
        return (yield)
    finally:
        span = [item.name, item.get_closest_marker("latency") is not None, began, time.monotonic()]
        with open(f"spans-{os.environ['PYTEST_XDIST_WORKER']}.jsonl", "a") as file:
            file.write(json.dumps(span) + chr(10))
"""
OWN = """
import time
import pytest

@pytest.mark.parametrize("index", range(8))
def test_busy(index):
    time.sleep(0.25)

@pytest.mark.latency
@pytest.mark.parametrize("index", range(4))
def test_timed(index):
    time.sleep(0.25)
"""
FAST = """
[[policies.edge.rules]]
name = "fast"
rule = "latency"
max = "60 s"
"""
Span = tuple[str, bool, float, float]


@pytest.fixture
def workers(tiny, monkeypatch: pytest.MonkeyPatch):
    """Run the suite and tests of one's own with two workers; return what was said and when each test ran."""
    (tiny.folder / "recorder.py").write_text(RECORDER)
    (tiny.folder / "test_own.py").write_text(OWN)
    (tiny.folder / "shared").mkdir()
    monkeypatch.setenv("TMPDIR", str(tiny.folder / "shared"))
    tiny.configure(extra=FAST)

    def run(*words: str) -> tuple[subprocess.CompletedProcess[str], list[Span]]:
        command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "recorder", "-p", "no:cacheprovider"]
        command += ["--pyargs", "robustness_tests", "test_own.py", *words]
        done = subprocess.run(command, cwd=tiny.folder, capture_output=True, text=True, check=False, timeout=300)
        files = sorted(tiny.folder.glob("spans-gw*.jsonl"))
        assert len(files) == 2, done.stdout + done.stderr
        return done, [tuple(json.loads(line)) for file in files for line in file.read_text().splitlines()]

    return run


def overlaps(spans: list[Span], *, timed: bool) -> list[tuple[str, str]]:
    """Return the pairs of tests that ran at one time, those with a timing test among them or those without."""
    return [
        (one[0], other[0])
        for one, other in combinations(spans, 2)
        if (one[1] or other[1]) == timed and one[2] < other[3] and other[2] < one[3]
    ]


def findings(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "robustgate-report" / "results.json").read_text())["findings"]


@pytest.mark.parametrize("distribution", ["load", "loadfile"])
def test_nothing_overlaps_a_test_that_times(workers, tiny, distribution: str) -> None:
    done, spans = workers("--dist", distribution, "-W", "error::pytest_benchmark.logger.PytestBenchmarkWarning")
    assert done.returncode == 0, done.stdout
    assert sum(timed for _, timed, _, _ in spans) == 2 + 4
    assert overlaps(spans, timed=True) == []
    assert overlaps(spans, timed=False), "the others run side by side: the two workers did work"
    verdicts = {one["subject"]: one["verdict"] for one in findings(tiny.folder)}
    assert verdicts == {"tiny-none-day": "pass", "tiny-fp25-day": "pass"}
    assert not list((tiny.folder / "shared").glob("robustgate-turns-*")), "the locks' folder is gone"


def test_workers_that_take_no_turns_overlap_and_time_nothing(workers, tiny) -> None:
    # Planted: the part of the plugin that makes workers wait is switched off.
    done, spans = workers("-p", "no:robustgate.turns")
    assert overlaps(spans, timed=True), "or the test above would prove nothing"
    assert done.returncode == 1
    assert "latency_ms was not measured: the workers of this run do not take turns" in done.stdout
    assert [one["verdict"] for one in findings(tiny.folder)] == ["incomplete", "incomplete"]
    assert [one["value"] for one in findings(tiny.folder)] == [None, None]


def test_a_test_without_the_marker_is_not_timed(tiny) -> None:
    tiny.configure(extra=FAST)
    (tiny.folder / "test_own.py").write_text(
        "def test_own(variant, gate, benchmark):\n    gate.check_latency(variant, benchmark)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "test_own.py"]
    done = subprocess.run(command, cwd=tiny.folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.count('was not measured: a test that times needs the marker "latency"') >= 2, done.stdout
    assert done.returncode == 1
