from __future__ import annotations

from dataclasses import replace

import pytest

from robustgate.core.records import VariantRecord
from robustgate.rules.parameters import Parameters


@pytest.mark.parametrize(("written", "count"), [("4.51M", 4_510_000), ("80k", 80_000), (80_000, 80_000), ("10", 10)])
def test_a_limit_is_a_count(written: str | int, count: int) -> None:
    assert Parameters(max=written).limit == count


@pytest.mark.parametrize("written", ["", "4,510,000", "-3", "4.51 M", "4m"])
def test_what_is_no_count_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"max must be a count such as 80000 or '4.51M', got "):
        Parameters(max=written)


def test_all_are_counted_or_those_that_are_not_zero(record: VariantRecord, reference: VariantRecord) -> None:
    for rule, metric, count in (
        (Parameters(max=1), "parameters", 10),
        (Parameters(max=1, nonzero=True), "nonzero_parameters", 5),
    ):
        assert (rule.metric, rule.value(record, reference)) == (metric, count)
        assert rule.interval(record, reference) == (count, count)


def test_what_cannot_be_counted_has_no_figure(record: VariantRecord, reference: VariantRecord) -> None:
    unknown = replace(record, parameters=None, nonzero_parameters=None)
    for rule in (Parameters(max=1), Parameters(max=1, nonzero=True)):
        assert rule.value(unknown, reference) is None
        assert rule.interval(unknown, reference) is None


def test_a_count_is_shown_whole() -> None:
    assert Parameters(max=1).show(4_510_001) == "4,510,001 parameters"
    assert Parameters(max=1, nonzero=True).show(5) == "5 nonzero parameters"
