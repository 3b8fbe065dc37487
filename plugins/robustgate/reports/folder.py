"""The report folder of a run."""

from __future__ import annotations

from pathlib import Path

from robustgate.core.files import write_whole
from robustgate.core.records import Results
from robustgate.reports import corruption_tables, html, markdown, pairs, results_json
from robustgate.reports.pictures import limited
from robustgate.reports.supplement import NOTHING, Supplement
from robustgate.reports.tables import as_csv


def write_results(results: Results, folder: Path) -> Results:
    """Write results.json into `folder`, and return what it holds: of a large run, the pictures of some cases only."""
    results = limited(results)
    results_json.write(results, folder / "results.json")
    return results


def rebuild(results: Results, folder: Path, supplement: Supplement = NOTHING) -> Path:
    """Write report.md and report.html of a results.json into `folder`; return the path of the last.

    A run with domain pairs has their table in pairs.md, pairs.csv and pairs.tex too, and one with corruptions theirs
    in corruptions.md and so on; one without takes away those of an earlier run.
    """
    write_whole(folder / "report.md", markdown.render(results))
    write_whole(folder / "report.html", html.render(results, supplement))
    for name, page, tables in (
        ("pairs", pairs, pairs.pair_tables(results)),
        ("corruptions", corruption_tables, corruption_tables.corruption_tables(results)),
    ):
        for suffix, render in (("md", page.as_markdown), ("csv", as_csv), ("tex", page.as_latex)):
            if tables:
                write_whole(folder / f"{name}.{suffix}", render(tables))
            else:
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    return folder / "report.html"
