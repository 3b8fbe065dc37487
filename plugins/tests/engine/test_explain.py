"""What a person reads whose case failed, to the letter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from robustgate.core.records import Case, CaseResult, ClassAccuracy, Finding, Shift, Variant
from robustgate.engine.explain import explain

PGD = Shift(
    kind="adversarial", name="pgd", attack="pgd", norm="linf", eps=0.004, detail="linf, eps 0.004, 40 steps"
)  # fmt: skip
BROKEN = Finding(
    policy="edge",
    rule="holds under attack",
    subject="resnet18-fp60-amazon-pgd",
    metric="accuracy",
    limit_kind="max_drop",
    limit=0.05,
    value=0.091,
    low=0.074,
    high=0.109,
    verdict="fail",
    against="reference",
    message="max_drop 5.0 points; the drop is 9.1 [7.4, 10.9]",
)
CASE = Case(variant=Variant(model="resnet18", source="amazon", compression="fp60"), shift=PGD)
FAILED = replace(
    CaseResult.of(CASE, verdict="fail"),
    value=0.412,
    low=0.396,
    high=0.428,
    n=2000,
    n_total=2000,
    correct=824,
    reference_value=0.503,
    findings=(BROKEN,),
    most_lost=(
        ClassAccuracy(name="cat", n=200, reference=0.5, value=0.21),
        ClassAccuracy(name="bird", n=200, reference=0.55, value=0.24),
    ),
    reproduce='pytest --pyargs robustness_tests --robustgate-config robustgate.toml -k "resnet18-fp60-amazon-pgd"',
)


def test_the_message_is_the_one_of_the_design() -> None:
    assert (
        explain(FAILED)
        == """\
resnet18 / fp60 / amazon under pgd (linf, eps 0.004, 40 steps)
  accuracy 41.2 % [39.6, 42.8] on 2,000 images; the reference holds 50.3 %
  rule "holds under attack" of policy edge: max_drop 5.0 points; the drop is 9.1 [7.4, 10.9]
  most lost: cat 50 → 21 %, bird 55 → 24 %
  pytest --pyargs robustness_tests --robustgate-config robustgate.toml -k "resnet18-fp60-amazon-pgd\""""
    )


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (Shift(kind="clean", name="clean"), "resnet18 / fp60 / amazon on clean images"),
        (
            Shift(kind="domain_shift", name="amazon_to_webcam", target="webcam"),
            "resnet18 / fp60 / amazon on webcam",
        ),
        (
            Shift(kind="corruption", name="fog_s3", corruption="fog", severity=3),
            "resnet18 / fp60 / amazon under fog, severity 3",
        ),
    ],
)
def test_the_heading_names_variant_and_shift(shift: Shift, expected: str) -> None:
    assert explain(replace(FAILED, shift=shift)).splitlines()[0] == expected


def test_rules_that_pass_are_not_told() -> None:
    kept = replace(FAILED, findings=(replace(BROKEN, rule="floor", verdict="pass"), BROKEN))
    assert explain(kept) == explain(FAILED)


@pytest.mark.parametrize(
    ("verdict", "waiver", "expected"),
    [
        ("undecided", None, 'undecided at this confidence: rule "holds under attack" of policy lab: max_drop 5.0'),
        ("waived", "until 2026-12-31: ticket 1", "waived: rule"),
        ("fail", "expired on 2026-01-01: ticket 1", 'rule "holds under attack"'),
    ],
)
def test_a_finding_says_why_it_is_no_pass(verdict, waiver: str | None, expected: str) -> None:
    told = replace(BROKEN, policy="lab", verdict=verdict, waiver=waiver)
    line = explain(replace(FAILED, findings=(told,))).splitlines()[2]
    assert line.startswith(f"  {expected}")
    assert line.endswith(f"[7.4, 10.9] ({waiver})" if waiver else "[7.4, 10.9]")


def test_the_reference_is_not_compared_with_itself() -> None:
    alone = replace(FAILED, compression="none", reference_value=None)
    assert explain(alone).splitlines()[1] == "  accuracy 41.2 % [39.6, 42.8] on 2,000 images"


def test_a_case_that_broke_says_why_and_how_to_run_it_again() -> None:
    broken = replace(CaseResult.of(CASE, verdict="error", message="NaN logits"), reproduce="pytest -k x")
    assert explain(broken).splitlines()[1:] == ["  NaN logits", "  pytest -k x"]


def test_an_accuracy_of_zero_is_a_figure() -> None:
    lost = replace(FAILED, value=0.0, low=0.0, high=0.002)
    assert explain(lost).splitlines()[1].startswith("  accuracy 0.0 % [0.0, 0.2] on 2,000 images")
