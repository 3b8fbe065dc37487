"""Sizes as people write them, in bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from robustgate.core.records import VariantRecord
from robustgate.rules.size import Size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0 B", 0),
        ("17 B", 17),
        ("17B", 17),
        ("3 kB", 3_000),
        ("3 MB", 3_000_000),
        ("2.5 MB", 2_500_000),
        ("1 GB", 1_000_000_000),
        ("1 KiB", 1024),
        ("1.5 MiB", 1_572_864),
        ("1GiB", 1_073_741_824),
    ],
)
def test_a_limit_is_so_many_bytes(text: str, count: int) -> None:
    assert Size(max=text).limit == count


@pytest.mark.parametrize("text", ["", "3", "MB", "-3 MB", "3 mb", "3 KB", "3  MB", "3 MB ", "3. MB", ".5 MB", "1e3 B"])
def test_what_is_no_size_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(ValueError, match=r"'3 MB' \(units B, kB, MB, GB, KiB, MiB, GiB\), got ") as caught:
        Size(max=text)
    assert str(caught.value).endswith(f"got {text!r}")


def test_the_figure_is_the_size_of_the_file_that_ships(record: VariantRecord, reference: VariantRecord) -> None:
    rule = Size(max="1 B")
    assert rule.value(record, reference) == 1234
    assert rule.interval(record, reference) == (1234, 1234)
    assert rule.value(replace(record, deflated_bytes=1, parameters=1), reference) == 1234


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (104_551, "104.6 kB (104,551 B)"),
        (3_000_001, "3 MB (3,000,001 B)"),
        (2_900_000, "2.9 MB"),
        (3_000_000, "3 MB"),
        (45_000_000_000, "45 GB"),
    ],
)
def test_a_figure_is_shown_in_the_largest_unit_that_keeps_it_above_one(value: float, text: str) -> None:
    assert Size(max="1 B").show(value) == text
