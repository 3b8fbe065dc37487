"""The reports of a run, with what is told beside its results."""

from __future__ import annotations

from pathlib import Path

from robustgate.core.errors import ResultsError
from robustgate.core.records import Results
from robustgate.engine.assessment import assess
from robustgate.engine.candidates import from_results
from robustgate.reports import folder, history
from robustgate.reports.supplement import Supplement

# So many runs, the last ones, are shown.
RUNS = 30


def write_reports(results: Results, place: Path, history_file: Path | None) -> Path:
    """Write results.json into the folder `place`, and the reports; return the path of report.html."""
    written = folder.write_results(results, place)  # first: whatever befalls the rest, it is there
    return rebuild(written, place, history_file)


def rebuild(results: Results, place: Path, history_file: Path | None) -> Path:
    """Write the reports of a results.json into the folder `place`; return the path of report.html."""
    return folder.rebuild(results, place, supplement(results, history_file))


def supplement(results: Results, history_file: Path | None) -> Supplement:
    """Assess a run's variants, and read the runs before, where a history is kept; say why where one cannot be had."""
    assessment, unassessed, runs, unread = None, "", None, ""
    try:
        assessment = assess(from_results(results))
    except ResultsError as error:
        unassessed = str(error)
    if history_file is not None and history_file.is_file():
        try:
            runs = history.read(history_file, RUNS)
        except ResultsError as error:
            unread = str(error)
    return Supplement(assessment=assessment, unassessed=unassessed, history=runs, unread=unread)
