"""The table over all shifts: closed forms of its figures, and no figure over a part of the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from robustgate.core.benchmark import BENCHMARK_CORRUPTIONS
from robustgate.core.records import Case, CaseResult, OverallRecord, Shift, Variant
from robustgate.engine.overall import overall

NONE = Variant(model="net", source="amazon", compression="none")
FP60 = Variant(model="net", source="amazon", compression="fp60")
CLEAN = Shift(kind="clean", name="clean")
WEBCAM = Shift(kind="domain_shift", name="amazon_to_webcam", target="webcam")
DSLR = Shift(kind="domain_shift", name="amazon_to_dslr", target="dslr")


def cell(corruption: str, severity: int) -> Shift:
    return Shift(kind="corruption", name=f"{corruption}_s{severity}", corruption=corruption, severity=severity)


def row(variant: Variant, shift: Shift, value: float | None, reference: float | None = None) -> CaseResult:
    blank = CaseResult.of(Case(variant=variant, shift=shift), verdict="pass")
    kept = {"agreement": 0.9, "lost": 0.05, "gained": 0.03} if reference is not None else {}
    return replace(blank, value=value, reference_value=reference, **kept)


FOUR = [cell("fog", 1), cell("fog", 5), cell("snow", 1), cell("snow", 5)]
OURS = dict(zip([CLEAN, *FOUR, WEBCAM, DSLR], [0.9, 0.8, 0.6, 0.7, 0.5, 0.6, 0.4], strict=True))
THEIRS = dict(zip([CLEAN, *FOUR, WEBCAM, DSLR], [0.95, 0.85, 0.75, 0.8, 0.6, 0.65, 0.65], strict=True))
ROWS = [row(FP60, shift, value, THEIRS[shift]) for shift, value in OURS.items()]
REFERENCE = [row(NONE, shift, value) for shift, value in THEIRS.items()]


def test_every_figure_is_its_closed_form() -> None:
    none, found = overall([NONE, FP60], [*REFERENCE, *ROWS])
    assert found.mce_partial == pytest.approx((0.6 / 0.4 + 0.8 / 0.6) / 2)
    assert found.relative_mce_partial == pytest.approx((0.4 / 0.3 + 0.6 / 0.5) / 2)
    assert (found.mce, found.relative_mce) == (None, None)
    assert found.mean_corruption_accuracy == pytest.approx(0.65)
    assert found.corruption_retention == pytest.approx(0.65 / 0.9)
    assert found.corruption_relative_robustness == pytest.approx(-0.1)
    assert (found.worst_corruption, found.worst_corruption_accuracy) == ("snow", pytest.approx(0.6))
    assert found.mean_domain_accuracy == pytest.approx(0.5)
    assert found.domain_retention == pytest.approx(0.5 / 0.9)
    assert found.domain_relative_robustness == pytest.approx(-0.15)
    assert (found.worst_domain, found.worst_domain_accuracy) == ("dslr", 0.4)
    assert (found.clean, found.agreement, found.lost, found.gained) == (0.9, 0.9, 0.05, 0.03)
    assert (none.mce_partial, none.relative_mce_partial) == (1.0, 1.0)
    assert (none.corruption_relative_robustness, none.agreement) == (None, None)


def test_the_reference_need_not_have_rows_of_its_own() -> None:
    assert overall([FP60], ROWS) == overall([NONE, FP60], [*REFERENCE, *ROWS])[1:]


def test_the_whole_benchmark_is_called_so_and_extras_do_not_enter_it() -> None:
    cells = [cell(name, severity) for name in BENCHMARK_CORRUPTIONS for severity in range(1, 6)]
    rows = [row(FP60, shift, 0.7, 0.8) for shift in cells] + [row(FP60, cell("spatter", 3), 0.1, 0.8)]
    (found,) = overall([FP60], rows)
    assert found.mce == pytest.approx(1.5)
    assert (found.mce_partial, found.relative_mce) == (None, None)
    assert found.mean_corruption_accuracy == pytest.approx((75 * 0.7 + 0.1) / 76)
    assert found.worst_corruption == "spatter"


@pytest.mark.parametrize("shift", [*FOUR, WEBCAM, CLEAN])
def test_no_figure_is_over_a_part_of_what_is_planned(shift: Shift) -> None:
    rows = [replace(one, value=None, reference_value=None) if one.shift == shift else one for one in ROWS]
    (found,) = overall([FP60], rows)
    if shift.kind == "corruption":
        assert (found.mean_corruption_accuracy, found.mce_partial, found.worst_corruption) == (None, None, None)
        assert found.mean_domain_accuracy == pytest.approx(0.5)
    elif shift.kind == "clean":
        assert (found.clean, found.corruption_retention, found.relative_mce_partial) == (None, None, None)
        assert found.mce_partial is not None
    else:
        assert (found.mean_domain_accuracy, found.worst_domain) == (None, None)
        assert found.mce_partial is not None


def test_what_divides_by_zero_is_none() -> None:
    rows = [replace(one, reference_value=1.0) if one.shift.corruption == "fog" else one for one in ROWS]
    rows[0] = replace(rows[0], value=0.0)
    (found,) = overall([FP60], rows)
    assert (found.mce_partial, found.corruption_retention) == (None, None)
    assert found.mean_corruption_accuracy == pytest.approx(0.65)


def test_a_variant_without_rows_has_its_names_alone() -> None:
    named = {"name": "net-fp60-amazon", "model": "net", "source": "amazon", "compression": "fp60"}
    assert overall([FP60], []) == (OverallRecord(**named),)
