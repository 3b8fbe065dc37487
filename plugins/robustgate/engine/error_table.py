"""Variants from a table of the errors that others measured, in the layout of the results of arXiv 2512.24971."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustgate.core.assessments import Candidate
from robustgate.core.errors import ResultsError, listing
from robustgate.engine.candidates import Cell, Field, comparable, mean_corruption_error, rounded_mean

COLUMNS = ("architecture", "configuration", "zip_bytes", "clean_error", "corruption", "severity", "error")
UNCOMPRESSED = "Original"
USUAL = ("accuracy", "mce_rounded", "compression_ratio")  # those of the study, as it rounds them


def from_table(path: Path) -> Field:
    """Return the variants of a CSV of errors, a row for each corruption and severity, with the columns `COLUMNS`.

    Errors are fractions. Of each architecture the configuration ``Original`` is the reference; one without it has no
    relative figures. No mean is taken over a part of the cells that the file has. Raises ResultsError where the file is
    not such a table, with the line.
    """
    tabled = _read_table(path)
    cells = tuple(dict.fromkeys(cell for one in tabled.values() for cell in one.errors))
    references = {architecture: one for (architecture, name), one in tabled.items() if name == UNCOMPRESSED}
    return Field(
        candidates=tuple(
            Candidate(
                name=f"{architecture}-{name}",
                model=architecture,
                source=path.stem,
                compression=name,
                is_compressed=name != UNCOMPRESSED,
                figures=comparable(_tabled_figures(one, references.get(architecture), cells)),
            )
            for (architecture, name), one in tabled.items()
        ),
        usual=USUAL,
    )


@dataclass(frozen=True, kw_only=True)
class _Tabled:
    """A configuration of the table."""

    size: int
    clean: float
    errors: dict[Cell, float]


def _tabled_figures(one: _Tabled, base: _Tabled | None, cells: Sequence[Cell]) -> dict[str, float | None]:
    whole = one.errors.keys() == set(cells)
    figures: dict[str, float | None] = {"accuracy": 1 - one.clean, "deflated_size": one.size}
    figures["mean_corruption_accuracy"] = 1 - float(np.mean([*one.errors.values()])) if whole else None
    if base is not None:
        figures["compression_ratio"] = base.size / one.size
        figures["mce"] = mean_corruption_error(one.errors, base.errors, lambda errors: float(errors.mean()))
        figures["mce_rounded"] = mean_corruption_error(one.errors, base.errors, rounded_mean)
    return figures


def _read_table(path: Path) -> dict[tuple[str, str], _Tabled]:
    tabled: dict[tuple[str, str], _Tabled] = {}
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise ResultsError(f"{path}: expected the columns {', '.join(COLUMNS)}, without {listing(missing)}")
            for row in reader:
                _take(tabled, row, f"{path}: line {reader.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"{path}: expected a table of errors, cannot read it: {error}") from error
    if not tabled:
        raise ResultsError(f"{path}: expected a row for each corruption and severity, got none")
    return tabled


def _take(tabled: dict[tuple[str, str], _Tabled], row: Mapping[str, str | None], place: str) -> None:
    """Add a row of the table to its configuration. Raises ResultsError where it does not fit the others."""
    given = {column: row[column] or "" for column in COLUMNS}
    try:
        size, severity = int(given["zip_bytes"]), int(given["severity"])
        clean, error = float(given["clean_error"]), float(given["error"])
    except ValueError as mistake:
        raise ResultsError(f"{place}: expected numbers, got {mistake}") from mistake
    if size < 1 or not (0 <= clean <= 1 and 0 <= error <= 1):
        raise ResultsError(f"{place}: expected at least 1 byte and errors in [0, 1], got {size}, {clean:g}, {error:g}")
    architecture, name = given["architecture"], given["configuration"]
    known = tabled.setdefault((architecture, name), _Tabled(size=size, clean=clean, errors={}))
    if (known.size, known.clean) != (size, clean):
        raise ResultsError(f"{place}: {architecture} {name} has another zip_bytes or clean_error above")
    cell = given["corruption"], severity
    if cell in known.errors:
        raise ResultsError(f"{place}: {architecture} {name} has {cell[0]}, severity {severity}, twice")
    known.errors[cell] = error
