"""Which classes each compression lost most: the table of the page."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from robustgate.core.records import CaseResult, ClassAccuracy, Results
from robustgate.reports import html
from robustgate.reports.losses import OPEN, loss_tables


def losing(case: CaseResult, *lost: tuple[str, float, float]) -> CaseResult:
    """`case` with the classes that lost most: name, the reference's accuracy, its own."""
    classes = tuple(ClassAccuracy(name=name, n=200, reference=before, value=after) for name, before, after in lost)
    return replace(case, most_lost=classes)


def case_of(results: Results, compression: str, shift: str) -> int:
    return next(
        index
        for index, case in enumerate(results.cases)
        if (case.source, case.compression, case.shift.name) == ("handwritten", compression, shift)
    )


@pytest.fixture
def lost(results: Results) -> Results:
    """Cat lost in three cases of pruning and one of distillation, dog in one; nothing else lost anything."""
    cases = [replace(case, most_lost=()) for case in results.cases]
    for compression, shift, *classes in (
        ("filter_pruning", "fog_s1", ("cat", 0.9, 0.85)),
        ("filter_pruning", "fog_s5", ("cat", 0.5, 0.21), ("dog", 0.545, 0.535)),
        ("filter_pruning", "pgd", ("cat", 0.9, 0.7)),
        ("distillation", "contrast_s3", ("cat", 0.8, 0.7)),
    ):
        index = case_of(results, compression, shift)
        cases[index] = losing(cases[index], *classes)
    return replace(results, cases=tuple(cases))


def test_a_class_has_its_worst_case_and_in_how_many_it_is_told_of(lost: Results) -> None:
    (table,) = loss_tables(lost) or []
    assert (table.model, table.source) == ("resnet20", "handwritten")
    assert table.compressions == ("control", "filter_pruning", "distillation", "static_quantization")
    assert [row.name for row in table.rows] == ["cat", "dog"]
    control, pruned, distilled, quantized = table.rows[0].cells
    assert control is quantized is None
    assert pruned is not None
    assert distilled is not None
    assert pruned.points == pytest.approx(0.29)
    assert (pruned.index, pruned.cases) == (case_of(lost, "filter_pruning", "fog_s5"), 3)
    assert pruned.figures == "50.0 → 21.0 % of 200"
    assert (distilled.points, distilled.cases) == (pytest.approx(0.1), 1)


def test_the_class_that_lost_most_comes_first_under_whatever_compression(lost: Results) -> None:
    index = case_of(lost, "static_quantization", "clean")
    cases = [*lost.cases]
    cases[index] = losing(cases[index], ("dog", 1.0, 0.7))
    (table,) = loss_tables(replace(lost, cases=tuple(cases))) or []
    assert [row.name for row in table.rows] == ["dog", "cat"]


def test_the_page_tells_it_and_what_is_not_known(lost: Results) -> None:
    page = html.render(lost)
    section = page[page.index('aria-labelledby="losses"') :].split("</section>")[0]
    index = case_of(lost, "filter_pruning", "fog_s5")
    assert f'<strong>29.0 points</strong> <a href="#case-{index}">fog, severity\u00a05</a>' in section
    assert "50.0 → 21.0 % of 200, 3 cases" in section
    assert "54.5 → 53.5 % of 200, 1 case<" in section
    assert "Only these are recorded of a case" in section
    assert section.count("<td>·</td>") == 2 + 3


def test_the_reference_is_not_compared_with_itself(results: Results) -> None:
    own = tuple(case for case in results.cases if case.compression == "none")
    assert loss_tables(replace(results, cases=own)) is None
    assert 'id="losses"' not in html.render(replace(results, cases=own))


def test_where_nothing_was_lost_it_says_so(lost: Results) -> None:
    none = replace(lost, cases=tuple(replace(case, most_lost=()) for case in lost.cases))
    assert loss_tables(none) == []
    assert "In no case did a compression lose anything of a class against the reference." in html.render(none)


@pytest.mark.parametrize(("more", "told"), [(0, None), (1, "1 more class<"), (3, "3 more classes<")])
def test_many_classes_are_folded(lost: Results, more: int, told: str | None) -> None:
    cases = [*lost.cases]
    # Two classes are there already.
    classes = [(f"class {number}", 0.9, 0.8 + number / 1000) for number in range(OPEN - 2 + more)]
    index = case_of(lost, "control", "fog_s1")
    cases[index] = losing(cases[index], *classes)
    page = html.render(replace(lost, cases=tuple(cases)))
    section = page[page.index('aria-labelledby="losses"') :].split("</section>")[0]
    open_part = section.split("<details>")[0]
    assert len(re.findall('<th scope="row">', open_part)) == OPEN
    assert ("<details>" in section) is (told is not None)
    assert told is None or told in section
