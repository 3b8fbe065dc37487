"""Rules on outcomes against closed forms: what each figure is, what it needs, and when it has no value."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from tabled_shares import BENCHMARK, CLEAN, TabledShares, cell, domain

from robustgate.core.benchmark import BENCHMARK_CORRUPTIONS
from robustgate.core.components import Bound
from robustgate.rules.agreement import Agreement
from robustgate.rules.effective_robustness import EffectiveRobustness, expected, fit_line
from robustgate.rules.mce import Mce, corruption_errors
from robustgate.rules.mce_alexnet import ALEXNET_ERRORS, MceAlexnet, alexnet_corruption_errors
from robustgate.rules.mean_corruption_accuracy import MeanCorruptionAccuracy
from robustgate.rules.relative_mce import RelativeMce
from robustgate.rules.relative_robustness import RelativeRobustness
from robustgate.rules.retention import Retention
from robustgate.rules.worst_class import WorstClass
from robustgate.rules.worst_corruption import WorstCorruption
from robustgate.rules.worst_domain import WorstDomain

FOG1, FOG5, SNOW1, SNOW5 = cell("fog", 1), cell("fog", 5), cell("snow", 1), cell("snow", 5)
FOUR = (FOG1, FOG5, SNOW1, SNOW5)
WEBCAM, DSLR = domain("webcam"), domain("dslr")
OURS = {CLEAN: 0.9, FOG1: 0.8, FOG5: 0.6, SNOW1: 0.7, SNOW5: 0.5, WEBCAM: 0.6, DSLR: 0.4}
THEIRS = {CLEAN: 0.95, FOG1: 0.85, FOG5: 0.75, SNOW1: 0.8, SNOW5: 0.6, WEBCAM: 0.65, DSLR: 0.65}
SHARES = TabledShares(ours=OURS, theirs=THEIRS)
PLAN = (CLEAN, WEBCAM, DSLR, *FOUR)


def figures(rule: Any, shares: TabledShares = SHARES, planned: tuple[Any, ...] = PLAN) -> list[float]:
    """Return a rule's figures of what was measured, over the shifts that it asks for itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rule.figures(shares, rule.needs(planned))
    assert len(found) == len(rule.bounds)
    assert all(figure.shape == (1,) for figure in found)
    return [float(figure[0]) for figure in found]


def test_the_mean_corruption_accuracy_is_the_plain_mean_over_cells() -> None:
    assert figures(MeanCorruptionAccuracy(min=0.6)) == pytest.approx([0.65])
    assert figures(MeanCorruptionAccuracy(max_drop=0.6)) == pytest.approx([0.1])
    both = MeanCorruptionAccuracy(min=0.6, max_drop=0.05)
    assert figures(both) == pytest.approx([0.65, 0.1])
    assert [(bound.kind, bound.limit) for bound in both.bounds] == [("min", 0.6), ("max_drop", 0.05)]
    assert (both.compares, MeanCorruptionAccuracy(max_drop=0.6).compares) == (False, True)


def test_mce_is_the_mean_of_ratios_of_sums() -> None:
    # Fog: (0.2 + 0.4) / (0.15 + 0.25); snow: (0.3 + 0.5) / (0.2 + 0.4). Not the mean of the four cells' ratios.
    rule = Mce(max=1.2, partial=True)
    assert figures(rule) == pytest.approx([(0.6 / 0.4 + 0.8 / 0.6) / 2])
    assert rule.bounds == (Bound(metric="mce_partial", kind="max", limit=1.2, unit=""),)
    whole = TabledShares(ours=dict.fromkeys(BENCHMARK, 0.7), theirs=dict.fromkeys(BENCHMARK, 0.8))
    assert figures(Mce(max=1.2), whole, BENCHMARK) == pytest.approx([1.5])
    assert Mce(max=1.2).bounds[0].metric == "mce"


def test_relative_mce_is_of_what_corruptions_add_and_never_stands_without_its_floor() -> None:
    # Fog adds 0.4 to two clean errors, and 0.3 to the reference's; snow 0.6 and 0.5.
    rule = RelativeMce(max=1.2, floor=0.6, partial=True)
    assert figures(rule) == pytest.approx([(0.4 / 0.3 + 0.6 / 0.5) / 2, 0.65])
    assert [(bound.metric, bound.kind, bound.key) for bound in rule.bounds] == [
        ("relative_mce_partial", "max", ""),
        ("mean_corruption_accuracy", "min", "floor"),
    ]
    assert RelativeMce(max=1.2, floor=0.6).bounds[0].metric == "relative_mce"


