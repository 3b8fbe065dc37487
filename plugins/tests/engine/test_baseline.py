"""The baseline against known answers: what it holds, what it is compared with, what it refuses."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustgate.config import CaseRule, Policy, Waiver
from robustgate.core.errors import BaselineError
from robustgate.core.records import Case, CaseResult, Finding, Results, RunRecord, Shift, Variant
from robustgate.engine.baseline import Baseline, Standards, unused
from robustgate.engine.judge import Counted, judge_case
from robustgate.engine.packed import pack, unpack
from robustgate.engine.revision import revisions
from robustgate.statistics.paired import PairedCounts, drop_interval

DATA, OTHER = "a1" * 32, "b2" * 32
CLEAN = Shift(kind="clean", name="clean")
PGD = Shift(kind="adversarial", name="pgd", attack="pgd", norm="linf", eps=0.02, detail="linf, eps 0.02, 4 steps")


def case_of(compression: str = "fp25", shift: Shift = CLEAN) -> Case:
    return Case(variant=Variant(model="tiny", source="day", compression=compression), shift=shift)


def row(case: Case, right: np.ndarray, data: str = DATA, n_total: int | None = None) -> CaseResult:
    return replace(
        CaseResult.of(case, verdict="pass"),
        value=float(right.mean()),
        n=len(right),
        n_total=n_total or len(right),
        correct=int(right.sum()),
        data=data,
        right=pack(right),
    )


def results(*rows: CaseResult, seed: int = 0) -> Results:
    run = RunRecord(
        id="20260101T000000",
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        seed=seed,
        device="cpu",
        processor="x86_64",
        policy="edge",
        confidence=0.99,
        policies=(),
        versions={"python": "3.12", "robustgate": "0.2", "torch": "2.9", "numpy": "2.0"},
        config="robustgate.toml",
        config_sha256="c3" * 32,
        planned=len(rows),
        selected=len(rows),
        measured=len(rows),
        complete=True,
        verdict="pass",
    )
    return Results(run=run, variants=(), cases=rows, findings=())


def drawn(count: int, wrong: int, seed: int = 0) -> np.ndarray:
    right = np.ones(count, np.bool_)
    right[np.random.default_rng(seed).permutation(count)[:wrong]] = False
    return right


def planned(*cases: Case) -> set[tuple[str, str]]:
    return {(case.shift.kind, case.name) for case in cases}


@pytest.fixture
def accepted(tmp_path: Path) -> Path:
    """A baseline of two cases, clean and under attack, on 144 samples."""
    path = tmp_path / "robustgate-baseline.json"
    rows = row(case_of(), drawn(144, 10)), row(case_of(shift=PGD), drawn(144, 40, seed=1))
    Baseline.of(results(*rows)).write(path)
    return path


def refusal(path: Path, case: Case, data: str = DATA, seed: int = 0, plan: set[tuple[str, str]] | None = None) -> str:
    with pytest.raises(BaselineError) as caught:
        Standards(path, seed, planned(case) if plan is None else plan).of(case, data)
    return str(caught.value)


# The packing.


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_outcomes_survive_packing(outcomes: list[bool]) -> None:
    text = pack(np.array(outcomes))
    assert unpack(text, len(outcomes)).tolist() == outcomes
    for other in (len(outcomes) + 8, max(0, len(outcomes) - 8)):
        with pytest.raises(ValueError, match=r"^expected the outcomes of"):
            unpack(text, other)


def deflated(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("!", "got Only base64 data is allowed"),
        ("ü", "got string argument should contain only ASCII"),
        (base64.b64encode(b"plain").decode(), "got Error -3"),
        (pack(np.ones(9, np.bool_))[:8], "got 16 bits and no end there"),
        (deflated(b"\xff"), "got 8 bits"),
        (deflated(b"\xff" * 3), "got 24 bits"),
        (deflated(bytes(10**7)), "got 24 bits and no end there"),
        (deflated(b"\xff\xff"), "got bits behind the last of them"),
        (base64.b64encode(zlib.compress(b"\xff\x80") + b"more").decode(), "got 16 bits and no end there"),
    ],
)
def test_what_are_not_the_outcomes_of_nine_samples(text: str, got: str) -> None:
    expected = "expected the outcomes of 9 samples (a bit for each, deflated, in base64), "
    with pytest.raises(ValueError, match=f"^{re.escape(expected + got)}"):
        unpack(text, 9)


# What a case is compared with.


def test_an_identical_run_drops_nothing(accepted: Path) -> None:
    right = drawn(144, 10)
    standard = Standards(accepted, 0, planned(case_of())).of(case_of(), DATA)
    assert standard.tolist() == right.tolist()
    assert PairedCounts.of(standard, right) == PairedCounts(n=144, lost=0, gained=0)


def test_a_planted_regression_is_found_sample_by_sample(accepted: Path) -> None:
    worse = drawn(144, 10)
    worse[np.flatnonzero(worse)[:5]] = False
    standard = Standards(accepted, 0, planned(case_of())).of(case_of(), DATA)
    assert PairedCounts.of(standard, worse) == PairedCounts(n=144, lost=5, gained=0)


def test_no_file_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(tmp_path / "gone.json", case_of()) == (
        "no baseline at gone.json: accept one with `robustgate baseline accept robustgate-report/results.json`"
    )


def test_other_data_are_refused(accepted: Path) -> None:
    assert refusal(accepted, case_of(), data=OTHER) == (
        "the baseline, of run 20260101T000000, was measured on other data: expected b2b2b2b2..., got a1a1a1a1...; "
        "accept a new one"
    )


def test_data_that_differ_only_behind_what_is_shown_are_refused(accepted: Path) -> None:
    assert "was measured on other data" in refusal(accepted, case_of(), data=DATA[:-1] + "2")


def test_an_attack_of_another_budget_is_refused(accepted: Path) -> None:
    stronger = replace(PGD, eps=0.04, detail="linf, eps 0.04, 4 steps")
    assert (
        "was measured under another shift: expected linf, eps 0.04, 4 steps, got linf, eps 0.02, 4 steps; accept"
    ) in refusal(accepted, case_of(shift=stronger))


def test_the_draw_of_another_seed_is_refused(accepted: Path) -> None:
    assert "was measured in the order of another seed: expected 7, got 0; accept" in refusal(
        accepted, case_of(), seed=7
    )


def test_a_renamed_case_is_asked_about(accepted: Path) -> None:
    renamed = case_of("pruned")
    assert refusal(accepted, renamed, plan=planned(renamed, case_of(shift=PGD))) == (
        "the baseline, of run 20260101T000000, holds no case 'clean/tiny-pruned-day': was it renamed from "
        "'clean/tiny-fp25-day'? Accept a new one"
    )


def test_a_new_case_beside_the_planned_ones_is_no_renamed_one(accepted: Path) -> None:
    new = case_of("pruned")
    assert refusal(accepted, new, plan=planned(new, case_of(), case_of(shift=PGD))) == (
        "the baseline, of run 20260101T000000, holds no case 'clean/tiny-pruned-day': accept a new one"
    )


def test_of_several_that_went_the_nearest_is_named(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    Baseline.of(results(*(row(case_of(one), drawn(50, 5)) for one in ("fp25", "int8", "distilled")))).write(path)
    assert refusal(path, case_of("fp_25")).endswith(
        "holds no case 'clean/tiny-fp_25-day' (did you mean 'clean/tiny-fp25-day'?): accept a new one"
    )


def test_one_on_other_data_is_no_renamed_one(accepted: Path) -> None:
    assert "renamed" not in refusal(accepted, case_of("pruned"), data=OTHER)


def test_a_baseline_that_stopped_early_gives_what_it_drew(tmp_path: Path) -> None:
    path, right = tmp_path / "baseline.json", drawn(200, 20)
    Baseline.of(results(row(case_of(), right[:50], n_total=200))).write(path)
    assert Standards(path, 0, planned(case_of())).of(case_of(), DATA).tolist() == right[:50].tolist()


def test_what_is_no_longer_planned_is_told(accepted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(accepted.parent)
    one = results(row(case_of(), drawn(144, 10)))
    assert unused(accepted, one) == (
        "robustgate-baseline.json holds 1 case that is no longer planned, adversarial/tiny-fp25-day-pgd among them"
    )
    both = results(*one.cases, row(case_of(shift=PGD), drawn(144, 10)))
    assert unused(accepted, both) == ""
    assert unused(accepted.with_name("gone.json"), one) == ""
    accepted.write_text("{")
    assert "robustgate-baseline.json: expected a whole baseline, the file is damaged: " in unused(accepted, one)


# The file.


def test_a_baseline_is_read_back_as_it_was_written(accepted: Path) -> None:
    baseline = Baseline.load(accepted)
    text = accepted.read_bytes()
    baseline.write(accepted)
    assert accepted.read_bytes() == text
    assert baseline.run.versions == {"robustgate": "0.2", "torch": "2.9"}
    assert list(baseline.cases) == ["adversarial/tiny-fp25-day-pgd", "clean/tiny-fp25-day"]
    assert json.loads(text)["schema"] == "robustgate/baseline/1"


def test_a_case_is_a_line_whatever_the_order_of_the_run(accepted: Path, tmp_path: Path) -> None:
    rows = row(case_of(shift=PGD), drawn(144, 40, seed=1)), row(case_of(), drawn(144, 11))
    other = tmp_path / "other.json"
    Baseline.of(results(*rows)).write(other)
    before, after = accepted.read_text().splitlines(), other.read_text().splitlines()
    changed = [line for line, new in zip(before, after, strict=True) if line != new]
    assert len(changed) == 1
    assert changed[0].startswith('  "clean/tiny-fp25-day": {"data": ')


def test_masking_and_stability_are_not_kept_nor_what_was_not_measured() -> None:
    masking = case_of(shift=Shift(kind="masking", name="linf", norm="linf", eps=0.02, detail="linf, eps 0.02"))
    steady = case_of(shift=Shift(kind="stability", name="stability", detail="up to rotation 5"))
    left_out = CaseResult.of(case_of("int8"), verdict="incomplete", selected=False)
    rows = (replace(row(one, drawn(50, 5)), data=None, right=None) for one in (masking, steady))
    assert list(Baseline.of(results(*rows, left_out, row(case_of(), drawn(50, 5)))).cases) == ["clean/tiny-fp25-day"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"right": None}, "expected `data` and `right`, its outcomes, got none: the run is of an older robustgate"),
        ({"correct": 44}, "expected 44 right of the first 50 of 50 samples, got 45"),
        ({"n": 58}, "expected the outcomes of 58 samples"),
        ({"n_total": 49}, "expected 45 right of the first 50 of 49 samples"),
    ],
)
def test_a_damaged_row_is_not_accepted(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BaselineError) as caught:
        Baseline.of(results(replace(row(case_of(), drawn(50, 5)), **changes)))
    assert str(caught.value).startswith("cases: clean/tiny-fp25-day: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"schema": "robustgate/baseline/1"', '"schema": "robustgate/baseline/2"', "schema: expected 'robustgate/base"),
        ('"schema": "robustgate/baseline/1",', "", "schema: expected 'robustgate/baseline/1', got None"),
        ('"n": 144,', '"n": "144",', "cases: adversarial/tiny-fp25-day-pgd: n: Input should be a valid integer, got"),
        ('"n": 144,', '"n": 136,', "expected the outcomes of 136 samples"),
        ('"correct": 134', '"correct": 135', "clean/tiny-fp25-day: expected 135 right of the first 144 of 144 samples"),
        ('"seed": 0', '"sead": 0', "run: sead: Unexpected keyword argument, got 0"),
        ('"cases": {', '"cases": [', "the file is damaged"),
        (
            '"clean/tiny-fp25-day"',
            '"adversarial/tiny-fp25-day-pgd"',
            "key 'adversarial/tiny-fp25-day-pgd' stands twice",
        ),
        ('"right": "eN', '"right": "!!', "Only base64 data is allowed"),
        ('"cases"', "<<<<<<< HEAD", "the file is damaged"),
    ],
)
def test_a_damaged_file_says_where(accepted: Path, old: str, new: str, told: str) -> None:
    text = accepted.read_text()
    assert old in text
    accepted.write_text(text.replace(old, new, 1))
    message = refusal(accepted, case_of())
    assert message.startswith(str(accepted))
    assert told in message


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_baseline_at_all(accepted: Path, content: bytes) -> None:
    accepted.write_bytes(content)
    assert refusal(accepted, case_of()).startswith(f"{accepted}: ")


def test_three_hundred_cases_of_two_thousand_samples_stay_under_200_kb(tmp_path: Path) -> None:
    """At an accuracy of one half, where nothing can be deflated."""
    corruptions = [
        Shift(kind="corruption", name=f"gaussian_noise{index}_s3", corruption="gaussian_noise", severity=3)
        for index in range(300)
    ]
    rows = [
        row(case_of("filter_pruning_60", shift), drawn(2000, 1000, index)) for index, shift in enumerate(corruptions)
    ]
    path = tmp_path / "baseline.json"
    Baseline.of(results(*rows)).write(path)
    assert len(Baseline.load(path).cases) == 300
    assert path.stat().st_size < 200_000


# The judgement.


RULE = CaseRule(name="no worse", max_drop=0.01, max_drop_from="baseline")


def judged(right: np.ndarray, standard: np.ndarray | None, **settings: Any) -> Finding:
    """What the rule says of a case measured in full, against what a baseline holds of it."""
    counted = Counted(correct=right, labels=np.zeros(len(right), np.int64), classes=("only",))
    opponents = {} if standard is None else {"baseline": replace(counted, correct=standard)}
    policy = Policy(name="edge", case_rules=(RULE,), run_rules=(), **settings)
    result = judge_case(case_of(), counted, opponents, (RULE,), policy, date(2026, 1, 1), "there is none")
    assert result.verdict == result.findings[0].verdict
    return result.findings[0]


def test_an_identical_run_passes_and_a_regression_of_five_fails() -> None:
    right = drawn(144, 10)
    worse = right.copy()
    worse[np.flatnonzero(right)[:5]] = False
    same, dropped = judged(right, right), judged(worse, right)
    assert (same.value, same.low, same.high, same.verdict) == (0.0, 0.0, 0.0, "pass")
    assert (dropped.value, dropped.low, dropped.high, dropped.verdict) == (5 / 144, 5 / 144, 5 / 144, "fail")
    assert dropped.message == "max_drop 1.0 points; the drop from the baseline is 3.5"


def test_the_drop_from_a_baseline_is_paired_in_the_population_too() -> None:
    right = drawn(2000, 100)
    worse = right.copy()
    worse[np.flatnonzero(right)[:60]] = False
    dropped, interval = (
        judged(worse, right, scope="population"),
        drop_interval(PairedCounts(n=2000, lost=60, gained=0), 0.99, corrected=True),
    )
    assert (dropped.low, dropped.high, dropped.verdict) == (interval.low, interval.high, "fail")


def test_where_the_baseline_stopped_early_nothing_is_certain_of_the_rest() -> None:
    right = drawn(200, 20)
    found = judged(right, right[:50])
    assert (found.value, found.low, found.high, found.verdict) == (0.0, -150 / 200, 150 / 200, "undecided")
    assert found.message.endswith("is 0.0 [-75.0, 75.0] on the first 50 samples, all that the baseline holds")


def test_without_a_baseline_no_policy_lets_a_case_pass() -> None:
    waiver = Waiver(where={"kind": "clean"}, until=date(2999, 1, 1), reason="later")
    for settings in ({}, {"on_undecided": "pass"}, {"prove": "bad"}, {"waivers": (waiver,)}):
        found = judged(drawn(144, 10), None, **settings)
        assert (found.verdict, found.value, found.low, found.high) == ("incomplete", None, None, None)
        assert (found.against, found.waiver) == ("baseline", None)
        assert found.message == "max_drop 1.0 points from the baseline; there is none"


# What a new baseline changes.


def test_the_changes_between_two_baselines() -> None:
    right = drawn(144, 10)
    worse, unclear = right.copy(), right.copy()
    worse[np.flatnonzero(right)[:12]] = False
    unclear[np.flatnonzero(right)[:1]] = False
    names = ("same", "worse", "better", "unclear", "gone", "moved")
    before = {name: row(case_of(name), worse if name == "better" else right) for name in names}
    after = dict(before) | {
        "worse": row(case_of("worse"), worse),
        "better": row(case_of("better"), right),
        "unclear": row(case_of("unclear"), unclear),
        "moved": row(case_of("moved"), right, data=OTHER),
        "new": row(case_of("new"), right),
    }
    del after["gone"]
    old, new = (Baseline.of(results(*rows.values())) for rows in (before, after))
    found = {one.name.split("-")[1]: one for one in revisions(old, new)}
    assert {name: one.change for name, one in found.items()} == {
        "same": "same",
        "worse": "worse",
        "better": "better",
        "unclear": "unclear",
        "gone": "gone",
        "moved": "incomparable",
        "new": "new",
    }
    drop = drop_interval(PairedCounts(n=144, lost=12, gained=0), 0.99, corrected=True)
    assert found["worse"].told == (
        f"93.1 → 84.7 %, a drop of 8.3 [{100 * drop.low:.1f}, {100 * drop.high:.1f}] points on 144 samples"
    )
    assert {one.change for one in revisions(old, Baseline.of(results(*before.values(), seed=1)))} == {"incomparable"}


def test_a_case_that_stopped_early_is_compared_on_what_both_have() -> None:
    right = drawn(200, 20)
    old = Baseline.of(results(row(case_of(), right)))
    new = Baseline.of(results(row(case_of(), right[:50], n_total=200)))
    (one,) = revisions(old, new)
    assert (one.change, one.told[-len("on 50 samples") :]) == ("same", "on 50 samples")
