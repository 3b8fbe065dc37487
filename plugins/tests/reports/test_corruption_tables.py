from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from robustgate.core.records import CaseResult, Results, Shift, Variant
from robustgate.engine.overall import overall
from robustgate.engine.reporting import write_reports
from robustgate.reports import results_json
from robustgate.reports.corruption_tables import as_latex, as_markdown, corruption_tables
from robustgate.reports.tables import as_csv

# Rows of the study's tables for CIFAR-10 (methods: paper 4): clean accuracy, corruption accuracy, mCE unrounded,
# relative mCE, compression rate.
PUBLISHED = {
    ("resnet50", "Original"): ("11.58", "63.39", "100.00", "1.00"),
    ("resnet50", "QAT+Int8"): ("37.11", "36.01", "201.59", "4.20"),
    ("resnet50", "PCQAT+Int8"): ("7.33", "71.40", "76.75", "8.13"),
    ("vgg19", "Original"): ("27.76", "52.39", "100.00", "1.00"),
    ("vgg19", "Pruning"): ("23.46", "55.34", "92.02", "1.65"),
}
N = 10_000
HOSTILE = "a_b & 50 % {x} \\end{tabular} $^~#<|>*[1ex]\n=1+1"


def corrupted(variant: Variant, shift: Shift, error: float | None, base: float | None, **changes: object) -> CaseResult:
    value = None if error is None else 1 - error
    case = CaseResult(
        name=f"{variant.name}-{shift.name}",
        **variant.fields,  # type: ignore[arg-type]
        shift=shift,
        metric="accuracy",
        verdict="pass",
        value=value,
        low=None if value is None else value - 0.01,
        high=None if value is None else value + 0.01,
        n=N,
        n_total=N,
        reference_value=None if base is None else 1 - base,
    )
    return replace(case, **changes)  # type: ignore[arg-type]


def shifted(corruption: str, severity: int) -> Shift:
    return Shift(kind="corruption", name=f"{corruption}_s{severity}", corruption=corruption, severity=severity)


def run_of(results: Results, cases: list[CaseResult], sizes: dict[Variant, int]) -> Results:
    first, total = (
        results.variants[0],
        {(one.model, one.source): size for one, size in sizes.items() if one.compression == "none"},
    )
    records = tuple(
        replace(
            first,
            name=variant.name,
            **variant.fields,
            parameters=23_571_551,
            size_bytes=size,
            deflated_bytes=size,
            compression_ratio=total[variant.model, variant.source] / size,
        )
        for variant, size in sizes.items()
    )
    return replace(
        results, cases=tuple(cases), variants=records, overall=overall(list(sizes), cases), findings=(), waivers=()
    )  # fmt: skip


@pytest.fixture
def published(results: Results, real_data: Path) -> Results:
    """The study's own measurements of five of its networks, as a run."""
    with (real_data / "compression_on_cifar10c.csv").open(newline="") as lines:
        table = [row for row in csv.DictReader(lines) if (row["architecture"], row["configuration"]) in PUBLISHED]
    base = {
        (row["architecture"], row["corruption"], row["severity"]): float(row["error"])
        for row in table
        if row["configuration"] == "Original"
    }
    clean = {row["architecture"]: float(row["clean_error"]) for row in table if row["configuration"] == "Original"}
    cases, sizes = [], {}
    for row in table:
        name = row["configuration"].replace("Original", "none")
        variant = Variant(model=row["architecture"], source="cifar10", compression=name)
        if variant not in sizes:
            sizes[variant] = int(row["zip_bytes"])
            error = float(row["clean_error"])
            cases.append(corrupted(variant, Shift(kind="clean", name="clean"), error, clean[variant.model]))
        shift = shifted(row["corruption"], int(row["severity"]))
        held = base[variant.model, row["corruption"], row["severity"]]
        cases.append(corrupted(variant, shift, float(row["error"]), held))
    return run_of(results, cases, sizes)


