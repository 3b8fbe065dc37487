"""Classes of a pair: matched by name, renamed by a mapping, and dropped only where that is asked for, and told."""

from __future__ import annotations

import numpy as np
import pytest

from robustgate.config import Pair
from robustgate.core.components import Samples
from robustgate.core.errors import DomainError
from robustgate.engine.matching import Matching, match

OURS = ("cup", "lamp", "car")
THEIRS = ("auto", "mug", "lamp", "van", "zebra")
LABELS = np.array([4, 0, 1, 2, 3, 4, 0])


def matched(ours: tuple[str, ...] = OURS, **changes) -> Matching:
    return match(Pair(source="home", target="street", **changes), ours, THEIRS, LABELS)


RENAMED = {"auto": "car", "mug": "cup", "van": "car"}


def test_a_mapping_renames_theirs_to_ours_and_may_join_classes() -> None:
    found = matched(classes=RENAMED | {"zebra": "lamp"})
    assert found.rows.tolist() == list(range(7))
    assert [OURS[label] for label in found.labels] == ["lamp", "car", "cup", "lamp", "car", "lamp", "car"]
    assert (found.classes, found.details) == (OURS, {})


def test_what_the_source_does_not_know_is_dropped_if_asked_and_told() -> None:
    found = matched((*OURS, "boat"), classes=RENAMED, missing="drop")
    assert found.rows.tolist() == [1, 2, 3, 4, 6]
    assert [OURS[label] for label in found.labels] == ["car", "cup", "lamp", "car", "car"]
    assert found.details == {"classes": {"dropped": {"zebra": 2}, "without_samples": ["boat"]}}
    samples = Samples(
        images=np.arange(7 * 12, dtype=np.uint8).reshape(7, 2, 2, 3),
        labels=LABELS,
        classes=THEIRS,
        names=tuple("abcdefg"),
    )
    left = found.apply(samples)
    assert (left.names, left.classes) == (tuple("bcdeg"), (*OURS, "boat"))
    assert left.labels.tolist() == found.labels.tolist()
    np.testing.assert_array_equal(left.images[:], samples.images[[1, 2, 3, 4, 6]])
    np.testing.assert_array_equal(left.images[1:3], samples.images[2:4])
    np.testing.assert_array_equal(left.images[np.array([4, 0])], samples.images[[6, 1]])


def test_a_class_that_is_there_but_empty_is_told_too() -> None:
    labels = np.array([0, 1, 3])
    found = match(
        Pair(source="home", target="street", classes=RENAMED | {"zebra": "car"}, missing="drop"), OURS, THEIRS, labels
    )
    assert found.details == {"classes": {"dropped": {}, "without_samples": ["lamp"]}}


def test_nothing_is_told_where_nothing_is_dropped() -> None:
    assert matched(classes=RENAMED | {"zebra": "lamp"}, missing="drop").details == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": RENAMED},
            "expected the 3 classes of home in street, got 5; only in home: (none); only in street: zebra; "
            "a pair's table may rename them (classes) or drop them (missing)",
        ),
        ({"classes": {"mugg": "cup"}}, "classes: 'mugg' is no class of street (did you mean 'mug'?)"),
        (
            {"classes": {"mug": "cups", "vam": "car"}, "missing": "drop"},
            "classes: 'vam' is no class of street (did you mean 'van'?); "
            "'cups' is no class of home (did you mean 'cup'?)",
        ),
        ({"ours": ("ship", "tree"), "missing": "drop"}, "no sample of street is of a class of home"),
    ],
)
def test_names_that_do_not_fit_are_one_error(changes, message: str) -> None:
    with pytest.raises(DomainError) as raised:
        matched(**changes)
    assert str(raised.value) == f"pair home → street: {message}"
