"""The mildest transformation is found, shrunk to the last step, and told; where there is none, that is told."""

from datetime import date

import numpy as np
import pytest
import torch
from torch import nn

from robustgate.config import Policy, RunRule
from robustgate.core.components import Samples
from robustgate.core.records import Case, Shift, Variant
from robustgate.engine.examples import Examples, read
from robustgate.engine.judge import Counted
from robustgate.engine.judge_stability import judge_stability
from robustgate.engine.stability import chosen, measure_stability
from robustgate.engine.subjects import TorchSubject
from robustgate.rules.stability import Stability

LEVELS = 100


class Bright(nn.Module):
    """Says 1 where an image's mean is above one half."""

    def forward(self, images):
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([torch.full_like(mean, 0.5), mean], dim=1)


class Upright(nn.Module):
    """Says 1 where the upper left corner is darker than the rest: a shift or a turn tells."""

    def forward(self, images):
        corner = images[:, 0, 0, 0]
        return torch.stack([corner, torch.full_like(corner, 0.5)], dim=1)


def flat(levels):
    """One image a grey level."""
    images = np.repeat(np.asarray(levels, np.uint8), 8 * 8 * 3).reshape(-1, 8, 8, 3)
    count = len(images)
    names = tuple(f"image {row}" for row in range(count))
    return Samples(images=images, labels=np.zeros(count, np.int64), classes=("dark", "bright"), names=names)


def searched(module, samples, rule, folder, seed=0):
    subject = TorchSubject(module.eval(), torch.device("cpu"))
    with Examples(folder, len(samples), (3, *samples.images.shape[1:3])) as examples:
        return measure_stability(subject, samples, "case", lambda done, total: None, rule, seed, examples)


def verdict(outcome, rule):
    case = Case(variant=Variant(model="m", source="d", compression="none"), shift=Shift(kind="stability", name="s"))
    policy = Policy(name="p", case_rules=(), run_rules=())
    counted = Counted(correct=outcome.correct, labels=outcome.labels, classes=("dark", "bright"))
    named = RunRule(name="steady", component=rule)
    return judge_stability(case, counted, outcome.details, named, policy, date(2026, 1, 1))


