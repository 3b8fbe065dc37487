"""The judgement over all shifts: intervals clear limits, several bounds hold together, nothing unmeasured passes."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest

from robustgate.config import Policy, RunRule, Waiver
from robustgate.core.records import Finding, Shift, Variant
from robustgate.engine.judge_overall import judge_overall, unjudged
from robustgate.engine.shares import MeasuredShares, Predicted
from robustgate.rules.agreement import Agreement
from robustgate.rules.mce import Mce
from robustgate.rules.mean_corruption_accuracy import MeanCorruptionAccuracy
from robustgate.rules.retention import Retention
from robustgate.rules.worst_domain import WorstDomain
from robustgate.statistics.bootstrap import percentile_interval
from robustgate.statistics.proportion import clopper_pearson

TODAY = date(2026, 6, 15)
VARIANT = Variant(model="net", source="amazon", compression="fp60")
CLEAN = Shift(kind="clean", name="clean")
FOG = Shift(kind="corruption", name="fog_s1", corruption="fog", severity=1)
WEBCAM = Shift(kind="domain_shift", name="amazon_to_webcam", target="webcam")
DSLR = Shift(kind="domain_shift", name="amazon_to_dslr", target="dslr")
N = 1000


def outcomes(right: float, reference: float, n: int = N) -> Predicted:
    """The variant is right on the first share of the samples, its reference on the first share of its own."""
    rows = np.arange(n)
    ours, theirs = (np.where(rows < round(share * n), 0, 1) for share in (right, reference))
    return Predicted(labels=np.zeros(n, dtype=np.int64), predictions=ours, reference=theirs)


SHARES = MeasuredShares(
    classes=("a", "b"),
    predicted={
        CLEAN: outcomes(0.9, 0.95),
        FOG: outcomes(0.6, 0.7),
        WEBCAM: outcomes(0.5, 0.5, 200),
        DSLR: outcomes(0.4, 0.5, 50),
    },
    accuracies={},
    seed=0,
)


def judged(component: Any, shares: MeasuredShares = SHARES, *waivers: Waiver, **settings: Any) -> Finding:
    given = {"scope": "population", **settings}
    policy = Policy(name="edge", case_rules=(), run_rules=(), waivers=waivers, **given)
    shifts = component.needs(tuple(shares.predicted))
    return judge_overall(VARIANT, RunRule(name="keeps", component=component), shares, shifts, policy, TODAY)


@pytest.mark.parametrize(
    ("limit", "verdict"), [(0.5, "pass"), (0.6, "undecided"), (0.65, "fail"), (0.7, "fail"), (0.63, "undecided")]
)
def test_the_whole_interval_must_clear_a_floor(limit: float, verdict: str) -> None:
    finding = judged(MeanCorruptionAccuracy(min=limit))
    assert (finding.verdict, finding.value, finding.limit, finding.limit_kind) == (verdict, 0.6, limit, "min")
    assert (finding.rule, finding.subject, finding.metric) == ("keeps", VARIANT.name, "mean_corruption_accuracy")
    expected = percentile_interval(SHARES.right(FOG)[1:], 0.99)
    assert (finding.low, finding.high) == (expected.low, expected.high)
    assert finding.low == pytest.approx(0.6 - 2.576 * np.sqrt(0.24 / N), abs=0.004)


@pytest.mark.parametrize(("limit", "verdict"), [(1.6, "pass"), (4 / 3, "undecided"), (1.1, "fail")])
def test_the_whole_interval_must_stay_below_a_ceiling(limit: float, verdict: str) -> None:
    finding = judged(Mce(max=limit, partial=True))
    assert finding.verdict == verdict
    assert finding.value == pytest.approx(4 / 3)
    assert finding.metric == "mce_partial"
    assert finding.message.startswith(f"max {100 * limit:.1f}; the mce_partial is 133.3 [")
    assert finding.message.endswith("], on 1,000 images")


def test_pairing_narrows_a_ratio() -> None:
    # The 100 images that only the reference has right are all that the ratio varies by.
    finding = judged(MeanCorruptionAccuracy(max_drop=0.2))
    assert finding.value == pytest.approx(0.1)
    assert finding.high - finding.low < 2.2 * 2.576 * np.sqrt(0.1 * 0.9 / N)
    assert (finding.limit_kind, finding.against, finding.verdict) == ("max_drop", "reference", "pass")
    assert "max_drop 20.0 points; the drop of mean_corruption_accuracy is 10.0 points [" in finding.message


@pytest.mark.parametrize(
    ("component", "verdict"),
    [
        (Retention(min=0.5, floor=0.5), "pass"),
        (Retention(min=0.5, floor=0.7), "fail"),
        (Retention(min=0.8, floor=0.5), "fail"),
        (Retention(min=0.5, floor=0.6), "undecided"),
    ],
)
def test_both_bounds_must_hold_and_the_finding_tells_both(component: Retention, verdict: str) -> None:
    finding = judged(component)
    assert finding.verdict == verdict
    assert (finding.metric, finding.limit) == ("retention", component.min)
    assert finding.value == pytest.approx(2 / 3)
    assert f"min {100 * component.min:.1f} %; the retention is 66.7 % [" in finding.message
    assert f"floor {100 * component.floor:.1f} %; the mean_corruption_accuracy is 60.0 % [" in finding.message
    assert finding.message.endswith("on 1,000 images; all must hold")


def test_the_least_of_proportions_has_an_exact_interval_and_its_name() -> None:
    finding = judged(WorstDomain(min=0.2))
    assert finding.value == pytest.approx(0.4)
    assert finding.low == clopper_pearson(20, 50, 0.99).low
    # The other domain holds 50 %, and is known better: the least is no higher than that.
    assert finding.high == clopper_pearson(100, 200, 0.995).high < clopper_pearson(20, 50, 0.995).high
    assert finding.message.endswith("on 50 to 200 images; the worst is dslr")


def test_few_images_that_all_agree_prove_little() -> None:
    few = MeasuredShares(classes=("a", "b"), predicted={CLEAN: outcomes(0.9, 0.9, 20)}, accuracies={}, seed=0)
    finding = judged(Agreement(min=0.95), few)
    assert (finding.value, finding.high, finding.verdict) == (1.0, 1.0, "undecided")
    assert finding.low == clopper_pearson(20, 20, 0.99).low
    assert "right→wrong 0.0 %" in finding.message


@pytest.mark.parametrize(
    ("component", "value", "verdict", "told"),
    [
        (MeanCorruptionAccuracy(min=0.6), 0.6, "pass", "min 60.0 %; the mean_corruption_accuracy is 60.0 %"),
        (MeanCorruptionAccuracy(min=0.601), 0.6, "fail", "min 60.1 %; the mean_corruption_accuracy is 60.0 %"),
        (Mce(max=1.3, partial=True), 4 / 3, "fail", "max 130.0; the mce_partial is 133.3"),
        (Mce(max=1.4, partial=True), 4 / 3, "pass", "max 140.0; the mce_partial is 133.3"),
        (WorstDomain(min=0.4), 0.4, "pass", "min 40.0 %; the worst_domain is 40.0 %"),
        (WorstDomain(min=0.41), 0.4, "fail", "min 41.0 %; the worst_domain is 40.0 %"),
    ],
)
def test_on_the_test_set_a_figure_is_a_fact(component: Any, value: float, verdict: str, told: str) -> None:
    finding = judged(component, scope="test_set")
    assert (finding.value, finding.low, finding.high) == pytest.approx((value,) * 3)
    assert finding.low == finding.value == finding.high
    assert finding.verdict == verdict
    assert finding.message.startswith(f"{told}, on ")


def test_on_the_test_set_both_bounds_are_facts() -> None:
    finding = judged(Retention(min=0.8, floor=0.6), scope="test_set")
    assert finding.verdict == "fail"
    assert finding.message == (
        "min 80.0 %; the retention is 66.7 %; floor 60.0 %; the mean_corruption_accuracy is 60.0 %, on 1,000 images; "
        "all must hold"
    )
    assert judged(Retention(min=0.6, floor=0.6), scope="test_set").verdict == "pass"


def test_on_the_test_set_what_no_resample_could_bound_is_still_a_fact() -> None:
    nearly = MeasuredShares(classes=("a", "b"), predicted={FOG: outcomes(0.9, 0.999)}, accuracies={}, seed=0)
    finding = judged(Mce(max=1.0, partial=True), nearly, scope="test_set")
    assert (finding.verdict, finding.value) == ("fail", pytest.approx(100))


@pytest.mark.parametrize(
    ("prove", "verdict", "told"),
    [(None, "undecided", ""), ("good", "fail", ": not proven good"), ("bad", "pass", ": not proven bad")],
)
def test_what_is_not_proven_goes_against_whoever_had_to(prove: Any, verdict: str, told: str) -> None:
    finding = judged(MeanCorruptionAccuracy(min=0.6), prove=prove)
    assert finding.verdict == verdict
    assert finding.message.endswith(f", on 1,000 images{told}")
    assert judged(MeanCorruptionAccuracy(min=0.5), prove=prove).verdict == "pass"
    assert judged(MeanCorruptionAccuracy(min=0.7), prove=prove).verdict == "fail"


def test_a_stricter_confidence_widens_the_interval() -> None:
    rule = RunRule(name="keeps", component=MeanCorruptionAccuracy(min=0.565))
    policy = Policy(name="edge", case_rules=(), run_rules=(), scope="population", confidence=0.9)
    given = (VARIANT, rule, SHARES, (FOG,), policy, TODAY)
    own, strict = judge_overall(*given), judge_overall(*given, 0.99)
    assert own.verdict == "pass"
    assert strict.verdict == "undecided"
    expected = percentile_interval(SHARES.right(FOG)[1:], 0.99)
    assert (strict.low, strict.high) == (expected.low, expected.high)


def test_without_a_value_it_is_incomplete_and_no_waiver_covers_it() -> None:
    perfect = MeasuredShares(classes=("a", "b"), predicted={FOG: outcomes(0.9, 1.0)}, accuracies={}, seed=0)
    waiver = Waiver(where={"compression": "fp60"}, until=TODAY, reason="known")
    finding = judged(Mce(max=1.0, partial=True), perfect, waiver)
    assert (finding.verdict, finding.value, finding.low, finding.waiver) == ("incomplete", None, None, None)
    assert "mce_partial has no value: the reference makes no error at any severity" in finding.message


def test_without_an_interval_it_is_incomplete() -> None:
    # One error in a thousand images: a third of the resamples have none.
    nearly = MeasuredShares(classes=("a", "b"), predicted={FOG: outcomes(0.9, 0.999)}, accuracies={}, seed=0)
    finding = judged(Mce(max=1.0, partial=True), nearly)
    assert (finding.verdict, finding.low, finding.high) == ("incomplete", None, None)
    assert finding.value == pytest.approx(100)
    assert "has no interval: in resamples of so few images, the reference makes no error" in finding.message


def test_a_failing_rule_may_be_waived() -> None:
    waiver = Waiver(where={"compression": "fp60", "source": "amazon"}, until=TODAY, reason="retraining")
    finding = judged(MeanCorruptionAccuracy(min=0.9), SHARES, waiver)
    assert (finding.verdict, finding.waiver) == ("waived", "until 2026-06-15: retraining")


def test_what_could_not_be_measured_says_why() -> None:
    policy = Policy(name="edge", case_rules=(), run_rules=())
    finding = unjudged(VARIANT, RunRule(name="keeps", component=Mce(max=1.1)), policy, "no such file")
    assert (finding.verdict, finding.value, finding.metric) == ("incomplete", None, "mce")
    assert finding.message == "max 110.0; mce was not measured: no such file"


def test_the_same_seed_gives_the_same_finding() -> None:
    again = MeasuredShares(classes=SHARES.classes, predicted=SHARES.predicted, accuracies={}, seed=0)
    other = MeasuredShares(classes=SHARES.classes, predicted=SHARES.predicted, accuracies={}, seed=1)
    rule = Mce(max=1.3, partial=True)
    assert judged(rule) == judged(rule, again)
    assert judged(rule).low != judged(rule, other).low
