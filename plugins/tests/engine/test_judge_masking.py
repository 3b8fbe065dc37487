"""The judgement of masking cases from planted counts: each check alone decides, at its limit and beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest

from robustgate.config import CaseRule, Policy, Waiver
from robustgate.core.records import MASKED_SHARE, Case, CaseResult, Shift, Variant
from robustgate.engine.explain import explain
from robustgate.engine.judge import Counted
from robustgate.engine.judge_masking import CHECKS, judge_masking
from robustgate.statistics.paired import PairedCounts, drop_interval
from robustgate.statistics.proportion import clopper_pearson

TODAY = date(2026, 6, 15)
N = 100
CASE = Case(
    variant=Variant(model="net", source="amazon", compression="fp60"),
    shift=Shift(kind="masking", name="linf", norm="linf", eps=0.0235, detail="linf, eps 0.0235"),
)
SHARES = ("unbounded budget", "zero gradient")


def details(n: int = N) -> dict[str, Any]:
    """What the measuring tells where no sample speaks of masking; through JSON, as it is kept."""
    return json.loads(json.dumps({"checks": {name: {"n": n, "lost": 0, "gained": 0} for name in CHECKS}}))


def judge(
    found: dict[str, Any],
    *rules: CaseRule,
    waivers: tuple[Waiver, ...] = (),
    confidence: float = 0.95,
    n: int = N,
    **settings: Any,
) -> CaseResult:
    counted = Counted(correct=np.arange(n) < 47, labels=np.zeros(n, np.int64), classes=("cat",))
    policy = Policy(name="edge", case_rules=(), run_rules=(), waivers=waivers, confidence=confidence, **settings)
    return judge_masking(CASE, counted, found, 0.02, rules, policy, TODAY)


def failed(result: CaseResult) -> list[str]:
    return [finding.rule for finding in result.findings if finding.verdict != "pass"]


def planted(name: str, lost: int, gained: int = 0, n: int = N) -> dict[str, Any]:
    found = details(n)
    found["checks"][name] = {"n": n, "lost": lost, "gained": gained}
    return found


def test_a_model_without_a_sign_passes_all_six() -> None:
    result = judge(details())
    assert (result.verdict, failed(result), len(result.findings)) == ("pass", [], 6)
    assert [finding.rule for finding in result.findings] == [f"masking: {name}" for name in CHECKS]
    assert (result.value, result.n, result.correct, result.metric) == (0.47, N, 47, "standing share")
    assert (result.reference_value, result.drop) == (None, None)


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_alone_turns_at_its_limit(name: str) -> None:
    for lost, verdict in ((0, "pass"), (2, "pass"), (3, "fail"), (100, "fail")):
        result = judge(planted(name, lost))
        assert (result.verdict, failed(result)) == (verdict, [f"masking: {name}"] if verdict == "fail" else [])


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in SHARES])
def test_what_two_walks_disagree_on_both_ways_is_set_off(name: str) -> None:
    assert judge(planted(name, 30, 28)).verdict == "pass"
    assert judge(planted(name, 30, 27)).verdict == "fail"
    assert judge(planted(name, 0, 40)).verdict == "pass"


@pytest.mark.parametrize("n", [10, 50, 51, 1000])
def test_the_value_itself_decides_however_few_the_samples(n: int) -> None:
    # One sample of 50 is 2 %, one of 10 is 10 %: below 50 samples not one may speak of masking.
    allowed = int(0.02 * n)
    assert judge(planted("loss scale", allowed, n=n), n=n).verdict == "pass"
    assert judge(planted("loss scale", allowed + 1, n=n), n=n).verdict == "fail"


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_the_interval_is_the_paired_ones_or_that_of_a_share(confidence: float) -> None:
    for name in CHECKS:
        gained = 0 if name in SHARES else 5
        result = judge(planted(name, 12, gained), confidence=confidence)
        finding = next(one for one in result.findings if one.rule == f"masking: {name}")
        drop = drop_interval(PairedCounts(n=N, lost=12, gained=gained), confidence)
        expected = clopper_pearson(12, N, confidence) if name in SHARES else drop
        assert (finding.low, finding.high) == (expected.low, expected.high)
        assert finding.value == pytest.approx((12 - gained) / N)
        assert (finding.metric, finding.limit_kind, finding.limit) == (MASKED_SHARE, "max", 0.02)
        assert finding.subject == "net-fp60-amazon-linf"


def test_the_message_says_what_was_found_what_it_means_and_what_to_do() -> None:
    result = judge(planted("gradient-free", 34, 3))
    (finding,) = [one for one in result.findings if one.verdict == "fail"]
    assert finding.message.startswith("max 2.0 %; it is 31.0 [")
    assert (
        "an attack without gradients fells 34 of 100 samples that PGD leaves standing (3 the other way round). "
        "Do not trust this model's robust accuracy: the gradient misleads."
    ) in finding.message
    assert all("Do not trust" not in one.message for one in result.findings if one.verdict == "pass")
    assert "0 of 100 samples" in result.findings[0].message


def test_the_terminal_says_it_in_lines_that_a_person_can_read() -> None:
    result = replace(judge(planted("zero gradient", 97)), reproduce="pytest -k net-fp60-amazon-linf")
    lines = explain(result).splitlines()
    assert lines[0] == "net / fp60 / amazon checked for gradient masking (linf, eps 0.0235)"
    assert lines[1].startswith(
        "  47 of 100 images, all right without attack, stand under all attacks together: 47.0 % ["
    )
    assert lines[2].startswith(
        "  masking: zero gradient: max 2.0 %; it is 97.0 [91.5, 99.4]: the gradient of the cross"
    )
    assert lines[3:] == ["  pytest -k net-fp60-amazon-linf"]


@pytest.mark.parametrize(
    ("where", "until", "verdict"),
    [
        ({"kind": "masking"}, date(2026, 6, 15), "waived"),
        ({"kind": "masking"}, date(2026, 6, 14), "fail"),
        ({"kind": "adversarial"}, date(2026, 6, 15), "fail"),
        ({"compression": "fp60", "norm": "linf"}, date(2026, 6, 15), "waived"),
    ],
)
def test_waivers_hold_as_for_any_finding(where: dict[str, str], until: date, verdict: str) -> None:
    waiver = Waiver(where=where, until=until, reason="ticket 1")
    result = judge(planted("loss scale", 25), waivers=(waiver,))
    assert result.verdict == verdict
    line = explain(result).splitlines()[2]
    assert line.startswith("  waived: masking: loss scale: ") == (verdict == "waived")
    assert ("2026-06-14: ticket 1)" in line) == (until.day == 14)


def test_a_rule_that_names_masking_judges_the_share_that_stands() -> None:
    result = judge(details(), CaseRule(name="floor", where={"kind": "masking"}, min=0.9))
    assert (result.verdict, failed(result), len(result.findings)) == ("fail", ["floor"], 7)


@pytest.mark.parametrize("scope", ["test_set", "population"])
@pytest.mark.parametrize("early_stop", [False, "certain", "confident"])
def test_few_samples_stay_samples_whatever_the_scope(scope: Any, early_stop: Any) -> None:
    # 47 of the 100 that were chosen say nothing certain of the test set that they were chosen from.
    rule = CaseRule(name="floor", where={"kind": "masking"}, min=0.45)
    result = judge(details(), rule, scope=scope, early_stop=early_stop)
    expected = clopper_pearson(47, N, 0.95)
    assert result.verdict == "undecided"
    assert (result.low, result.high) == (expected.low, expected.high)
    assert (result.findings[0].low, result.findings[0].high) == (expected.low, expected.high)
    assert judge(planted("loss scale", 3), scope=scope, early_stop=early_stop, prove="bad").verdict == "fail"


def test_nothing_uncounted_is_judged() -> None:
    found = details()
    del found["checks"]["monotone"]
    with pytest.raises(ValueError, match="expected the checks"):
        judge(found)
    with pytest.raises(ValueError, match="expected the checks"):
        judge(details() | {"checks": {}})
    with pytest.raises(ValueError, match="counted on the 100 samples"):
        judge(planted("monotone", 0, n=99))
    with pytest.raises(KeyError):
        judge({})


def test_without_a_gradient_there_is_nothing_to_check() -> None:
    result = judge({"no_gradient": "no twin can be made of it"})
    assert (result.verdict, result.findings, result.value) == ("pass", (), 0.47)


def test_this_judge_knows_no_torch_either() -> None:
    probe = "import sys, robustgate.engine.judge_masking; print(sorted(sys.modules.keys() & {'torch', 'pytest'}))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
