"""Time left, by arithmetic that one can do on paper."""

from __future__ import annotations

import pytest

from robustgate.pytest_plugin.pace import Pace

A, B, C = (("adversarial", name) for name in "abc")
CLEAN = [("clean", str(number)) for number in range(10)]


@pytest.fixture
def pace() -> Pace:
    """Three attacks and ten clean cases."""
    pace = Pace()
    pace.plan([A, B, C, *CLEAN])
    return pace


def measured(pace: Pace, case: tuple[str, str], seconds: float) -> None:
    pace.work(case, seconds)
    pace.finish(case, kept=False)


def test_nothing_measured_says_nothing(pace: Pace) -> None:
    assert pace.seconds_left() is None
    pace.finish(A, kept=True)
    assert pace.seconds_left() is None
    assert (pace.done, pace.total, pace.kept) == (1, 13, 1)


def test_each_case_takes_the_mean_of_its_kind(pace: Pace) -> None:
    measured(pace, A, 60.0)
    measured(pace, B, 40.0)
    measured(pace, CLEAN[0], 2.0)
    # One attack of 50 s, and nine clean cases of 2 s.
    assert pace.seconds_left() == pytest.approx(50 + 9 * 2)


def test_a_kind_that_was_not_measured_takes_the_mean_of_all(pace: Pace) -> None:
    measured(pace, A, 60.0)
    measured(pace, B, 40.0)
    assert pace.seconds_left() == pytest.approx(50 + 10 * 50)


def test_a_case_that_was_kept_takes_no_time_and_speeds_up_nothing(pace: Pace) -> None:
    measured(pace, CLEAN[0], 3.0)
    for case in (A, B, C, *CLEAN[1:7]):
        pace.finish(case, kept=True)
    assert pace.kept == 9
    assert pace.seconds_left() == pytest.approx(3 * 3.0)


def test_what_is_underway_has_its_time_so_far_taken_off(pace: Pace) -> None:
    measured(pace, A, 60.0)
    pace.work(B, 20.0)
    pace.work(B, 5.0)
    attacks, clean = (60 - 25) + 60, 10 * 60
    assert pace.seconds_left(B) == pytest.approx(attacks + clean)
    # It takes longer than the one before: what is left of it goes by its own samples.
    pace.work(B, 75.0)
    assert pace.seconds_left(B, 0.8) == pytest.approx(100 / 4 + 60 + clean)
    assert pace.seconds_left(B) == pytest.approx(60 + clean)


def test_what_was_measured_before_its_turn_is_not_to_come(pace: Pace) -> None:
    measured(pace, A, 60.0)
    pace.work(B, 40.0)
    for case in CLEAN:
        pace.work(case, 1.0)
    assert pace.seconds_left() == pytest.approx(50.0)


def test_workers_share_what_is_left(pace: Pace) -> None:
    measured(pace, A, 60.0)
    whole = pace.seconds_left()
    pace.workers = 4
    assert whole is not None
    assert pace.seconds_left() == pytest.approx(whole / 4)


def test_at_the_end_nothing_is_left(pace: Pace) -> None:
    for case in (A, B, C, *CLEAN):
        measured(pace, case, 1.0)
    assert (pace.seconds_left(), pace.done, pace.total) == (0.0, 13, 13)
