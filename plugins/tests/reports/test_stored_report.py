"""A run on a stored benchmark says so wherever its corruptions are shown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from robustgate.core.records import CaseResult, Results
from robustgate.reports import html, markdown
from robustgate.reports.matrix import matrices

SAID = "stored benchmark digits_c"


@pytest.fixture
def stored(results: Results) -> Results:
    """The run, with the corruptions of one source domain read from a stored benchmark."""

    def read(case: CaseResult) -> CaseResult:
        if case.source != "printed" or case.shift.kind != "corruption":
            return case
        shift = replace(case.shift, detail=SAID)
        return replace(case, shift=shift, details={"stored_benchmark": "digits_c"})

    return replace(results, cases=tuple(map(read, results.cases)))


def test_the_matrix_says_whose_corruptions_it_shows(stored: Results) -> None:
    titles = [matrix.title for matrix in matrices(stored)]
    assert [title for title in titles if SAID in title] == [title for title in titles if "printed" in title]
    assert SAID in markdown.render(stored)
    assert html.render(stored).count(SAID) >= 1


def test_a_sentence_about_a_case_says_it(stored: Results, results: Results) -> None:
    (phrase, *_), (before, *_) = (
        [case.shift.phrase for case in one.cases if case.source == "printed" and case.shift.name == "fog_s3"]
        for one in (stored, results)
    )
    assert (phrase, before) == (f"under fog, severity 3 ({SAID})", "under fog, severity 3")


def test_without_one_nothing_is_said(results: Results) -> None:
    assert "stored benchmark" not in markdown.render(results) + html.render(results)
