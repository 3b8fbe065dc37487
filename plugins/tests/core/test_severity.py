"""The published values, chosen by severity and by the size of the image."""

import pytest

from robustgate.core.errors import ConfigurationError, MeasurementError
from robustgate.core.severity import SeverityTable

TABLE = SeverityTable(cifar=(1, 2, 3, 4, 5), imagenet=(10, 20, 30, 40, 50))


@pytest.mark.parametrize(("side", "expected"), [(1, 3), (32, 3), (64, 3), (65, 30), (224, 30)])
def test_auto_goes_by_the_side(side, expected):
    assert TABLE.at(3, side) == expected


def test_a_named_table_overrides_the_side():
    assert TABLE.at(1, 224, "cifar") == 1
    assert TABLE.at(5, 32, "imagenet") == 50


@pytest.mark.parametrize("severity", [-1, 0, 6, 2.5])
def test_other_severities_are_refused(severity):
    with pytest.raises(MeasurementError, match=f"^severity must be a whole number from 1 to 5, got {severity}$"):
        TABLE.at(severity, 32)


def test_an_unknown_table_is_refused_with_the_nearest_name():
    with pytest.raises(
        ConfigurationError, match=r"table must be one of auto, cifar, imagenet, got 'imagnet'.*imagenet"
    ):
        TABLE.at(1, 32, "imagnet")
