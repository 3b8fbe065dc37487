"""The judge against intervals computed elsewhere: every verdict at and beside the edge where it turns."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pytest
from scipy import stats

from robustgate.config import CaseRule, Policy, RunRule, Waiver
from robustgate.core.records import Case, CaseResult, ClassAccuracy, Finding, Shift, Variant, VariantRecord
from robustgate.engine.judge import Counted, judge_case, judge_variant
from robustgate.rules.size import Size
from robustgate.statistics.paired import PairedCounts, drop_interval
from robustgate.statistics.proportion import clopper_pearson

TODAY = date(2026, 6, 15)
PGD = Shift(kind="adversarial", name="pgd", attack="pgd", norm="linf", eps=0.004, detail="linf, eps 0.004")


def case_of(compression: str = "fp60", shift: Shift = PGD) -> Case:
    return Case(variant=Variant(model="net", source="amazon", compression=compression), shift=shift)


def counted(outcomes: list[bool] | np.ndarray, labels: list[int] | None = None) -> Counted:
    correct = np.asarray(outcomes, dtype=bool)
    return Counted(
        correct=correct,
        labels=np.zeros(len(correct), dtype=np.int64) if labels is None else np.array(labels),
        classes=("cat", "dog", "bird", "cow"),
    )


def right(correct: int, n: int) -> Counted:
    return counted(np.arange(n) < correct)


def policy_of(*waivers: Waiver, **settings: Any) -> Policy:
    given = {"confidence": 0.95, "scope": "population", **settings}
    return Policy(name="edge", case_rules=(), run_rules=(), waivers=waivers, **given)


ON_THE_TEST_SET = policy_of(scope="test_set")


def judge(
    found: Counted,
    *rules: CaseRule,
    policy: Policy | None = None,
    compression: str = "fp60",
    **opponents: Counted,
) -> CaseResult:
    return judge_case(case_of(compression), found, opponents, rules, policy or policy_of(), TODAY)


def floor(limit: float) -> CaseRule:
    return CaseRule(name="floor", min=limit)


def drop(limit: float, other: str = "reference") -> CaseRule:
    return CaseRule(name="holds", max_drop=limit, max_drop_from=other)  # type: ignore[arg-type]


def pair(n: int, lost: int, gained: int) -> tuple[Counted, Counted]:
    """Outcomes of a compressed model and of its reference with so many discordant samples."""
    reference, compressed = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    reference[:lost] = True
    compressed[lost : lost + gained] = True
    return counted(compressed), counted(reference)


# Floors.


@pytest.mark.parametrize("confidence", [0.9, 0.99])
@pytest.mark.parametrize("limit", [0.3, 0.5, 0.97])
def test_a_floor_is_two_exact_binomial_tests(limit: float, confidence: float) -> None:
    n, tail = 40, (1 - confidence) / 2
    verdicts = []
    for correct in range(n + 1):
        surely_above = stats.binomtest(correct, n, limit, alternative="greater").pvalue <= tail
        surely_below = stats.binomtest(correct, n, limit, alternative="less").pvalue < tail
        expected = "pass" if surely_above else "fail" if surely_below else "undecided"
        result = judge(right(correct, n), floor(limit), policy=policy_of(confidence=confidence))
        assert result.verdict == expected, correct
        verdicts.append(result.verdict)
    assert set(verdicts) == ({"pass", "fail", "undecided"} if limit < 0.9 else {"fail", "undecided"})


def test_a_floor_turns_exactly_at_the_ends_of_the_interval() -> None:
    interval = clopper_pearson(150, 200, 0.95)
    theirs = stats.binomtest(150, 200).proportion_ci(0.95, method="exact")
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    expected = {
        interval.low: "pass",
        math.nextafter(interval.low, 1): "undecided",
        interval.high: "undecided",
        math.nextafter(interval.high, 1): "fail",
    }
    for limit, verdict in expected.items():
        (finding,) = judge(right(150, 200), floor(limit)).findings
        assert (finding.verdict, finding.low, finding.high) == (verdict, interval.low, interval.high)
        assert (finding.value, finding.limit, finding.limit_kind, finding.against) == (0.75, limit, "min", None)


def test_the_message_of_a_floor_is_in_percent() -> None:
    (finding,) = judge(right(150, 200), floor(0.9)).findings
    theirs = stats.binomtest(150, 200).proportion_ci(0.95, method="exact")
    assert finding.message == (f"min 90.0 %; the accuracy is 75.0 [{100 * theirs.low:.1f}, {100 * theirs.high:.1f}]")
    assert finding.subject == "net-fp60-amazon-pgd"


# Drops.


@pytest.mark.parametrize(("n", "lost", "gained"), [(200, 30, 6), (2000, 190, 8), (50, 0, 0)])
def test_a_drop_turns_exactly_at_the_ends_of_the_interval(n: int, lost: int, gained: int) -> None:
    compressed, reference = pair(n, lost, gained)
    interval = drop_interval(PairedCounts(n=n, lost=lost, gained=gained), 0.95, corrected=True)
    expected = {interval.high: "pass", math.nextafter(interval.high, 0): "undecided"}
    if interval.low > 0:
        expected |= {interval.low: "undecided", math.nextafter(interval.low, 0): "fail"}
    for limit, verdict in expected.items():
        if 0 <= limit <= 1:
            result = judge(compressed, drop(limit), reference=reference)
            (finding,) = result.findings
            assert (finding.verdict, finding.value) == (verdict, (lost - gained) / n)
            assert (finding.low, finding.high) == (result.drop_low, result.drop_high) == (interval.low, interval.high)
            assert (finding.limit_kind, finding.against) == ("max_drop", "reference")


def test_a_drop_is_paired() -> None:
    # The same accuracies, 50 % and 40 %: on the same samples the drop is certain, on others it is not.
    reference = counted(np.arange(400) < 200)
    nested, scattered = counted(np.arange(400) < 160), counted(np.arange(400) >= 240)
    assert judge(nested, drop(0.05), reference=reference).verdict == "fail"
    assert judge(scattered, drop(0.05), reference=reference).verdict == "undecided"


def test_a_sure_gain_passes_even_where_nothing_may_be_lost() -> None:
    compressed, reference = pair(60, 3, 20)
    assert judge(compressed, drop(0.0), reference=reference).verdict == "pass"
    assert judge(reference, drop(0.0), reference=reference).verdict == "undecided"


def test_figures_of_the_pair_are_reported_without_any_rule_on_them() -> None:
    compressed, reference = pair(200, 30, 6)
    result = judge(compressed, reference=reference)
    assert (result.reference_value, result.value, result.drop) == (0.15, 0.03, 0.12)
    assert (result.n, result.n_total, result.correct) == (200, 200, 6)
    alone = judge(compressed, compression="none")
    assert (alone.reference_value, alone.drop, alone.drop_low, alone.most_lost) == (None, None, None, ())


def test_a_drop_from_the_control_does_not_look_at_the_reference() -> None:
    compressed, reference = pair(2000, 400, 0)
    result = judge(compressed, drop(0.05, "control"), reference=reference, control=compressed)
    assert result.verdict == "pass"
    (finding,) = result.findings
    assert (finding.against, finding.value) == ("control", 0.0)
    assert finding.message.startswith("max_drop 5.0 points; the drop from the control is 0.0 [")
    assert result.drop == 0.2, "the row tells the drop from the reference"
    assert judge(compressed, drop(0.05, "control"), reference=compressed, control=reference).verdict == "fail"


@pytest.mark.parametrize("opponent", ["reference", "control"])
def test_other_samples_are_refused(opponent: str) -> None:
    one, other = counted([True] * 4, [0, 1, 2, 3]), counted([True] * 4, [0, 1, 3, 2])
    with pytest.raises(ValueError, match="a drop is paired: both variants must be measured on the same samples"):
        judge(one, drop(0.1, opponent), **{opponent: other})
    with pytest.raises(ValueError, match="same samples"):
        judge(one, drop(0.1, opponent), **{opponent: counted([True] * 3, [0, 1, 2])})


def test_nothing_measured_is_never_judged() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        judge(counted([]), floor(0.1))


# On the test set itself.


@pytest.mark.parametrize("correct", [0, 1, 149, 150, 151, 200])
@pytest.mark.parametrize("early_stop", [False, "certain", "confident"])
def test_on_the_test_set_a_floor_is_a_fact(correct: int, early_stop: Any) -> None:
    policy = policy_of(scope="test_set", early_stop=early_stop)
    result = judge(right(correct, 200), floor(0.75), policy=policy)
    (finding,) = result.findings
    share = correct / 200
    assert (finding.value, finding.low, finding.high) == (share, share, share)
    assert (result.low, result.high) == (share, share)
    assert finding.verdict == ("pass" if correct >= 150 else "fail")
    assert finding.message == f"min 75.0 %; the accuracy is {100 * share:.1f}"


@pytest.mark.parametrize(("lost", "gained"), [(30, 6), (31, 6), (29, 6), (0, 0), (3, 20), (24, 0)])
def test_on_the_test_set_a_drop_is_a_fact(lost: int, gained: int) -> None:
    compressed, reference = pair(200, lost, gained)
    result = judge(compressed, drop(0.12), policy=ON_THE_TEST_SET, reference=reference)
    (finding,) = result.findings
    net = (lost - gained) / 200
    assert (finding.value, finding.low, finding.high) == (net, net, net)
    assert (result.drop, result.drop_low, result.drop_high) == (net, net, net)
    assert finding.verdict == ("pass" if lost - gained <= 24 else "fail")
    assert finding.message == f"max_drop 12.0 points; the drop is {100 * net:.1f}"


@pytest.mark.parametrize("n", [1, 3, 7, 30, 49, 281, 999])
def test_a_fact_equals_the_share_to_the_last_bit(n: int) -> None:
    # A limit that is the very figure is kept, and the next number beyond it is not.
    for correct in range(0, n + 1, max(1, n // 40)):
        share = correct / n
        assert judge(right(correct, n), floor(share), policy=ON_THE_TEST_SET).verdict == "pass"
        if share < 1:
            above = math.nextafter(share, 1)
            assert judge(right(correct, n), floor(above), policy=ON_THE_TEST_SET).verdict == "fail"
        compressed, reference = pair(n, correct, 0)
        assert judge(compressed, drop(share), policy=ON_THE_TEST_SET, reference=reference).verdict == "pass"
        if share > 0:
            below = math.nextafter(share, 0)
            assert judge(compressed, drop(below), policy=ON_THE_TEST_SET, reference=reference).verdict == "fail"


# Measured in part.


def part(counted: Counted, n: int, total: int) -> Counted:
    return Counted(correct=counted.correct[:n], labels=np.zeros(total, np.int64), classes=counted.classes)


def test_the_rest_of_a_test_set_decides_nothing_where_it_cannot_turn_the_verdict() -> None:
    # 60 of the first 80 are right: of all 100 that makes 60 to 80.
    policy = policy_of(scope="test_set", early_stop="certain")
    found = part(right(60, 80), 80, 100)
    for limit, verdict in ((0.6, "pass"), (0.61, "undecided"), (0.8, "undecided"), (0.81, "fail")):
        (finding,) = judge(found, floor(limit), policy=policy).findings
        assert (finding.verdict, finding.low, finding.high, finding.value) == (verdict, 0.6, 0.8, 0.75)
        assert finding.message == f"min {100 * limit:.1f} %; the accuracy is 75.0 [60.0, 80.0]"


def test_a_short_baseline_leaves_open_what_it_does_not_hold() -> None:
    # 10 lost among the 80 samples that it holds: of all 100 that makes a drop of -10 to 30 points.
    compressed, reference = pair(80, 10, 0)
    whole = counted(np.append(compressed.correct, np.ones(20, dtype=bool)))
    standard = part(reference, 80, 100)
    for limit, verdict in ((0.3, "pass"), (0.29, "undecided"), (0.0, "undecided")):
        (finding,) = judge(whole, drop(limit, "baseline"), policy=ON_THE_TEST_SET, baseline=standard).findings
        assert (finding.verdict, finding.value, finding.low, finding.high) == (verdict, 0.125, -0.1, 0.3)
    assert finding.message == (
        "max_drop 0.0 points; the drop from the baseline is 12.5 [-10.0, 30.0] "
        "on the first 80 samples, all that the baseline holds"
    )


def test_a_row_in_part_tells_how_far_it_got() -> None:
    reference = part(right(80, 80), 80, 100)
    result = judge(part(right(60, 80), 80, 100), policy=policy_of(early_stop="certain"), reference=reference)
    assert (result.n, result.n_total, result.correct, result.value, result.drop) == (80, 100, 60, 0.75, 0.25)
    (loss,) = result.most_lost
    assert (loss.n, loss.reference, loss.value) == (80, 1.0, 0.75)


# Who must prove what.


@pytest.mark.parametrize(
    ("prove", "on_undecided", "verdict", "red"),
    [
        (None, "fail", "undecided", True),
        (None, "pass", "undecided", False),
        ("good", "fail", "fail", True),
        ("bad", "fail", "pass", False),
    ],
)
def test_what_is_not_proven_goes_against_whoever_had_to(prove: Any, on_undecided: Any, verdict: str, red: bool) -> None:
    policy = policy_of(prove=prove, on_undecided=on_undecided)
    result = judge(right(150, 200), floor(0.75), policy=policy)
    (finding,) = result.findings
    assert (finding.verdict, result.verdict, policy.is_red(finding.verdict)) == (verdict, verdict, red)
    assert finding.message.endswith("]" if prove is None else f"]: not proven {prove}")
    # What is proven stays proven, whoever had to.
    assert judge(right(199, 200), floor(0.75), policy=policy).verdict == "pass"
    assert judge(right(100, 200), floor(0.75), policy=policy).verdict == "fail"


@pytest.mark.parametrize("prove", ["good", "bad"])
def test_while_samples_are_to_come_nothing_is_concluded(prove: Any) -> None:
    policy = policy_of(prove=prove, early_stop="certain")
    assert judge(part(right(60, 80), 80, 100), floor(0.75), policy=policy).verdict == "undecided"


def test_a_waiver_covers_what_was_not_proven_good_and_is_not_spent_on_what_was_not_proven_bad() -> None:
    current = waiver(date(2026, 12, 31))
    for prove, verdict in (("good", "waived"), ("bad", "pass")):
        (finding,) = judge(right(150, 200), floor(0.75), policy=policy_of(current, prove=prove)).findings
        assert (finding.verdict, finding.waiver_index) == (verdict, 0 if prove == "good" else None)


def test_findings_may_be_judged_at_another_confidence_than_the_row() -> None:
    found = right(150, 200)
    result = judge_case(case_of(), found, {}, [floor(0.7)], policy_of(), TODAY, confidence=0.999)
    row, strict = clopper_pearson(150, 200, 0.95), clopper_pearson(150, 200, 0.999)
    assert (result.low, result.high) == (row.low, row.high)
    assert (result.findings[0].low, result.findings[0].high) == (strict.low, strict.high)


# Several rules, and none.


def test_no_rule_passes_without_a_finding() -> None:
    result = judge(right(0, 10))
    assert (result.verdict, result.findings, result.value) == ("pass", (), 0.0)


def test_one_rule_with_both_limits_gives_two_findings_and_the_worst_counts() -> None:
    compressed, reference = pair(2000, 400, 0)
    rule = CaseRule(name="both", min=0.0, max_drop=0.05)
    result = judge(compressed, rule, reference=reference)
    assert [(finding.limit_kind, finding.verdict) for finding in result.findings] == [
        ("min", "pass"),
        ("max_drop", "fail"),
    ]
    assert result.verdict == "fail"
    assert judge(right(75, 100), floor(0.1), floor(0.75)).verdict == "undecided"
    assert judge(right(75, 100), floor(0.75), floor(0.99)).verdict == "fail"


def test_a_drop_has_nothing_to_say_of_a_case_without_opponents() -> None:
    result = judge(right(60, 100), CaseRule(name="both", min=0.1, max_drop=0.05), compression="none")
    assert [finding.limit_kind for finding in result.findings] == ["min"]


@pytest.mark.parametrize(
    ("verdict", "by_default", "where_undecided_passes"),
    [
        ("pass", False, False),
        ("waived", False, False),
        ("undecided", True, False),
        ("fail", True, True),
        ("incomplete", True, True),
        ("error", True, True),
    ],
)
def test_what_is_red(verdict, by_default: bool, where_undecided_passes: bool) -> None:
    assert policy_of().is_red(verdict) is by_default
    assert policy_of(on_undecided="pass").is_red(verdict) is where_undecided_passes


# Waivers.


def waiver(until: date, reason: str = "ticket 1", **where: str) -> Waiver:
    return Waiver(where=where or {"compression": "fp60"}, until=until, reason=reason)


@pytest.mark.parametrize(
    ("until", "verdict", "note"),
    [
        (date(2026, 6, 16), "waived", "until 2026-06-16: ticket 1"),
        (TODAY, "waived", "until 2026-06-15: ticket 1"),
        (date(2026, 6, 14), "fail", "expired on 2026-06-14: ticket 1"),
    ],
    ids=["current", "its last day", "expired"],
)
def test_a_waiver_holds_until_its_day_has_passed(until: date, verdict: str, note: str) -> None:
    result = judge(right(10, 100), floor(0.9), policy=policy_of(waiver(until)))
    (finding,) = result.findings
    assert (result.verdict, finding.verdict, finding.waiver) == (verdict, verdict, note)


def test_a_waiver_covers_only_what_its_where_names() -> None:
    tomorrow = date(2026, 6, 16)
    for where, verdict in (
        ({"compression": "fp60", "attack": "pgd"}, "waived"),
        ({"compression": "fp60", "attack": "fgsm"}, "fail"),
        ({"compression": "fp60", "severity": "*"}, "fail"),
        ({"name": "net-fp60-*"}, "waived"),
    ):
        policy = policy_of(waiver(tomorrow, **where))
        assert judge(right(10, 100), floor(0.9), policy=policy).verdict == verdict, where


def test_a_renewed_waiver_counts_wherever_it_stands() -> None:
    old, new = waiver(date(2026, 1, 1), "ticket 1"), waiver(date(2026, 12, 31), "ticket 2")
    for waivers in ((old, new), (new, old)):
        (finding,) = judge(right(10, 100), floor(0.9), policy=policy_of(*waivers)).findings
        assert (finding.verdict, finding.waiver) == ("waived", "until 2026-12-31: ticket 2")


def test_a_waiver_leaves_alone_what_passes_and_covers_what_is_undecided() -> None:
    current = waiver(date(2026, 12, 31))
    (passed,) = judge(right(99, 100), floor(0.5), policy=policy_of(current)).findings
    assert (passed.verdict, passed.waiver) == ("pass", None)
    assert judge(right(50, 100), floor(0.5), policy=policy_of(current)).verdict == "waived"
    lenient = policy_of(current, on_undecided="pass")
    assert judge(right(50, 100), floor(0.5), policy=lenient).verdict == "undecided"


# The classes that lost most.


def test_the_two_classes_that_lost_the_largest_shares_are_named_worst_first() -> None:
    labels = [0] * 10 + [1] * 4 + [2] * 5
    reference = counted([True] * 19, labels)
    # cat loses 3 of 10, dog 2 of 4, bird 2 of 5, cow has no sample: shares, not counts, decide.
    lost = [0, 1, 2, 10, 11, 14, 15]
    result = judge(counted([index not in lost for index in range(19)], labels), reference=reference)
    assert result.most_lost == (
        ClassAccuracy(name="dog", n=4, reference=1.0, value=0.5),
        ClassAccuracy(name="bird", n=5, reference=1.0, value=0.6),
    )


def test_a_class_that_lost_nothing_is_not_named() -> None:
    labels = [0, 0, 1, 1, 2, 2]
    result = judge(
        counted([True, False, True, True, True, True], labels),
        reference=counted([True, True, True, True, False, False], labels),
    )
    assert [loss.name for loss in result.most_lost] == ["cat"]


# Rules on variants.


def record(size: int) -> VariantRecord:
    return VariantRecord(
        name="net-fp60-amazon",
        model="net",
        source="amazon",
        compression="fp60",
        format="torch",
        artifact_sha256="00",
        parameters=1,
        nonzero_parameters=1,
        size_bytes=size,
        deflated_bytes=1,
        seconds_to_build=0.0,
    )


@pytest.mark.parametrize(("size", "verdict"), [(2_999_999, "pass"), (3_000_000, "pass"), (3_000_001, "fail")])
def test_a_figure_of_a_variant_is_exact(size: int, verdict: str) -> None:
    rule = RunRule(name="fits", component=Size(max="3 MB"))
    (finding,) = judge_variant(record(size), record(9), [rule], policy_of(), TODAY)
    assert (finding.verdict, finding.value, finding.low, finding.high) == (verdict, size, size, size)
    assert (finding.subject, finding.metric, finding.limit_kind) == ("net-fp60-amazon", "size_bytes", "max")
    assert finding.limit == 3e6


@dataclass(frozen=True)
class Bounded:
    """A rule whose figure, the size, is known between two bounds."""

    limit_kind: str
    limit: float
    bounds: tuple[float, float] | None

    metric, measures = "things", None

    def value(self, record: VariantRecord, reference: VariantRecord) -> float | None:
        return None if self.bounds is None else record.size_bytes - reference.size_bytes

    def interval(self, record: VariantRecord, reference: VariantRecord) -> tuple[float, float] | None:
        return self.bounds

    def show(self, value: float) -> str:
        return f"{value:.0f} things"


def judged(component: Any, policy: Policy | None = None, unmeasured: str = "") -> Finding:
    rule = RunRule(name="kept", component=component)
    (finding,) = judge_variant(
        record(25), record(5), [rule], policy or policy_of(), TODAY, {component.measures: unmeasured}
    )
    return finding


@pytest.mark.parametrize(
    ("kind", "limit", "verdict"),
    [
        ("max", 25, "pass"),
        ("max", 24, "undecided"),
        ("max", 15, "undecided"),
        ("max", 14, "fail"),
        ("min", 15, "pass"),
        ("min", 16, "undecided"),
        ("min", 25, "undecided"),
        ("min", 26, "fail"),
    ],
)
def test_a_measured_figure_is_judged_by_its_whole_interval(kind: str, limit: float, verdict: str) -> None:
    finding = judged(Bounded(kind, limit, (15, 25)))
    assert (finding.verdict, finding.value, finding.low, finding.high) == (verdict, 20, 15, 25)
    assert finding.message == f"{kind} {limit} things; it is 20 things [15, 25]"


@pytest.mark.parametrize(("limit", "verdict"), [(19, "pass"), (20, "pass"), (21, "fail")])
def test_an_exact_figure_is_never_undecided(limit: float, verdict: str) -> None:
    finding = judged(Bounded("min", limit, (20, 20)))
    assert finding.verdict == verdict
    assert finding.message == f"min {limit} things; it is 20 things"


def test_a_figure_that_was_not_measured_is_incomplete_under_any_waiver() -> None:
    policy = policy_of(waiver(date(2026, 12, 31), compression="fp*"), on_undecided="pass")
    finding = judged(Bounded("max", 99, None), policy, "it takes Linux")
    assert (finding.verdict, finding.value, finding.low, finding.high) == ("incomplete", None, None, None)
    assert finding.message == "max 99 things; things was not measured: it takes Linux"
    assert policy.is_red(finding.verdict)
    assert judged(Bounded("max", 99, None)).message == "max 99 things; things was not measured"


def test_a_variant_can_be_waived_by_its_own_fields() -> None:
    rule = RunRule(name="fits", component=Size(max="1 B"))
    for where, verdict in (({"compression": "fp*"}, "waived"), ({"attack": "*"}, "fail"), ({"source": "w*"}, "fail")):
        policy = policy_of(waiver(date(2026, 12, 31), **where))
        (finding,) = judge_variant(record(2), record(9), [rule], policy, TODAY)
        assert finding.verdict == verdict, where


def test_the_judge_knows_neither_torch_nor_pytest() -> None:
    probe = (
        "import sys, robustgate.engine.judge, robustgate.engine.results, robustgate.engine.explain\n"
        "print(sorted(sys.modules.keys() & {'torch', 'pytest', 'onnx', 'PIL', 'sklearn'}))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