def tabled(text: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, its head first."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [rows[0], *rows[2:]]


def test_the_rows_of_the_study_come_out(published: Results) -> None:
    head, *rows = tabled(as_markdown(corruption_tables(published)))
    assert head[:11] == [
        *("model", "source", "compression", "size (M)", "of reference", "compression rate"),
        *("clean error", "mean corruption accuracy", "R_C", "mCE", "relative mCE"),
    ]  # fmt: skip
    assert len(head) == 11 + 15
    found = {(row[0], row[2].replace("none", "Original")): (row[6], row[7], row[9], row[5]) for row in rows}
    assert found == PUBLISHED


def test_an_error_is_the_mean_over_its_severities_and_r_c_the_ratio_of_the_accuracies(published: Results) -> None:
    (table,) = corruption_tables(published)
    row = dict(zip(table.heads, table.rows[0], strict=True))
    errors = [
        1 - case.value for case in published.cases[1:76] if case.shift.corruption == "fog" if case.value is not None
    ]
    assert len(errors) == 5
    assert row["fog"] == f"{100 * sum(errors) / 5:.2f}"
    assert row["R_C"] == f"{63.39 / 88.42:.3f}"
    assert row["relative mCE"] == "100.00"
    assert (row["size (M)"], row["of reference"]) == ("23.57", "1.00")


def test_the_three_forms_hold_the_same_cells(published: Results) -> None:
    tables = corruption_tables(published)
    lines = list(csv.reader(io.StringIO(as_csv(tables))))
    assert lines == [list(line) for line in (tables[0].heads, *tables[0].rows)]
    latex = [line.removesuffix(" \\\\").split(" & ") for line in as_latex(tables).splitlines() if " & " in line]
    assert [[cell.replace("---", "—").replace("\\_", "_") for cell in line] for line in latex] == lines


def small(results: Results, errors: dict[tuple[str, str, int], float | None], **changes: object) -> Results:
    """A run of `none` and `fp` of one model; without a figure of its own, a case holds what `none` does."""
    variants = [Variant(model="m", source="day", compression=name) for name in ("none", "fp")]
    cases = [corrupted(variant, Shift(kind="clean", name="clean"), 0.1, 0.1) for variant in variants]
    for (name, corruption, severity), error in errors.items():
        variant = next(one for one in variants if one.compression == name)
        held = errors["none", corruption, severity]
        cases.append(corrupted(variant, shifted(corruption, severity), error, held, **changes))
    return run_of(results, cases, {variants[0]: 400, variants[1]: 100})


def test_a_part_of_the_benchmark_is_called_partial_and_a_negative_figure_stays_a_number(results: Results) -> None:
    cells = {("none", "fog", 1): 0.2, ("fp", "fog", 1): 0.05}
    (table,) = corruption_tables(small(results, cells))
    row = dict(zip(table.heads, table.rows[1], strict=True))
    assert (row["mCE"], row["relative mCE"]) == ("25.00 (partial)", "-50.00 (partial)")
    assert (row["compression rate"], row["fog"], row["R_C"]) == ("4.00", "5.00", "1.056")
    assert ",-50.00 (partial)," in as_csv([table])


def test_no_mean_is_taken_over_a_part_of_the_severities(results: Results) -> None:
    cells = {("none", "fog", 1): 0.2, ("none", "fog", 5): 0.4, ("fp", "fog", 1): 0.3, ("fp", "fog", 5): None}
    (table,) = corruption_tables(small(results, cells))
    none, fp = (dict(zip(table.heads, row, strict=True)) for row in table.rows)
    assert (none["fog"], fp["fog"]) == ("30.00", "not measured (1 of 2)")
    assert [fp[name] for name in ("mean corruption accuracy", "R_C", "mCE", "relative mCE")] == ["—"] * 4


def test_remarks_tell_severities_images_and_whose_corruptions_they_are(results: Results) -> None:
    cells = {("none", "fog", 1): 0.2, ("none", "fog", 5): 0.4}
    run = small(results, cells)
    stored = tuple(
        replace(case, shift=replace(case.shift, detail="stored benchmark day_c")) if case.shift.corruption else case
        for case in run.cases
    )
    (table,) = corruption_tables(replace(run, cases=stored))
    assert table.remarks == (
        "day: severities 1, 5",
        "day: stored benchmark day_c",
        "day: 10,000 images, 99 % intervals of up to ± 1.0 points",
    )


def test_hostile_names_show_and_do_nothing_else(results: Results) -> None:
    run = small(results, {("none", "fog", 1): 0.2})
    named = tuple(replace(case, model=HOSTILE, shift=replace(case.shift, corruption=HOSTILE)) for case in run.cases[2:])
    tables = corruption_tables(replace(run, cases=named))
    head, row = tabled(as_markdown(tables))
    assert (len(head), len(row)) == (12, 12)
    assert "&lt;" in row[0]
    latex = as_latex(tables)
    assert latex.count("\\end{tabular}") == 1
    assert "\\textbackslash{}end\\{tabular\\}" in latex
    formula = tuple(replace(case, source="=1+1", shift=replace(case.shift, corruption="@SUM(A1)")) for case in named)
    first, second = csv.reader(io.StringIO(as_csv(corruption_tables(replace(run, cases=formula)))))
    assert (first[-1], second[1]) == ("'@SUM(A1)", "'=1+1")


def test_the_files_are_made_from_results_json_alone_and_taken_away_with_the_corruptions(
    published: Results, tmp_path: Path
) -> None:
    write_reports(published, tmp_path / "first", None)
    write_reports(results_json.load(tmp_path / "first" / "results.json"), tmp_path / "second", None)
    for name in ("corruptions.md", "corruptions.csv", "corruptions.tex"):
        text = (tmp_path / "first" / name).read_text()
        assert "76.75" in text
        assert (tmp_path / "second" / name).read_text() == text
    clean = tuple(case for case in published.cases if case.shift.kind == "clean")
    write_reports(replace(published, cases=clean), tmp_path / "first", None)
    assert not list((tmp_path / "first").glob("corruptions.*"))