def test_collapse_looks_good_to_relative_mce_alone() -> None:
    ours = {CLEAN: 0.2, FOG1: 0.2, FOG5: 0.1, SNOW1: 0.2, SNOW5: 0.1}
    relative, held = figures(RelativeMce(max=1.0, floor=0.6, partial=True), TabledShares(ours=ours, theirs=THEIRS))
    assert relative < 0.5
    assert held < 0.2


@pytest.mark.parametrize("rule", [Mce(max=1.0), RelativeMce(max=1.0, floor=0.5), MceAlexnet(max=1.0)])
def test_a_part_of_the_benchmark_is_refused_unless_it_is_asked_for(rule: Any) -> None:
    name = rule.bounds[0].metric
    with pytest.raises(ValueError, match=f"^{name} is defined over the 15 corruptions .* partial = true") as caught:
        rule.needs(PLAN)
    assert "the plan lacks the corruptions brightness," in str(caught.value)
    assert "and the severities 2, 3, 4;" in str(caught.value)
    some = tuple(shift for shift in BENCHMARK if shift.severity != 2)
    with pytest.raises(ValueError, match="the plan lacks the severities 2; partial"):
        rule.needs((CLEAN, *some))
    extra = cell("spatter", 3)
    needed = rule.needs((CLEAN, *BENCHMARK, extra))
    assert set(needed) - {CLEAN} == set(BENCHMARK)
    partial = type(rule)(**{**vars(rule), "partial": True})
    assert set(partial.needs((*PLAN, extra))) - {CLEAN} == set(FOUR)
    assert partial.bounds[0].metric == f"{name}_partial"
    with pytest.raises(ValueError, match=r"it needs corruptions of the benchmark, and shifts\.corruptions names none"):
        partial.needs((CLEAN, extra))


def test_alexnet_against_itself_is_one() -> None:
    assert tuple(ALEXNET_ERRORS) == BENCHMARK_CORRUPTIONS
    assert sum(ALEXNET_ERRORS.values()) / 15 == pytest.approx(0.7890, abs=5e-5)
    spread = np.array([-0.1, -0.05, 0.0, 0.05, 0.1])
    errors = np.array(list(ALEXNET_ERRORS.values()))[:, None] + spread
    assert alexnet_corruption_errors(errors, BENCHMARK_CORRUPTIONS) == pytest.approx(np.ones(15))
    # Each corruption's error, not the errors' sum, is set against AlexNet's: the mean is of ratios.
    halved = errors.copy()
    halved[9:12] /= 2
    assert alexnet_corruption_errors(halved, BENCHMARK_CORRUPTIONS).mean() == pytest.approx((12 + 3 / 2) / 15)
    held = {shift: 1 - error for shift, error in zip(BENCHMARK, halved.ravel(), strict=True)}
    rule = MceAlexnet(max=0.8)
    assert figures(rule, TabledShares(ours=held), BENCHMARK) == pytest.approx([0.9])
    assert (rule.compares, rule.bounds[0].metric) == (False, "mce_alexnet")


def test_alexnet_over_a_part_names_its_own_corruptions() -> None:
    ours = {FOG1: 1 - 0.819324, FOG5: 1 - 0.819324, SNOW1: 1 - 0.866816 / 2, SNOW5: 1 - 0.866816 / 2}
    assert figures(MceAlexnet(max=0.8, partial=True), TabledShares(ours=ours), FOUR) == pytest.approx([0.75])


def test_retention_is_a_share_of_the_clean_accuracy_beside_its_floor() -> None:
    assert figures(Retention(min=0.7, floor=0.5)) == pytest.approx([0.65 / 0.9, 0.65])
    over_domains = Retention(min=0.7, floor=0.5, over="domains")
    assert figures(over_domains) == pytest.approx([0.5 / 0.9, 0.5])
    assert [bound.metric for bound in over_domains.bounds] == ["retention", "mean_domain_accuracy"]


def test_relative_robustness_is_the_gain_over_the_reference() -> None:
    assert figures(RelativeRobustness(min=0.0)) == pytest.approx([-0.1])
    assert figures(RelativeRobustness(min=0.0, over="domains")) == pytest.approx([-0.15])


