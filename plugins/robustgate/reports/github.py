"""What a run tells GitHub Actions: annotations, as workflow commands."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from robustgate.core.records import Finding, Results
from robustgate.reports import figures, policies
from robustgate.reports.troubles import Trouble, troubles

# GitHub shows the first ten of each kind that a step prints, and no word of the others.
SHOWN = 10
# Its summary of a step; of more than that it shows nothing.
SUMMARY_BYTES = 1024 * 1024
TITLE, MESSAGE = 200, 4_000
ERRORS = ("error", "fail", "incomplete")
DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
PROPERTY = DATA | str.maketrans({":": "%3A", ",": "%2C"})


@dataclass(frozen=True, kw_only=True)
class Source:
    """The configuration: its path in the repository, None where it is outside of it, and its text."""

    file: str | None
    text: str


def commands(results: Results, source: Source, complaint: str = "") -> list[str]:
    """Return a run's annotations, each a line: errors for what failed, worst first, then warnings.

    Warnings are for what the data cannot decide, and for waivers that have expired or soon will. `complaint` is why a
    run without a failure is red all the same. No text from outside can start another command: none starts a line, and
    none ends the one that it is in.
    """
    found = troubles(results)
    errors = [_told("error", f"robustgate: {complaint}", complaint, source)] if complaint else []
    errors += [_trouble("error", one, source) for one in found if one.standing.word in ERRORS]
    warnings = [_trouble("warning", one, source) for one in found if one.standing.word not in ERRORS]
    for expired in (True, False):
        for line in policies.warnings(results, expired=expired):
            warnings.append(_told("warning", "robustgate: a waiver", line, source))
    return [*_shown("error", errors), *_shown("warning", warnings)]


def line_of(finding: Finding, text: str) -> int | None:
    """Return the line of a configuration, from 1, that names a finding's rule; None where that is not certain.

    It is certain of a line ``name = "..."`` below ``[[policies.<policy>.rules]]`` that is the only such one.
    """
    table: dict[str, Any] = {"policies": {finding.policy: {"rules": [{}]}}}
    tables = (table, {"tool": {"robustgate": table}})
    places, header = [], None
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if entry.startswith("["):
            header = _parsed(entry)
        elif header in tables and entry.startswith("name") and _parsed(entry) == {"name": finding.rule}:
            places.append(number)
    return places[0] if len(places) == 1 else None


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(line)
    except tomllib.TOMLDecodeError:  # a line within a longer value
        return None


def _trouble(command: str, trouble: Trouble, source: Source) -> str:
    title = f"robustgate: {trouble.standing.word}: {trouble.title}"
    lines = [*trouble.reasons, trouble.reproduce]
    message = "\n".join(" ".join(line.split()) for line in lines if line)
    line = line_of(trouble.finding, source.text) if trouble.finding is not None else None
    return _told(command, title, message or title, source, line)


def _told(command: str, title: str, message: str, source: Source, line: int | None = None) -> str:
    """Return a workflow command. What ends a command, a property or a line in it is escaped as GitHub reads it."""
    place = {"file": source.file, "line": line if source.file else None}
    named = {**place, "title": figures.clipped(" ".join(title.split()), TITLE)}
    listed = ",".join(f"{name}={str(value).translate(PROPERTY)}" for name, value in named.items() if value is not None)
    return f"::{command} {listed}::{figures.clipped(message, MESSAGE).translate(DATA)}"


def _shown(command: str, lines: Sequence[str]) -> Iterable[str]:
    """Return what GitHub shows of the lines, the last of them telling how many more there are."""
    if len(lines) <= SHOWN:
        return lines
    more = figures.counted(len(lines) - SHOWN + 1, f"more {command}")
    return [*lines[: SHOWN - 1], f"::{command} title=robustgate::{more}: see the summary and the reports of the run"]
