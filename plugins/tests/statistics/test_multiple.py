"""Holm's step-down against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from robustgate.statistics.multiple import stepped_down


@pytest.mark.parametrize("count", [1, 2, 5, 20])
@pytest.mark.parametrize("error", [0.01, 0.05, 0.2])
def test_it_decides_what_statsmodels_decides(count: int, error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc.collect", lambda: None)  # statsmodels collects garbage in each call, which takes its time
    draws = np.random.default_rng(count)
    steps = 0
    for _ in range(200):
        p = draws.random(count) ** draws.integers(1, 12)
        level = stepped_down(lambda level, p=p: int((p <= level).sum()), count, error)  # type: ignore[misc]
        assert np.array_equal(p <= level, multipletests(p, error, method="holm")[0])
        steps += level > error / count
    assert count == 1 or steps > 20  # more than Bonferroni's single step was needed


def test_levels() -> None:
    assert stepped_down(lambda level: 0, 5, 0.05) == 0.01
    assert stepped_down(lambda level: 3, 5, 0.05) == 0.025
    assert stepped_down(lambda level: int(level >= 0.05) + int(level >= 0.025), 2, 0.05) == 0.05
    asked: list[float] = []

    def decided_at(level: float) -> int:
        asked.append(level)
        return 4

    assert stepped_down(decided_at, 4, 0.04) == 0.01
    assert asked == [0.01]  # when all are decided, nothing is left to be asked


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="count must be at least 1: nothing is to be decided, got 0"):
        stepped_down(lambda level: 0, 0, 0.05)
    with pytest.raises(ValueError, match="error must lie strictly between 0 and 1, got 1"):
        stepped_down(lambda level: 0, 3, 1.0)