def test_effective_robustness_is_what_a_line_does_not_explain() -> None:
    # logit(0.9) = log 9; by a line of slope 1/2 and intercept log 2 it becomes log 6, and 6/7 is expected.
    rule = EffectiveRobustness(min=0.0, slope=0.5, intercept=float(np.log(2)))
    assert figures(rule) == pytest.approx([0.65 - 6 / 7])
    assert rule.standards == 0
    assert expected(np.array([0.0, 0.5, 1.0]), 1.0, 0.0) == pytest.approx([0, 0.5, 1])


def test_a_line_is_fitted_to_the_references_that_lie_on_it() -> None:
    def logit(share: np.ndarray) -> np.ndarray:
        return np.log(share / (1 - share))

    clean = np.array([0.7, 0.8, 0.9, 0.95])
    shifted = 1 / (1 + np.exp(-(0.7 * logit(clean) - 0.9)))
    assert fit_line(clean, shifted) == pytest.approx((0.7, -0.9))
    rule = EffectiveRobustness(min=0.0)
    assert rule.standards == 3
    shares = TabledShares(ours=OURS, others={CLEAN: clean, **dict.fromkeys(FOUR, shifted)})
    beta = 1 / (1 + np.exp(-(0.7 * np.log(9) - 0.9)))
    assert figures(rule, shares) == pytest.approx([0.65 - beta])
    assert rule.remark(shares, rule.needs(PLAN)) == "by a line of slope 0.7 and intercept -0.9 between logits"


@pytest.mark.parametrize(
    ("clean", "shifted"),
    [([0.8, 0.8, 0.9], [0.5, 0.6, 0.7]), ([0.7, 0.8, 1.0], [0.5, 0.6, 0.7]), ([0.7, 0.8, 0.9], [0.0, 0.6, 0.7])],
)
def test_no_line_is_fitted_to_too_few_or_to_what_has_no_logit(clean: list[float], shifted: list[float]) -> None:
    shares = TabledShares(ours=OURS, others={CLEAN: clean, WEBCAM: shifted})
    assert np.isnan(figures(EffectiveRobustness(min=0.0, over="domains"), shares, (CLEAN, WEBCAM))).all()
    assert "3 uncompressed models" in EffectiveRobustness.undefined


def test_the_worst_is_named() -> None:
    corruption, target = WorstCorruption(min=0.5), WorstDomain(min=0.5)
    assert figures(corruption) == pytest.approx([0.6])
    assert corruption.remark(SHARES, FOUR) == "the worst is snow"
    assert figures(target) == pytest.approx([0.4])
    assert target.remark(SHARES, (WEBCAM, DSLR)) == "the worst is dslr"
    sized = TabledShares(ours=OURS, numbers={WEBCAM: [10, 10], DSLR: [3, 2]})
    assert target.counts(sized, (WEBCAM, DSLR)) == ((12, 20), (2, 5))


def test_the_worst_class_is_that_of_the_mean_over_shifts_and_passes_over_empty_ones() -> None:
    classwise = {CLEAN: [0.9, 0.5, np.nan], WEBCAM: [0.2, 0.9, 0.0], DSLR: [0.6, 0.3, np.nan]}
    shares = TabledShares(ours=OURS, classwise=classwise, numbers={CLEAN: [10, 4, 0]})
    rule = WorstClass(min=0.5)
    assert figures(rule, shares) == pytest.approx([0.5])
    assert rule.remark(shares, (CLEAN,)) == "the worst is dog"
    assert rule.counts(shares, (CLEAN,)) == ((9, 10), (2, 4))
    over_domains = WorstClass(min=0.5, over="domains")
    assert figures(over_domains, shares) == pytest.approx([0.4])
    assert over_domains.remark(shares, (WEBCAM, DSLR)) == "the worst is cat"
    assert over_domains.counts(shares, (WEBCAM, DSLR)) == ()


def test_agreement_says_in_which_direction_predictions_change() -> None:
    apart = {CLEAN: [0.05, 0.02, 0.01], WEBCAM: [0.1, 0.1, 0.2], DSLR: [0.3, 0.0, 0.0]}
    shares = TabledShares(ours=OURS, apart=apart, numbers={CLEAN: [50, 50]})
    rule = Agreement(min=0.97)
    assert figures(rule, shares) == pytest.approx([0.92])
    assert rule.remark(shares, (CLEAN,)) == "right→wrong 5.0 %, wrong→right 2.0 %, wrong→other wrong 1.0 %"
    assert rule.counts(shares, (CLEAN,)) == ((92, 100),)
    assert figures(Agreement(min=0.9, over="domains"), shares) == pytest.approx([0.65])


