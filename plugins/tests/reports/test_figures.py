from __future__ import annotations

import pytest

from robustgate.reports import figures


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (823 / 2000, "41.2"),
        (0.4114, "41.1"),
        (0.0285, "2.9"),
        (0.0, "0.0"),
        (1.0, "100.0"),
        (1, "100.0"),
        (2 / 3, "66.7"),
        (-0.0125, "-1.3"),
        (-0.0001, "0.0"),
        (0.99951, "100.0"),
        (1e-9, "0.0"),
    ],
)
def test_percent_is_right_to_the_printed_digit(fraction: float, text: str) -> None:
    assert figures.tenths(fraction) == text
    assert figures.percent(fraction) == f"{text} %"
    assert figures.points(fraction) == f"{text} points"


def test_every_share_of_2000_images_is_rounded_half_up() -> None:
    for correct in range(2001):
        whole, tenth = divmod((correct + 1) // 2, 10)
        assert figures.tenths(correct / 2000) == f"{whole}.{tenth}"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (104_551, "104.6 kB"),
        (999_960, "1 MB"),
        (3.2e9, "3.2 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_size(number: float, text: str) -> None:
    assert figures.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (141.3, "2 min 21 s"),
        (3599.9, "1 h 0 min"),
        (7320, "2 h 2 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text


@pytest.mark.parametrize(("confidence", "text"), [(0.99, "99 %"), (0.95, "95 %"), (0.9995, "99.95 %")])
def test_level(confidence: float, text: str) -> None:
    assert figures.level(confidence) == text


@pytest.mark.parametrize(("number", "text"), [(40_551_424, "40.6 M"), (512, "512"), (4.1e9, "4.1 G"), (1500, "1.5 K")])
def test_scaled(number: float, text: str) -> None:
    assert figures.scaled(number) == text


def test_interval() -> None:
    assert figures.interval(0.396, 0.428) == "[39.6, 42.8]"
    assert figures.interval(None, 0.4) == ""
    assert figures.interval(0.412, 0.412) == ""  # a fact


def test_counted() -> None:
    assert [figures.counted(number, "case") for number in (0, 1, 2000)] == ["0 cases", "1 case", "2,000 cases"]


def test_detail() -> None:
    assert figures.detail({"a": 0.99851234, "b": [1, True, None, "x"]}) == "a 0.9985, b 1, True, None, x"