# Means 0.3, 0.302, ... : the k-th brightest crosses one half at a brightness that is known.
GREYS = [77 + row // 4 for row in range(LEVELS)]  # 77 to 101 of 255


def enough(allowed):
    """The smallest brightness, in hundredths, at which more than `allowed` of the greys cross one half."""
    for step in range(1, 100):
        if np.mean([round(grey + 255 * step / 100) > 127.5 for grey in GREYS]) > allowed:
            return step
    raise AssertionError


@pytest.mark.parametrize("allowed", [0.0, 0.08, 0.5])
def test_the_mildest_brightness_is_the_closed_forms(tmp_path, allowed):
    rule = Stability(max=allowed, transformations={"brightness": 0.3})
    outcome = searched(Bright(), flat(GREYS), rule, tmp_path)
    step = enough(allowed)
    assert outcome.details["mildest"] == f"brightness +{step / 100:.2f}"
    share = np.mean([round(grey + 255 * step / 100) > 127.5 for grey in GREYS])
    assert np.mean(~outcome.correct) == pytest.approx(share)
    result = verdict(outcome, rule)
    assert result.verdict == "fail"
    assert f"brightness +{step / 100:.2f} is enough: {100 * share:.1f} % of the predictions change" in (
        result.findings[0].message
    )


def test_where_nothing_breaks_the_rule_the_worst_is_told(tmp_path):
    rule = Stability(max=0.0, transformations={"brightness": 0.05, "gamma": 0.02})
    outcome = searched(Bright(), flat(GREYS), rule, tmp_path)
    result = verdict(outcome, rule)
    assert (result.verdict, outcome.details["breaks"]) == ("pass", False)
    assert "none of" in result.findings[0].message
    allowed = Stability(max=0.5, transformations={"brightness": 0.12})
    outcome = searched(Bright(), flat(GREYS), allowed, tmp_path)
    share = np.mean([round(grey + 255 * 0.12) > 127.5 for grey in GREYS])
    message = verdict(outcome, allowed).findings[0].message
    assert 0 < share <= 0.5
    assert f"the most is {100 * share:.1f} % of the predictions change" in message
    assert "under brightness +0.12" in message


def test_two_that_are_harmless_alone_are_found_together(tmp_path):
    # Above one half from 0.4: brightness gives 0.06 at most, gamma 0.5 gives 0.63 - 0.4 at most a fifth of it.
    rule = Stability(max=0.1, transformations={"brightness": 0.06, "gamma": 0.06}, examples=200)
    greys = [108] * 50  # 0.4235; brightness to 0.48, gamma 0.94 to 0.446, together just above 0.5
    outcome = searched(Bright(), flat(greys), rule, tmp_path)
    assert not outcome.details["alone"]
    together = (108 / 255 + 0.06) ** 0.94
    assert outcome.details["breaks"] == (round(255 * together) > 127.5)
    assert outcome.details["breaks"]
    assert outcome.details["steps"].keys() == {"brightness", "gamma"}
    assert verdict(outcome, rule).verdict == "fail"


def test_a_model_that_looks_at_a_corner_breaks_by_a_shift_of_one_pixel(tmp_path):
    images = np.zeros((20, 8, 8, 3), np.uint8)
    images[:, 0, 0] = 255
    samples = Samples(
        images=images, labels=np.zeros(20, np.int64), classes=("a", "b"), names=tuple(map(str, range(20)))
    )
    outcome = searched(Upright(), samples, Stability(max=0.1, transformations={"shift": 3}), tmp_path)
    assert [sorted(map(abs, steps)) for steps in outcome.details["steps"].values()] == [[0, 1]]
    assert not outcome.correct.any()


def test_the_changed_images_are_kept_as_they_were_shown(tmp_path):
    rule = Stability(max=0.08, transformations={"brightness": 0.3})
    outcome = searched(Bright(), flat(GREYS), rule, tmp_path)
    rows = np.flatnonzero(outcome.examples >= 0)
    assert np.array_equal(rows, np.flatnonzero(~outcome.correct))
    kept = read(tmp_path, outcome.examples[rows])
    step = enough(0.08)
    expected = np.round(np.array(GREYS)[rows] + 255 * step / 100) / 255
    assert np.allclose(kept[:, 0, 0, 0], expected, atol=1e-6)


def test_the_same_search_again_finds_the_same_and_asks_nothing_twice(tmp_path):
    rule = Stability(max=0.08, transformations={"brightness": 0.2, "gamma": 0.5, "shift": 2})
    outcomes, seen = [], []

    class Recorded(Bright):
        def forward(self, images):
            seen.append(images.sum().item())
            return super().forward(images)

    for _ in range(2):
        seen.clear()
        outcomes.append(searched(Recorded(), flat(GREYS), rule, tmp_path))
        assert len(seen) == 1 + outcomes[-1].details["tried"]
    assert outcomes[0].details == outcomes[1].details
    assert outcomes[0].details["alone"].keys() == {"brightness", "gamma"}
    assert outcomes[0].details["alone"]["gamma"]["told"] == f"gamma {1 - mildest_gamma(0.08) / 100:.2f}"


def mildest_gamma(allowed):
    """The fewest hundredths below 1 at which more than `allowed` of the greys cross one half."""
    for step in range(1, 100):
        if np.mean([round(255 * (grey / 255) ** (1 - step / 100)) > 127.5 for grey in GREYS]) > allowed:
            return step
    raise AssertionError


def test_the_samples_asked_about_are_the_same_for_all_and_in_order():
    samples = flat(range(50))
    first, again, other = chosen(samples, 20, 1), chosen(samples, 20, 1), chosen(samples, 20, 2)
    assert first.names == again.names != other.names
    assert len(first) == 20
    assert list(first.images[:][:, 0, 0, 0]) == sorted(first.images[:][:, 0, 0, 0])
    assert len(chosen(samples, 99, 1)) == 50