def test_what_divides_by_zero_has_no_value_and_says_why() -> None:
    perfect = TabledShares(ours=OURS, theirs={**THEIRS, FOG1: 1.0, FOG5: 1.0})
    assert np.isnan(figures(Mce(max=1.0, partial=True), perfect)).all()
    assert Mce.undefined == "the reference makes no error at any severity of a corruption"
    # Three tenths less a tenth and a fifth are not quite zero in binary.
    level = TabledShares(ours=OURS, theirs={**THEIRS, CLEAN: 0.7, FOG1: 0.8, FOG5: 0.6})
    relative, held = figures(RelativeMce(max=1.0, floor=0.5, partial=True), level)
    assert np.isnan(relative)
    assert held == pytest.approx(0.65)
    nothing = TabledShares(ours={**OURS, CLEAN: 0.0})
    assert np.isnan(figures(Retention(min=0.5, floor=0.5), nothing)[0])
    assert "no clean image" in Retention.undefined


def test_figures_are_taken_of_every_resample_at_once() -> None:
    draws = np.random.default_rng(0)
    ours, theirs = ({shift: draws.uniform(0.2, 0.8, 7) for shift in PLAN} for _ in range(2))
    apart = {CLEAN: draws.uniform(0, 0.3, (7, 3))}
    together = TabledShares(ours=ours, theirs=theirs, apart=apart)
    rules = [
        MeanCorruptionAccuracy(min=0.5, max_drop=0.1),
        Mce(max=1.0, partial=True),
        MceAlexnet(max=1.0, partial=True),
        RelativeRobustness(min=0.0),
        Retention(min=0.5, floor=0.5),
        EffectiveRobustness(min=0.0, slope=0.7, intercept=-0.9),
        WorstCorruption(min=0.5),
        WorstDomain(min=0.5),
        Agreement(min=0.5),
    ]
    for rule in rules:
        found = np.array(rule.figures(together, rule.needs(PLAN)))
        for row in range(7):
            one = TabledShares(
                ours={shift: values[row] for shift, values in ours.items()},
                theirs={shift: values[row] for shift, values in theirs.items()},
                apart={CLEAN: apart[CLEAN][row]},
            )
            assert found[:, row] == pytest.approx(figures(rule, one), nan_ok=True)


def test_corruption_errors_of_many_networks_at_once() -> None:
    errors, base = np.random.default_rng(1).uniform(0.1, 0.9, (2, 4, 3, 5))
    for row in range(4):
        assert corruption_errors(errors, base)[row] == pytest.approx(errors[row].sum(axis=1) / base[row].sum(axis=1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MeanCorruptionAccuracy(), "needs a limit: min, max_drop or both"),
        (lambda: MeanCorruptionAccuracy(min=60), r"min must be a fraction in \[0, 1\], got 60"),
        (lambda: Mce(max=105), "max must be a ratio above 0, 1.0 being that of the base itself, got 105"),
        (lambda: MceAlexnet(max=0), "max must be a ratio above 0"),
        (lambda: RelativeMce(max=1.0, floor=60), r"floor must be a fraction in \[0, 1\], got 60"),
        (lambda: RelativeRobustness(min=-2), r"min must be a fraction in \[-1, 1\], got -2"),
        (lambda: EffectiveRobustness(min=0.0, slope=1.0), "a line needs both slope and intercept, or neither"),
        (lambda: WorstDomain(min=50), r"min must be a fraction in \[0, 1\], got 50"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("rule", "missing"),
    [
        (MeanCorruptionAccuracy(min=0.5), r"corruptions, and shifts\.corruptions names none"),
        (WorstCorruption(min=0.5), r"corruptions, and shifts\.corruptions names none"),
        (WorstDomain(min=0.5), r"a domain pair from this source, and shifts\.pairs has none"),
        (Retention(min=0.5, floor=0.5, over="domains"), "a domain pair from this source"),
    ],
)
def test_what_the_plan_lacks_is_told(rule: Any, missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        rule.needs((CLEAN,))
