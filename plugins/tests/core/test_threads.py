"""Work in threads: the results and the error are those of working one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from robustgate.core import threads
from robustgate.core.threads import in_threads


def slow_at_first(number: int) -> int:
    time.sleep(0.01 if number < 3 else 0)
    return number * number


def test_results_are_in_order() -> None:
    assert list(in_threads(slow_at_first, range(50))) == [number * number for number in range(50)]
    assert list(in_threads(slow_at_first, [])) == []


def test_the_first_error_in_order_is_raised_and_what_is_far_behind_is_not_begun() -> None:
    begun = []

    def fail(number: int) -> int:
        begun.append(number)
        if number in (5, 6):
            time.sleep(0.05 if number == 5 else 0)
            raise ValueError(f"number {number}")
        return number

    results = in_threads(fail, range(10_000))
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="number 5"):
        next(results)
    assert max(begun) < 200


def test_only_a_few_are_computed_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MOST", 2)
    asked = 0

    def items() -> Iterator[int]:
        nonlocal asked
        for number in range(1000):
            asked += 1
            yield number

    results = in_threads(slow_at_first, items())
    next(results)
    assert asked <= 6
    results.close()
    assert threading.active_count() < 20
