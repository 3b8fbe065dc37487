"""What pytest-benchmark must know: where nothing runs beside a test, it may time it in a worker too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from robustgate.pytest_plugin.turns import Turns, times

BENCHMARK = "pytest-benchmark"


def why_untimed(item: pytest.Item, turns: Turns | None) -> str:
    """Return why a test cannot be timed, or an empty text: other tests may run beside it, or it is not wanted."""
    config = item.config
    if not times(item):
        return 'a test that times needs the marker "latency"'
    if hasattr(config, "workerinput") and not (turns and turns.alone):
        return "the workers of this run do not take turns"
    if config.getoption("benchmark_disable") and not config.getoption("benchmark_enable"):
        return "--benchmark-disable"
    return ""


def quieten(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Spare the warning that benchmarks are off in workers, where all that uses them is timed alone."""
    benchmarks: Any = config.pluginmanager.get_plugin(BENCHMARK)
    users = [item for item in items if "benchmark" in getattr(item, "fixturenames", ())]
    if users and benchmarks is not None and all(times(item) for item in users):
        benchmarks.xdist_warning = False


def forget(config: pytest.Config, stats: object) -> None:
    """Take a benchmark out of what a worker would save: every worker writes the same file, the last one wins.

    Its figures travel on the test's report instead.
    """
    benchmarks: Any = config.pluginmanager.get_plugin(BENCHMARK)
    benchmarks.benchmarks.remove(stats)
