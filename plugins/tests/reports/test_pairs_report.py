from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from robustgate.core.records import CaseResult, Results, Shift
from robustgate.engine.reporting import write_reports
from robustgate.reports import results_json
from robustgate.reports.pairs import as_latex, as_markdown, pair_tables
from robustgate.reports.tables import as_csv

# Rows of table 1 of the study (ResNet-50 without compression, and quantized): its pairs, its average column.
PAIRS = (
    ("amazon", "webcam"),
    ("amazon", "dslr"),
    ("webcam", "amazon"),
    ("webcam", "dslr"),
    ("dslr", "amazon"),
    ("dslr", "webcam"),
)
PUBLISHED = {
    "none": (0.6893, 0.7189, 0.6425, 0.99, 0.6095, 0.9484),
    "static_quantization": (0.7445, 0.7269, None, None, None, None),
}
HOSTILE = "a_b & 50 % {x} \\end{tabular} $^~#<|>*[1ex]\n=1+1"


def measured(
    model: str, compression: str, source: str, target: str, value: float | None, **changes: object
) -> CaseResult:
    case = CaseResult(
        name=f"{model}-{compression}-{source}_to_{target}",
        model=model,
        source=source,
        compression=compression,
        shift=Shift(kind="domain_shift", name=f"{source}_to_{target}", target=target),
        metric="accuracy",
        verdict="pass",
        value=value,
        low=None if value is None else value - 0.05,
        high=None if value is None else value + 0.07,
        n=295,
        n_total=295,
    )
    return replace(case, **changes)  # type: ignore[arg-type]


def run_of(results: Results, cases: list[CaseResult]) -> Results:
    """A run of these cases, its variants with the sizes that the study gives ResNet-50."""
    built = dict.fromkeys((case.model, case.source, case.compression) for case in cases)
    records = []
    for model, source, compression in built:
        size = 24_000_000 if compression == "static_quantization" else 4 * 23_571_551 + 50_000
        named = {"model": model, "source": source, "compression": compression}
        records.append(replace(results.variants[0], **named, parameters=23_571_551, size_bytes=size))
    return replace(results, cases=tuple(cases), variants=tuple(records), findings=(), waivers=())


