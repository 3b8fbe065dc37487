"""Accuracy over eps: which attacks are one, and that the points drawn are the results' own values."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from robustgate.core.records import CaseResult, Results, Shift
from robustgate.reports import budgets, curves, html

HOSTILE = "\"><script>alert('x')</script>$&amp;`'"


def attack(name: str, eps: float, more: str = ", 40 steps", norm: str = "linf") -> Shift:
    return Shift(kind="adversarial", name=name, attack=name, norm=norm, eps=eps, detail=f"{norm}, eps {eps:g}{more}")


def names(*shifts: Shift) -> list[list[str]]:
    return [[shift.name for shift in family] for family in budgets.joined(shifts)]


def test_attacks_that_differ_in_eps_alone_are_one_by_rising_eps() -> None:
    shifts = [attack(f"pgd_{number}", number / 255) for number in (4, 1, 2)]
    assert names(*shifts) == [["pgd_1", "pgd_2", "pgd_4"]]


def test_a_number_that_is_the_same_in_all_names_is_no_budget() -> None:
    assert names(*(attack(f"pgd_l2_{number}_255", number / 255) for number in (2, 4))) == [
        ["pgd_l2_2_255", "pgd_l2_4_255"]
    ]


def test_a_budget_that_is_rounded_is_in_proportion() -> None:
    assert names(attack("pgd_1", 0.0039), attack("pgd_2", 0.0078), attack("pgd_8", 0.031)) == [
        ["pgd_1", "pgd_2", "pgd_8"]
    ]


@pytest.mark.parametrize(
    "shifts",
    [
        pytest.param([attack("pgd_1", 0.004)], id="one alone"),
        pytest.param([attack("pgd", 0.004), attack("apgd", 0.008)], id="other attacks"),
        pytest.param([attack("pgd_1", 0.004), attack("apgd_2", 0.008)], id="other names"),
        pytest.param([attack("pgd_1", 0.004), attack("pgd_2", 0.008, ", 80 steps")], id="other steps"),
        pytest.param([attack("pgd_1", 0.004), attack("pgd_2", 0.008, "")], id="steps or none"),
        pytest.param([attack("pgd_1", 0.004), attack("pgd_2", 0.008, norm="l2")], id="other norms"),
        pytest.param([attack("pgd_1", 0.004), attack("pgd_2", 0.004)], id="the same eps"),
        pytest.param([attack("pgd_1", 0.004), attack("pgd_5", 0.008)], id="restarts, not budgets"),
        pytest.param([attack("pgd_1", 0.004), attack("pgd_2", 0.008), attack("pgd_10", 0.016)], id="one that is not"),
        pytest.param([attack("pgd_1_1", 0.004), attack("pgd_2_2", 0.008)], id="two numbers"),
        pytest.param([attack("pgd_1", 0.004), attack("pgd_2", float("inf"))], id="no bound"),
        pytest.param(
            [
                replace(attack(f"worst_{number}", 0.004 * number), detail=f"union of pgd_{number}, square")
                for number in (1, 2)
            ],
            id="unions",
        ),
        pytest.param(
            [replace(attack(f"linf_{number}", 0.004 * number), kind="masking") for number in (1, 2)],
            id="checks of masking",
        ),
    ],
)
def test_attacks_that_may_differ_in_more_are_not_joined(shifts: list[Shift]) -> None:
    assert names(*shifts) == []


@pytest.fixture
def swept(results: Results) -> Results:
    """Clean, and PGD at 1, 2 and 4 of 255, of each compression of the first source; each costs 10 points more."""
    found = []
    for case in results.cases:
        if case.source == "handwritten" and case.shift.kind == "clean":
            found.append(case)
            for place, number in enumerate((1, 2, 4), 1):
                held = round((case.value or 0) - 0.1 * place, 6)
                name = f"{case.name}-pgd_{number}"
                found.append(replace(case, name=name, shift=attack(f"pgd_{number}", number / 255), value=held))
    return replace(results, cases=tuple(found))


def changed(results: Results, change: Any) -> Results:
    return replace(results, cases=tuple(change(case) for case in results.cases))


def paths(svg: str) -> dict[str, list[tuple[float, float]]]:
    """The lines by colour and dashes, as share of the largest eps and fraction."""
    width, height = (72 * inches for inches in curves.SIZE)
    left, bottom, across, up = curves.AXES
    found = {}
    for series, path, dash in re.findall(
        r'<path class="(series-\d)" d="([^"]*)" style="(?:stroke-dasharray:([\d,]+))?', svg
    ):
        spots = re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path)
        found[f"{series} {dash}".strip()] = [
            ((float(x) / width - left) / across, (1 - float(y) / height - bottom) / up) for x, y in spots
        ]
    return found


def test_the_points_drawn_are_the_values_and_clean_is_at_0(swept: Results) -> None:
    (family,) = budgets.families(swept)
    assert family.title == "resnet20 trained on handwritten under pgd_1, pgd_2, pgd_4"
    drawn = paths(family.svg)
    assert set(drawn) == {"series-0", "series-0 4,3", "series-1", "series-2", "series-3"}
    for key, compression in (("series-0", "none"), ("series-0 4,3", "control"), ("series-2", "distillation")):
        held = [case.value for case in swept.cases if case.compression == compression]
        assert drawn[key] == [
            pytest.approx((at, value), abs=1e-3) for at, value in zip((0, 0.25, 0.5, 1), held, strict=True)
        ]


def test_the_table_and_the_words_have_the_figures(swept: Results) -> None:
    (family,) = budgets.families(swept)
    assert family.heads == ["without attack", "at eps 0.00392", "at eps 0.00784", "at eps 0.0157"]
    assert [spot.text for spot in family.lines[0].spots] == ["98.5", "88.5", "78.5", "68.5"]
    assert family.text.startswith(
        "Accuracy from eps 0 to 0.0157. none: 98.5 % at first, 68.5 % at eps 0.0157; control:"
    )
    page = html.render(swept)
    assert 'aria-label="Accuracy over eps of resnet20 trained on handwritten under pgd_1, pgd_2, pgd_4"' in page
    assert "hollow" not in page.split("</style>")[1]


def test_a_budget_that_was_not_measured_is_a_gap_and_one_of_a_part_is_hollow(swept: Results) -> None:
    def change(case: CaseResult) -> CaseResult:
        if case.compression != "none":
            return case
        if case.shift.name == "pgd_2":
            return replace(case, value=None, n=0, verdict="incomplete")
        return replace(case, n=500) if case.shift.name == "pgd_4" else case

    (family,) = budgets.families(changed(swept, change))
    (path,) = re.findall(r'<path class="series-0" d="([^"]*)" style="stroke:', family.svg)
    assert re.sub(r"[\d. ]", "", path) == "MLM"
    assert family.svg.count('class="hollow page"') == 1
    assert [spot.text for spot in family.lines[0].spots] == ["98.5", "88.5", "not measured", "≈ 68.5"]


def test_without_a_clean_case_the_line_begins_at_the_first_budget(swept: Results) -> None:
    attacked = replace(swept, cases=tuple(case for case in swept.cases if case.shift.kind != "clean"))
    (family,) = budgets.families(attacked)
    assert family.eps == (1 / 255, 2 / 255, 4 / 255)


def test_attacks_with_a_curve_of_their_own_are_not_joined(swept: Results) -> None:
    curve = {"eps": [0.0, 0.01], "accuracy": [0.9, 0.5]}
    curved = changed(swept, lambda case: replace(case, details={"curve": curve}) if case.shift.eps else case)
    assert budgets.families(curved) == []
    assert len(curves.charts(curved)) == 3


def test_hostile_names_stay_text(swept: Results) -> None:
    hostile = changed(swept, lambda case: replace(case, model=HOSTILE, source=HOSTILE))
    hostile = changed(hostile, lambda case: replace(case, shift=replace(case.shift, name=HOSTILE + case.shift.name)))
    (family,) = budgets.families(hostile)
    assert "script" not in family.svg
    assert html.render(hostile).count("<script>") == 1


def test_the_same_input_gives_the_same_bytes(swept: Results) -> None:
    assert budgets.families(swept)[0].svg == budgets.families(swept)[0].svg
