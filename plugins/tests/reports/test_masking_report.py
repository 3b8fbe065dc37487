"""The checks for gradient masking on the page, and how files without a gradient were attacked."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from robustgate.core.records import MASKED_SHARE, CaseResult, Finding, Results, Shift
from robustgate.engine.judge_masking import CHECKS
from robustgate.reports import html
from robustgate.reports.masking_checks import ASKED, masking_checks

MASKING = Shift(kind="masking", name="linf", norm="linf", eps=0.004, detail="linf, eps 0.004")


def finding(check: str, share: float | None, verdict: str, policy: str = "digits") -> Finding:
    return Finding(
        policy=policy, rule=f"masking: {check}", subject="s", metric=MASKED_SHARE, limit_kind="max", limit=0.02,
        value=share, low=share, high=share, verdict=verdict,  # type: ignore[arg-type]
        message=f"max 2.0 %; told of {check}",
    )  # fmt: skip


def with_checks(results: Results, *changes: dict[str, Any]) -> Results:
    """The run with a case of checks for each of its first variants; `changes` say what each holds."""
    clean = [case for case in results.cases if case.shift.kind == "clean"]
    rows = [
        replace(case, name=f"{case.name}-linf", shift=MASKING, **change)
        for case, change in zip(clean, changes, strict=False)
    ]
    return replace(results, cases=(*results.cases, *rows))


def section(results: Results) -> str:
    """The words of the section, a cell after another."""
    page = html.render(results)
    part = page[page.index('<h2 id="masking">') :].split("</section>")[0]
    return " ".join(unescape(re.sub("<[^>]*>", " ", part)).split())


def test_every_check_of_the_engine_is_told_in_words() -> None:
    assert list(ASKED) == list(CHECKS)


def test_a_row_for_each_variant_and_a_column_for_each_check(results: Results) -> None:
    sound = (finding("more steps", 0.0, "pass"), finding("monotone", -0.04, "pass"))
    masked = (finding("more steps", 0.31, "fail"), finding("monotone", 0.0, "pass"))
    run = with_checks(results, {"findings": sound, "verdict": "pass"}, {"findings": masked, "verdict": "fail"})
    last = len(run.cases) - 1
    found = masking_checks(run)
    assert found is not None
    assert found.names == ("more steps", "monotone")
    assert found.limits == ("2.0 %",)
    assert [[(one.share, one.standing.word) for one in row.checks if one] for row in found.rows] == [
        [("0.0 %", "pass"), ("-4.0 %", "pass")],
        [("31.0 %", "fail"), ("0.0 %", "pass")],
    ]
    assert [row.index for row in found.rows] == [last - 1, last]
    told = section(run)
    assert "a share above 2.0 % fails" in told
    assert "variant up to verdict more steps monotone resnet20 / none / handwritten linf, eps 0.004 ✓ pass" in told
    assert "✗ fail 31.0 % ✗ fail 0.0 % ✓ pass" in told
    assert "not looked for" not in told
    assert f'<a href="#case-{last}">' in html.render(run)


def test_of_several_policies_the_hardest_counts(results: Results) -> None:
    findings = (finding("more steps", 0.31, "waived"), finding("more steps", 0.31, "fail", policy="edge"))
    found = masking_checks(with_checks(results, {"findings": findings, "verdict": "fail"}))
    assert found is not None
    assert [one.standing.word for one in found.rows[0].checks if one] == ["fail"]


def test_a_file_without_a_gradient_says_why_no_check_was_judged(results: Results) -> None:
    run = with_checks(results, {"details": {"no_gradient": "operator <Foo>"}, "verdict": "pass"})
    assert "no gradient that could be masked: operator <Foo>" in section(run)
    assert "Gradient masking was not looked for" in section(run)
    assert "&lt;Foo&gt;" in html.render(run)


def test_a_check_that_was_not_measured_says_so(results: Results) -> None:
    run = with_checks(results, {"value": None, "verdict": "error", "message": "NaN logits"})
    assert "! error NaN logits" in section(run)
    left_out = with_checks(results, {"value": None, "verdict": "incomplete", "selected": False})
    assert "— not selected left out by the selection of this run" in section(left_out)


def test_attacks_without_checks_and_no_attacks_at_all(results: Results) -> None:
    assert section(results).startswith("Gradient masking Gradient masking was not looked for: whether the robust")
    harmless = replace(results, cases=tuple(case for case in results.cases if case.shift.kind != "adversarial"))
    assert masking_checks(harmless) is None
    assert 'id="masking"' not in html.render(harmless)


def test_how_files_without_a_gradient_of_their_own_were_attacked(results: Results) -> None:
    def change(case: CaseResult) -> CaseResult:
        if (case.source, case.compression, case.shift.kind) != ("handwritten", "static_quantization", "adversarial"):
            return case
        if case.shift.name == "pgd":
            return replace(case, details={"figures": {"twin": 0.412, "transferred": 0.55, "gradient_free": 0.6}})
        return replace(case, details={"figures": {"twin": None, "transferred": 0.5}, "no_gradient": "operator Foo"})

    run = replace(results, cases=tuple(map(change, results.cases)))
    found = masking_checks(run)
    assert found is not None
    assert [(row.shift.split()[0], row.cells) for row in found.files] == [
        ("fgsm", ("—", "50.0 %", "—")),
        ("pgd", ("41.2 %", "55.0 %", "60.0 %")),
        ("pgd_l2", ("—", "50.0 %", "—")),
    ]
    told = section(run)
    assert "variant attack through its twin by transfer gradient-free together" in told
    assert "no twin: operator Foo — 50.0 % —" in told


@pytest.mark.parametrize("found", ["a text", {"twin": "far"}, [0.1], None])
def test_what_are_no_figures_is_no_row(results: Results, found: Any) -> None:
    run = replace(results, cases=tuple(replace(case, details={"figures": found}) for case in results.cases))
    checks = masking_checks(run)
    assert checks is not None
    assert checks.files == ()