@pytest.fixture
def published(results: Results) -> Results:
    found = [
        measured("resnet50", compression, *pair, value)
        for compression, values in PUBLISHED.items()
        for pair, value in zip(PAIRS, values, strict=True)
        if value is not None
    ]
    return run_of(results, found)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def tabled(text: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, its head first."""
    lines = [cells(line) for line in text.splitlines() if line.startswith("|")]
    return [lines[0], *lines[2:]]


def test_the_table_of_the_study_comes_out_with_its_averages(published: Results) -> None:
    head, reference, quantized = tabled(as_markdown(pair_tables(published)))
    assert head[:5] == ["model", "compression", "size (M)", "amazon → webcam", "amazon → dslr"]
    assert head[-1] == "average over 6 pairs"
    assert reference == ["resnet50", "none", "23.57", "68.93", "71.89", "64.25", "99.00", "60.95", "94.84", "76.64"]
    assert quantized[:5] == ["resnet50", "static_quantization", "23.57 (/3.9)", "74.45", "72.69"]
    assert quantized[5:] == ["—", "—", "—", "—", "73.57 (over 2 of 6)"]


def test_the_three_forms_hold_the_same_cells(published: Results) -> None:
    tables = pair_tables(published)
    lines = list(csv.reader(io.StringIO(as_csv(tables))))
    assert lines == [list(line) for line in (tables[0].heads, *tables[0].rows)]
    assert lines == tabled(as_markdown(tables))
    latex = [line.removesuffix(" \\\\").split(" & ") for line in as_latex(tables).splitlines() if " & " in line]
    plain = [[cell.replace("$\\to$", "→").replace("---", "—").replace("\\_", "_") for cell in line] for line in latex]
    assert plain == lines


def test_a_row_without_any_figure_has_no_average(results: Results) -> None:
    pair = ("amazon", "webcam")
    case = measured("resnet50", "none", *pair, None)
    left_out = measured("resnet50", "fp60", *pair, None, selected=False)
    rows = pair_tables(run_of(results, [case, left_out]))[0].rows
    assert [row[3:] for row in rows] == [("not measured", "—"), ("not selected", "—")]


def test_a_figure_that_was_not_measured_is_missing_from_the_average_and_that_is_said(results: Results) -> None:
    found = [measured("resnet50", "none", "amazon", target, 0.5) for target in ("webcam", "dslr")]
    found.append(measured("resnet50", "none", "webcam", "dslr", None))
    row = pair_tables(run_of(results, found))[0].rows[0]
    assert row[3:] == ("50.00", "50.00", "not measured", "50.00 (over 2 of 3)")


def test_the_average_is_of_the_figures_and_not_of_their_roundings(results: Results) -> None:
    found = [measured("m", "none", "a", target, value) for target, value in (("b", 0.111149), ("c", 0.111151))]
    assert pair_tables(run_of(results, found))[0].rows[0][3:] == ("11.11", "11.12", "11.12")
    half = [measured("m", "none", "a", "b", 0.20125)]  # the nearest binary number lies below
    assert pair_tables(run_of(results, half))[0].rows[0][3] == "20.13"


def test_sizes_that_differ_by_source_are_a_range(results: Results) -> None:
    run = run_of(results, [measured("m", "fp", *pair, 0.5) for pair in (("a", "b"), ("b", "a"))])
    first, second = run.variants
    smaller = replace(second, parameters=11_190_000, size_bytes=4 * 11_190_000)
    assert pair_tables(replace(run, variants=(first, smaller)))[0].rows[0][2] == "11.19 to 23.57"
    assert pair_tables(replace(run, variants=(replace(first, parameters=None),)))[0].rows[0][2] == "—"
    tiny = replace(first, parameters=78_042, size_bytes=4 * 78_042)
    assert pair_tables(replace(run, variants=(tiny,)))[0].rows[0][2] == "0.078"


def test_models_that_share_no_pair_have_tables_of_their_own(results: Results) -> None:
    found = [
        measured("office", "none", "amazon", "webcam", 0.5),
        measured("office", "none", "amazon", "dslr", 0.7),
        measured("digits", "none", "mnist", "usps", 0.8),
        measured("other", "none", "amazon", "dslr", 0.9),
    ]
    office, digits = pair_tables(run_of(results, found))
    assert [row[0] for row in office.rows] == ["office", "other"]
    assert office.rows[1][3:] == ("—", "90.00", "90.00 (over 1 of 2)")
    assert digits.heads[3:] == ("mnist → usps", "average over 1 pair")
    text = as_csv([office, digits])
    assert text.count("\n\n") == 1
    assert as_latex([office, digits]).count("\\begin{tabular}") == 2


def test_two_tables_become_one_where_a_third_model_has_pairs_of_both(results: Results) -> None:
    pairs = ("one", "a", "b"), ("two", "c", "d"), ("three", "a", "b"), ("three", "c", "d")
    found = [measured(model, "none", source, target, 0.5) for model, source, target in pairs]
    (table,) = pair_tables(run_of(results, found))
    assert [row[0] for row in table.rows] == ["one", "two", "three"]


def test_remarks_tell_images_intervals_and_what_was_left_out(results: Results) -> None:
    details = {"classes": {"dropped": {"zebra": 3}, "without_samples": ["horse"]}}
    found = [
        measured("m", "none", "a", "b", 0.5, details=details),
        measured("m", "fp", "a", "b", 0.5, n=40, low=0.3, high=0.7, details=details),
    ]
    (table,) = pair_tables(run_of(results, found))
    assert table.remarks == (
        "a → b: 40 to 295 of 295 images, 99 % intervals of up to ± 20.0 points",
        "a → b: left out 3 images of classes that a does not have: zebra (3); there are no images of horse",
    )
    assert "\n- a → b: 40 to 295 of 295 images" in as_markdown([table])
    assert "\\par a $\\to$ b: 40 to 295 of 295 images, 99 \\% intervals of up to $\\pm$ 20.0 points" in as_latex(
        [table]
    )


def test_hostile_names_show_and_do_nothing_else(results: Results) -> None:
    tables = pair_tables(run_of(results, [measured("m", HOSTILE, "a_b", "c&d", 0.5)]))
    row = tabled(as_markdown(tables))[1]
    assert len(row) == 5
    assert "\\|" in row[1]
    assert "&lt;" in row[1]
    latex = as_latex(tables)
    assert latex.count("\\end{tabular}") == 1
    assert (
        "m & a\\_b \\& 50 \\% \\{x\\} \\textbackslash{}end\\{tabular\\} \\$\\textasciicircum{}\\textasciitilde{}\\#"
        "\\textless{}\\textbar{}\\textgreater{}{*}{[}1ex] =1+1 & "
    ) in latex
    assert "a\\_b $\\to$ c\\&d" in latex
    assert next(iter(csv.reader(io.StringIO(as_csv(tables).split("\n", 1)[1]))))[1] == HOSTILE


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-2", "@SUM(A1)", " =1", "\t=1"])
def test_a_spreadsheet_takes_no_name_for_a_formula(results: Results, name: str) -> None:
    tables = pair_tables(run_of(results, [measured("m", name, "a", "b", 0.5)]))
    assert list(csv.reader(io.StringIO(as_csv(tables))))[1][1] == f"'{name}"


def test_the_files_are_made_from_results_json_alone(published: Results, tmp_path: Path) -> None:
    write_reports(published, tmp_path / "first", None)
    write_reports(results_json.load(tmp_path / "first" / "results.json"), tmp_path / "second", None)
    for name in ("pairs.md", "pairs.csv", "pairs.tex"):
        text = (tmp_path / "first" / name).read_text()
        assert "76.64" in text
        assert (tmp_path / "second" / name).read_text() == text


def test_a_run_without_pairs_leaves_none_of_an_earlier_run(published: Results, tmp_path: Path) -> None:
    write_reports(published, tmp_path, None)
    cases = tuple(replace(case, shift=Shift(kind="clean", name="clean")) for case in published.cases[:1])
    write_reports(replace(published, cases=cases), tmp_path, None)
    assert not list(tmp_path.glob("pairs.*"))
