from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from robustgate.core.records import VariantRecord
from robustgate.rules.latency import Latency


@pytest.mark.parametrize(
    ("written", "ms"), [("5 ms", 5.0), ("5ms", 5.0), ("0.2 s", 200.0), ("800 us", 0.8), ("1.5 ms", 1.5)]
)
def test_a_limit_is_so_many_milliseconds(written: str, ms: float) -> None:
    rule = Latency(max=written)
    assert rule.limit == pytest.approx(ms)
    assert rule.metric == "latency_ms"


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({}, 'a latency rule needs one limit: max = "5 ms" or max_ratio = 0.7'),
        ({"max": "5 ms", "max_ratio": 0.7}, 'a latency rule needs one limit: max = "5 ms" or max_ratio = 0.7'),
        ({"max": "5"}, "max must be a time such as '5 ms' (units us, ms, s), got '5'"),
        ({"max": "-5 ms"}, "max must be a time such as '5 ms' (units us, ms, s), got '-5 ms'"),
        ({"max_ratio": 0.0}, "max_ratio must be above 0, got 0"),
        ({"max": "5 ms", "batch": 0}, "batch must be at least 1, got 0"),
    ],
)
def test_what_is_no_limit_is_refused(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        Latency(**keys)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("keys", "metric", "value", "low", "high"),
    [
        ({"max": "5 ms"}, "latency_ms", 4.0, 3.6, 4.4),
        ({"max_ratio": 0.7}, "latency_ratio", 0.8, 0.72, 0.88),
        ({"max": "5 ms", "batch": 32}, "latency_ms_batch_32", 90.0, 81.0, 99.0),
        ({"max_ratio": 0.7, "batch": 32}, "latency_ratio_batch_32", 0.6, 0.54, 0.66),
    ],
)
def test_the_figure_is_the_median_of_its_batch(
    record: VariantRecord,
    reference: VariantRecord,
    keys: dict[str, Any],
    metric: str,
    value: float,
    low: float,
    high: float,
) -> None:
    rule = Latency(**keys)
    assert (rule.metric, rule.value(record, reference)) == (metric, value)
    assert rule.interval(record, reference) == pytest.approx((low, high))


def test_a_batch_that_was_not_timed_has_no_figure(record: VariantRecord, reference: VariantRecord) -> None:
    rule = Latency(max_ratio=0.7, batch=8)
    assert rule.value(record, reference) is None
    assert rule.interval(record, reference) is None
    assert Latency(max="5 ms").value(replace(record, timings=()), reference) is None


def test_a_figure_says_what_it_is_of() -> None:
    assert Latency(max="5 ms").show(4.125) == "4.125 ms"
    assert Latency(max_ratio=0.7).show(0.654) == "0.654 times the reference"
    assert Latency(max="5 ms", batch=32).show(90) == "90 ms for 32 images"
