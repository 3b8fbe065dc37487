"""A stability rule says what it searches, and refuses what it cannot."""

import pytest

from robustgate.rules.stability import RANGES, Stability


def test_all_transformations_are_searched_by_default():
    assert Stability(max=0.05).transformations == {name: one.mild for name, one in RANGES.items()}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"max": 1.0}, r"max must be a fraction in \[0, 1\), got 1"),
        ({"max": 0.1, "transformations": {}}, "must name at least one of brightness"),
        ({"max": 0.1, "transformations": {"brightnes": 0.1}}, "unknown 'brightnes'.*brightness"),
        ({"max": 0.1, "transformations": {"brightness": 0.001}}, "brightness must be from 0.01 to 1, got 0.001"),
        ({"max": 0.1, "transformations": {"rotation": 181}}, "rotation must be from 0.25 to 180, got 181"),
        ({"max": 0.1, "samples": 0}, "samples must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_searched_is_refused(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        Stability(**given)
