"""What a variant and its reference predict, as shares: against counting, and resampled together."""

from __future__ import annotations

import numpy as np
import pytest

from robustgate.core.records import Shift
from robustgate.engine.shares import MeasuredShares, Predicted

CLEAN = Shift(kind="clean", name="clean")
FOG = Shift(kind="corruption", name="fog_s3", corruption="fog", severity=3)
WEBCAM = Shift(kind="domain_shift", name="a_to_webcam", target="webcam")
LABELS = np.array([0, 0, 1, 1, 2])


def predicted(ours: list[int], reference: list[int], labels: np.ndarray = LABELS) -> Predicted:
    return Predicted(labels=labels, predictions=np.array(ours), reference=np.array(reference))


def shares(given: dict[Shift, Predicted], seed: int = 0, resamples: int = 40) -> MeasuredShares:
    return MeasuredShares(classes=("a", "b", "c", "d"), predicted=given, accuracies={}, seed=seed, resamples=resamples)


def test_every_way_in_which_two_predictions_can_fall_is_counted() -> None:
    # Both right; only the reference; only the variant; both wrong alike; both wrong, each its own way.
    found = shares({CLEAN: predicted([0, 1, 1, 3, 0], [0, 0, 2, 3, 1])})
    assert found.right(CLEAN)[0] == 2 / 5
    assert found.reference(CLEAN)[0] == 2 / 5
    assert found.changed(CLEAN)[0].tolist() == [1 / 5, 1 / 5, 1 / 5]
    assert found.sizes(CLEAN).tolist() == [2, 2, 1, 0]
    assert found.by_class(CLEAN)[0].tolist() == pytest.approx([1 / 2, 1 / 2, 0, np.nan], nan_ok=True)


def test_shifts_of_one_split_are_resampled_alike() -> None:
    same = predicted([0, 1, 1, 1, 0], [0, 0, 1, 2, 2])
    found = shares({CLEAN: same, FOG: same, WEBCAM: same})
    assert np.array_equal(found.right(CLEAN), found.right(FOG))
    assert not np.array_equal(found.right(CLEAN), found.right(WEBCAM))
    assert found.right(CLEAN).shape == (41,)
    kept = found.right(CLEAN) - found.reference(CLEAN)
    lost, gained, _ = found.changed(CLEAN).T
    assert kept == pytest.approx(gained - lost)


def test_a_resample_is_the_same_whatever_else_is_asked_about() -> None:
    one, other = predicted([0, 1, 1, 1, 0], [0, 0, 1, 2, 2]), predicted([0, 0, 1, 2, 2], [0, 0, 0, 0, 0])
    alone, together = shares({CLEAN: one}), shares({WEBCAM: other, FOG: other, CLEAN: one})
    assert np.array_equal(alone.right(CLEAN), together.right(CLEAN))
    assert not np.array_equal(alone.right(CLEAN), shares({CLEAN: one}, seed=1).right(CLEAN))


def test_a_stored_benchmark_of_other_images_stands_apart() -> None:
    stored = predicted([0, 1, 2], [0, 1, 2], labels=np.array([0, 1, 1]))
    found = shares({CLEAN: predicted([0, 0, 1, 1, 2], [0] * 5), FOG: stored})
    assert (found.right(CLEAN)[0], found.right(FOG)[0]) == (1, 2 / 3)
    assert found.sizes(FOG).tolist() == [1, 2, 0, 0]


def test_classes_are_resampled_with_the_rest() -> None:
    found = shares({CLEAN: predicted([0, 1, 1, 1, 0], [0] * 5)})
    by_class = found.by_class(CLEAN)
    assert by_class.shape == (41, 4)
    assert np.isnan(by_class[:, 3]).all()
    # Every class's accuracy is all or nothing but the first one's.
    assert set(np.unique(by_class[:, 1][~np.isnan(by_class[:, 1])])) == {1.0}
    assert set(np.unique(by_class[:, 2][~np.isnan(by_class[:, 2])])) == {0.0}
