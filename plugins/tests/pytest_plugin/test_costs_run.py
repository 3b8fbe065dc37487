"""Real runs of the suite with rules on what a variant costs: who judges what, what is timed, and when it is not."""

from __future__ import annotations

import json

import pytest
from own_process import findings, results, suite

RULES = """
[[policies.edge.rules]]
name = "small"
rule = "parameters"
max = 20
[[policies.edge.rules]]
name = "dense"
rule = "compression_ratio"
min = 1.0
of = "parameters"
[[policies.edge.rules]]
name = "light"
where = { compression = "fp25" }
rule = "memory"
max = "1 GB"
[[policies.edge.rules]]
name = "fast"
where = { compression = "fp25" }
rule = "latency"
max = "%s"
[[policies.edge.rules]]
name = "as fast"
where = { compression = "fp25" }
rule = "latency"
max_ratio = 1000.0
batch = 8
"""
FP25 = "tiny-fp25-day"


def test_every_cost_is_measured_judged_and_reported(tiny) -> None:
    tiny.configure(extra=RULES % "60 s")
    done = suite(
        tiny.folder, "--benchmark-json", "benchmark.json", "-W", "error::pytest_benchmark.logger.PytestBenchmarkWarning"
    )
    # 4 filters of 3 weights, 4 x 2 of the head and its 2 biases; without one filter it is 5 fewer.
    assert "1 failed, 14 passed" in done.stdout, done.stdout
    assert 'rule "small" of policy edge: max 20 parameters; it is 22 parameters' in done.stdout
    assert '-k "test_cost[tiny-none-day]"' in done.stdout
    found = findings(tiny.folder)
    assert {place: one["verdict"] for place, one in found.items()} == {
        ("tiny-none-day", "small"): "fail",
        ("tiny-none-day", "dense"): "pass",
        (FP25, "small"): "pass",
        (FP25, "dense"): "pass",
        (FP25, "light"): "pass",
        (FP25, "fast"): "pass",
        (FP25, "as fast"): "pass",
    }
    assert results(tiny.folder)["run"]["complete"] is True
    none, fp25 = results(tiny.folder)["variants"]
    assert (none["parameters"], fp25["parameters"], none["compression_ratio"]) == (22, 17, 1.0)
    # A filter of 3 weights on 64 pixels each, and the head.
    assert (none["macs"], fp25["macs"]) == (4 * 3 * 64 + 8, 3 * 3 * 64 + 6)
    assert none["memory_bytes"] is None
    assert 0 < fp25["memory_bytes"] < 50_000_000
    assert [timing["batch"] for timing in fp25["timings"]] == [1, 8]
    assert fp25["latency_ms"] == fp25["timings"][0]["median_ms"] == found[FP25, "fast"]["value"]
    assert found[FP25, "as fast"]["value"] == fp25["timings"][1]["ratio"]
    # pytest-benchmark's own files hold the very rounds.
    (benchmark,) = json.loads((tiny.folder / "benchmark.json").read_text())["benchmarks"]
    assert benchmark["name"] == f"test_latency[{FP25}]"
    assert benchmark["stats"]["rounds"] == fp25["timings"][0]["rounds"]
    assert 1e3 * benchmark["stats"]["median"] == pytest.approx(fp25["latency_ms"], rel=0.2)
    for report in ("report.md", "report.html"):
        text = (tiny.folder / "robustgate-report" / report).read_text()
        assert f"{fp25['latency_ms']:.3g} ms" in text
        assert "compression (deflated)" in text


def test_a_slow_variant_fails_its_test_alone(tiny) -> None:
    tiny.configure(extra=RULES % "1 us")
    done = suite(tiny.folder, "-m", "latency")
    assert "1 failed" in done.stdout, done.stdout
    assert 'rule "fast" of policy edge: max 0.001 ms; it is ' in done.stdout
    assert f"test_latency[{FP25}]" in done.stdout
    assert findings(tiny.folder)[FP25, "fast"]["verdict"] == "fail"
    assert {subject for subject, _ in findings(tiny.folder)} == {FP25}


def test_what_is_not_timed_is_never_green(tiny) -> None:
    tiny.configure(extra=RULES % "60 s")
    done = suite(tiny.folder, "-m", "latency", "--benchmark-disable")
    assert done.returncode == 1
    assert "max 6e+04 ms; latency_ms was not measured: --benchmark-disable" in done.stdout, done.stdout
    assert {one["verdict"] for one in findings(tiny.folder).values()} == {"incomplete"}
    assert results(tiny.folder)["variants"][0]["timings"] == []
    skipped = suite(tiny.folder, "-m", "latency", "--benchmark-skip")
    assert skipped.returncode == 1
    assert (
        "2 rules on selected variants were not judged, 'fast' of policy edge on tiny-fp25-day among them"
        in skipped.stdout
    )


def test_without_a_rule_on_latency_nothing_is_timed_or_warned_of(tiny) -> None:
    done = suite(tiny.folder, "-n", "2", "-W", "error::pytest_benchmark.logger.PytestBenchmarkWarning", "-rw")
    assert "12 passed" in done.stdout, done.stdout
    assert done.returncode == 0
    assert "Benchmarks are" not in done.stdout + done.stderr
