"""The report folder of a run."""

from __future__ import annotations

from pathlib import Path

from robustgate.core.files import write_whole
from robustgate.core.records import Results
from robustgate.reports import html, markdown, results_json
from robustgate.reports.pictures import limited


def write_reports(results: Results, folder: Path) -> Path:
    """Write results.json, report.md and report.html into `folder`; return the path of the last.

    Of a large run, the pictures of some cases only are written.
    """
    results = limited(results)
    results_json.write(results, folder / "results.json")
    write_whole(folder / "report.md", markdown.render(results))
    write_whole(folder / "report.html", html.render(results))
    return folder / "report.html"
