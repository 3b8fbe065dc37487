from __future__ import annotations

from dataclasses import replace

import pytest

from robustgate.core.records import VariantRecord
from robustgate.rules.compression_ratio import CompressionRatio


@pytest.mark.parametrize(("of", "ratio"), [("deflated", 3.5), ("file", 2.0), ("parameters", 4.0)])
def test_the_three_ratios_are_different_figures(
    record: VariantRecord, reference: VariantRecord, of: str, ratio: float
) -> None:
    rule = CompressionRatio(min=3, of=of)  # type: ignore[arg-type]
    assert rule.value(record, reference) == ratio
    assert rule.interval(record, reference) == (ratio, ratio)
    assert rule.metric == f"compression_ratio_{of}"
    assert rule.show(ratio).endswith(f" times smaller ({of})")


def test_the_deflated_files_are_meant_where_nothing_is_said() -> None:
    assert CompressionRatio(min=4.0).of == "deflated"


def test_weights_that_cannot_be_counted_have_no_ratio(record: VariantRecord, reference: VariantRecord) -> None:
    rule = CompressionRatio(min=3, of="parameters")
    for pair in ((replace(record, parameters=None), reference), (record, replace(reference, parameters=None))):
        assert rule.value(*pair) is None
        assert rule.interval(*pair) is None
    assert CompressionRatio(min=3).value(replace(record, parameters=None), reference) == 3.5


def test_a_figure_below_its_limit_does_not_read_like_it() -> None:
    rule = CompressionRatio(min=4.0)
    assert rule.show(4.0) == "4 times smaller (deflated)"
    assert rule.show(3.99996) == "3.99996 times smaller (deflated)"


def test_a_ratio_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="min must be above 0, got 0"):
        CompressionRatio(min=0)
