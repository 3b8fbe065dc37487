"""Names, patterns, and which verdict is worse."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict
from itertools import permutations
from typing import get_args

import pytest
from pydantic import TypeAdapter

from robustgate.core.records import (
    VERDICTS,
    WHERE_CASE,
    WHERE_VARIANT,
    Case,
    CaseResult,
    ClassAccuracy,
    Finding,
    Shift,
    Variant,
    Verdict,
    is_red,
    matches,
    worst,
)

VARIANT = Variant(model="resnet18", source="amazon", compression="fp60")
PGD = Shift(kind="adversarial", name="pgd", attack="pgd", norm="linf", eps=0.004, detail="linf, eps 0.004, 40 steps")
FOG = Shift(kind="corruption", name="fog_s3", corruption="fog", severity=3)
PAIR = Shift(kind="domain_shift", name="amazon_to_webcam", target="webcam")
CLEAN = Shift(kind="clean", name="clean")


@pytest.mark.parametrize(
    ("shift", "name", "phrase"),
    [
        (CLEAN, "resnet18-fp60-amazon", "on clean images"),
        (PAIR, "resnet18-fp60-amazon_to_webcam", "on webcam"),
        (FOG, "resnet18-fp60-amazon-fog_s3", "under fog, severity 3"),
        (PGD, "resnet18-fp60-amazon-pgd", "under pgd (linf, eps 0.004, 40 steps)"),
    ],
    ids=lambda value: value.kind if isinstance(value, Shift) else "",
)
def test_names_are_those_of_the_design(shift: Shift, name: str, phrase: str) -> None:
    assert Case(variant=VARIANT, shift=shift).name == name
    assert shift.phrase == phrase


def test_the_fields_of_a_case_are_those_that_it_has() -> None:
    own = {"model": "resnet18", "source": "amazon", "compression": "fp60"}
    assert Case(variant=VARIANT, shift=FOG).fields == {
        **own,
        "name": "resnet18-fp60-amazon-fog_s3",
        "kind": "corruption",
        "corruption": "fog",
        "severity": "3",
    }
    assert Case(variant=VARIANT, shift=CLEAN).fields.keys() == {"name", "kind", *own}
    assert VARIANT.fields == own


def test_a_where_may_name_every_field_and_no_other() -> None:
    cases = [Case(variant=VARIANT, shift=shift) for shift in (CLEAN, PAIR, FOG, PGD)]
    assert {key for case in cases for key in case.fields} == set(WHERE_CASE)
    assert VARIANT.fields.keys() == set(WHERE_VARIANT)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, True),
        ({"attack": "pgd"}, True),
        ({"attack": "*"}, True),
        ({"attack": "p?d"}, True),
        ({"attack": "[a-p]gd"}, True),
        ({"attack": "pg"}, False),
        ({"attack": "PGD"}, False),
        ({"attack": "*", "compression": "fp*"}, True),
        ({"attack": "*", "compression": "pt*"}, False),
        ({"corruption": "*"}, False),
        ({"no_such_field": "*"}, False),
    ],
    ids=str,
)
def test_every_pattern_must_match_its_field_and_the_field_must_be_there(where: dict[str, str], expected: bool) -> None:
    assert matches(where, Case(variant=VARIANT, shift=PGD).fields) is expected


def test_the_worst_verdict_is_the_last_of_the_ladder_in_any_order() -> None:
    assert VERDICTS == ("pass", "waived", "undecided", "incomplete", "fail", "error")
    assert set(VERDICTS) == set(get_args(Verdict))
    for one, other in permutations(VERDICTS, 2):
        expected = one if VERDICTS.index(one) > VERDICTS.index(other) else other
        assert worst([one, other]) == worst(iter([one, one, other])) == expected


def test_nothing_measured_is_never_green() -> None:
    assert worst([]) == "incomplete"
    assert worst(["pass"]) == "pass"


def test_a_row_without_figures_has_none() -> None:
    row = CaseResult.of(Case(variant=VARIANT, shift=PGD), verdict="error", message="NaN", selected=False)
    assert (row.name, row.shift) == ("resnet18-fp60-amazon-pgd", PGD)
    assert (row.model, row.source, row.compression) == ("resnet18", "amazon", "fp60")
    assert (row.verdict, row.message, row.selected) == ("error", "NaN", False)
    assert (row.value, row.n, row.findings) == (None, 0, ())


def test_records_survive_json_and_cannot_be_changed() -> None:
    finding = Finding(
        policy="edge",
        rule="r",
        subject="s",
        metric="accuracy",
        limit_kind="max_drop",
        limit=0.1,
        value=1 / 3,
        low=0.1 + 0.2,
        high=1e-300,
        verdict="fail",
        message="→",
    )
    row = CaseResult(
        **{**vars(CaseResult.of(Case(variant=VARIANT, shift=PGD), verdict="fail")), "findings": (finding,)}
        | {"most_lost": (ClassAccuracy(name="cat", n=3, reference=2 / 3, value=0.0),), "details": {"queries": 7}}
    )
    adapter = TypeAdapter(CaseResult)
    again = adapter.validate_json(adapter.dump_json(row))
    assert again == row
    assert asdict(again) == asdict(row)
    with pytest.raises(FrozenInstanceError):
        row.verdict = "pass"  # type: ignore[misc]


def test_what_fails_a_test_is_all_but_pass_and_waived_and_what_the_policy_lets_pass() -> None:
    assert [verdict for verdict in VERDICTS if is_red(verdict, "fail")] == ["undecided", "incomplete", "fail", "error"]
    assert [verdict for verdict in VERDICTS if is_red(verdict, "pass")] == ["incomplete", "fail", "error"]
