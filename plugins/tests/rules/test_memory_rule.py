from __future__ import annotations

from dataclasses import replace

import pytest

from robustgate.core.records import VariantRecord
from robustgate.rules.memory import Memory


def test_the_figure_is_the_peak(record: VariantRecord, reference: VariantRecord) -> None:
    rule = Memory(max="50 MB")
    assert rule.limit == 50_000_000
    assert rule.value(record, reference) == 5_000_000
    assert rule.interval(record, reference) == (5_000_000, 5_000_000)
    assert rule.show(5_000_000) == "5 MB"
    assert rule.measures == "memory"


def test_what_was_not_measured_has_no_figure(record: VariantRecord, reference: VariantRecord) -> None:
    unknown = replace(record, memory_bytes=None)
    assert Memory(max="50 MB").value(unknown, reference) is None
    assert Memory(max="50 MB").interval(unknown, reference) is None


def test_what_is_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max must be a size such as '3 MB' .*, got '50'"):
        Memory(max="50")
