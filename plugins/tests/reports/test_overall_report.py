"""The table over all shifts in the reports: every figure as it is printed, and words where there is none."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from typing import Any

import jsonschema
import pytest

from robustgate.core.records import OverallRecord, Results
from robustgate.reports import html, markdown, results_json
from robustgate.reports.overall import overall_table

NAMED = {"name": "resnet20-fp60-scene", "model": "resnet20", "source": "scene", "compression": "fp60"}
MEASURED = OverallRecord(
    **NAMED,
    clean=0.9,
    mean_corruption_accuracy=0.65,
    mce=1.05,
    relative_mce=0.857,
    corruption_retention=0.65 / 0.9,
    corruption_relative_robustness=-0.1,
    worst_corruption="gaussian_noise",
    worst_corruption_accuracy=0.4,
    mean_domain_accuracy=0.5,
    domain_retention=0.5 / 0.9,
    domain_relative_robustness=0.021,
    worst_domain="printed",
    worst_domain_accuracy=0.45,
    agreement=0.93,
    lost=0.04,
    gained=0.02,
)
CELLS = {
    "clean": "90.0 %",
    "mean corruption accuracy": "65.0 %",
    "mCE against the reference": "105.0",
    "relative mCE (at mean corruption accuracy)": "85.7 at 65.0 %",
    "retention, corruptions": "72.2 %",
    "tau, corruptions": "-10.0 points",
    "worst corruption": "gaussian_noise: 40.0 %",
    "mean domain accuracy": "50.0 %",
    "retention, domains": "55.6 %",
    "tau, domains": "2.1 points",
    "worst domain": "printed: 45.0 %",
    "agreement on clean (right→wrong, wrong→right, other)": "93.0 % (4.0, 2.0, 1.0)",
}


def cells(results: Results, **changes: Any) -> dict[str, str]:
    table = overall_table(replace(results, overall=(MEASURED, replace(MEASURED, **changes))))
    return dict(zip(table.heads, table.rows[1].cells, strict=True))


def test_every_figure_stands_under_its_head(results: Results) -> None:
    assert cells(results) == CELLS


def test_a_part_of_the_benchmark_says_so(results: Results) -> None:
    found = cells(results, mce=None, relative_mce=None, mce_partial=1.1, relative_mce_partial=0.9)
    assert found["mCE against the reference"] == "110.0 (partial)"
    assert found["relative mCE (at mean corruption accuracy)"] == "90.0 (partial) at 65.0 %"


def test_what_was_not_measured_is_a_dash_that_says_so(results: Results) -> None:
    table = overall_table(replace(results, overall=(MEASURED, OverallRecord(**NAMED))))
    assert set(table.rows[1].cells) == {"— not measured in full"}
    undefined = cells(results, mce=None, relative_mce=None, corruption_retention=None)
    assert {name for name, cell in undefined.items() if cell == "— undefined"} == {
        "mCE against the reference",
        "relative mCE (at mean corruption accuracy)",
        "retention, corruptions",
    }


def test_the_reference_is_not_compared_with_itself(results: Results) -> None:
    found = cells(results, compression="none", agreement=None, corruption_relative_robustness=None)
    assert {name for name, cell in found.items() if cell == "reference"} == {
        "tau, corruptions",
        "tau, domains",
        "agreement on clean (right→wrong, wrong→right, other)",
    }


@pytest.mark.parametrize(("kind", "left"), [("corruption", 6), ("domain_shift", 8)])
def test_kinds_that_the_plan_does_not_have_take_no_column(results: Results, kind: str, left: int) -> None:
    kept = tuple(case for case in results.cases if case.shift.kind != kind)
    assert len(overall_table(replace(results, cases=kept, overall=(MEASURED,))).heads) == left


def test_both_reports_have_the_section_between_accuracy_and_costs(results: Results) -> None:
    measured = replace(results, overall=(MEASURED,))
    text = markdown.render(measured)
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings.index("Accuracy") < headings.index("Over all shifts") < headings.index("Costs")
    assert "| resnet20 / fp60 / scene | 90.0 % | 65.0 % | 105.0 | 85.7 at 65.0 % |" in text
    page = html.render(measured)
    assert '<h2 id="overall">Over all shifts</h2>' in page
    assert '<a href="#overall">' in page
    assert "gaussian_<wbr>noise: 40.0 %" in page


def test_without_anything_to_tell_there_is_no_section(results: Results) -> None:
    for empty in (replace(results, overall=()), replace(results, overall=(OverallRecord(**NAMED),))):
        assert "Over all shifts" not in markdown.render(empty)
        assert "Over all shifts" not in html.render(empty)


def test_hostile_names_stay_text(results: Results) -> None:
    hostile = replace(results, overall=(replace(MEASURED, worst_domain="<b>|x</b>", model="<i>"),))
    for text in (markdown.render(hostile), html.render(hostile)):
        assert "<b>" not in text
        assert "<i>" not in text


def test_results_json_holds_it_and_a_file_from_before_still_reads(single: Results, tmp_path) -> None:
    written = replace(single, overall=(MEASURED,))
    content = json.loads(results_json.dumps(written))
    jsonschema.validate(content, results_json.json_schema())
    assert list(content["overall"][0]) == [field.name for field in fields(OverallRecord)]
    path = tmp_path / "results.json"
    results_json.write(written, path)
    assert results_json.load(path) == written
    del content["overall"]
    for case in content["cases"]:
        for key in ("agreement", "lost", "gained"):
            del case[key]
    path.write_text(json.dumps(content))
    assert results_json.load(path) == single
