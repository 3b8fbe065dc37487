"""The matrix: accuracy of each compression under each shift, one matrix for each model and source domain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from robustgate.core.records import CaseResult, Results, Shift, ShiftKind
from robustgate.reports import figures
from robustgate.reports.view import STANDINGS, Standing, figure, standing

KINDS: dict[ShiftKind, str] = {
    "clean": "",
    "domain_shift": "Other domains",
    "corruption": "Corruptions",
    "adversarial": "Attacks",
    "masking": "Gradient masking",
    "stability": "Mild changes",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One shift, or a corruption at all its severities."""

    kind: ShiftKind
    name: str
    label: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A case in the matrix; `index` is its place among the results' cases."""

    text: str
    standing: Standing
    value: float | None
    index: int
    title: str
    severity: int | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A compression. `cells` has one entry for each column: its cells by severity; empty where none was planned."""

    label: str
    cells: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """All cases of a model trained on a source domain. `corruptions` says whose they are, where not our own."""

    model: str
    source: str
    corruptions: str
    columns: tuple[Column, ...]
    severities: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """What stands above it."""
        return f"{self.model} trained on {self.source}" + (f"; {self.corruptions}" if self.corruptions else "")

    @property
    def spans(self) -> list[tuple[str, int]]:
        """The headings over the columns, each with the number of columns that it spans."""
        return [(KINDS[kind], len(list(columns))) for kind, columns in groupby(self.columns, lambda item: item.kind)]

    @property
    def first_corruption(self) -> Column | None:
        """The first column that has severities."""
        return next((column for column in self.columns if column.kind == "corruption"), None)

    def line(self, cells: tuple[Cell, ...], severity: int) -> Cell | None:
        """Return the cell of a corruption's column at `severity`, or None where none was planned."""
        return next((cell for cell in cells if cell.severity == severity), None)


def matrices(results: Results) -> list[Matrix]:
    """Return the matrices, rows and columns in the order of the results, columns by kind of shift."""
    groups: dict[tuple[str, str], list[tuple[int, CaseResult]]] = {}
    for index, case in enumerate(results.cases):
        groups.setdefault((case.model, case.source), []).append((index, case))
    return [_matrix(model, source, cases) for (model, source), cases in groups.items()]


def _matrix(model: str, source: str, cases: list[tuple[int, CaseResult]]) -> Matrix:
    columns = {_key(case.shift): _column(case.shift) for _, case in reversed(cases)}
    ordered = sorted(
        dict.fromkeys(_key(case.shift) for _, case in cases), key=lambda key: list(KINDS).index(columns[key].kind)
    )
    severities = sorted({case.shift.severity for _, case in cases if case.shift.severity is not None})
    rows: dict[str, dict[tuple[str, str], list[Cell]]] = {}
    for index, case in cases:
        rows.setdefault(case.compression, {}).setdefault(_key(case.shift), []).append(_cell(index, case))
    return Matrix(
        model=model,
        source=source,
        corruptions=next((case.shift.detail or "" for _, case in cases if case.shift.kind == "corruption"), ""),
        columns=tuple(columns[key] for key in ordered),
        severities=tuple(severities),
        rows=tuple(
            Row(label=label, cells=tuple(_by_severity(cells.get(key, ())) for key in ordered))
            for label, cells in rows.items()
        ),
    )


def _key(shift: Shift) -> tuple[str, str]:
    return shift.kind, (shift.corruption or shift.name) if shift.kind == "corruption" else shift.name


def _column(shift: Shift) -> Column:
    labels = {
        "clean": "clean",
        "domain_shift": f"→\u00a0{shift.target}",
        "corruption": shift.corruption or shift.name,
        "adversarial": shift.attack or shift.name,
        "masking": shift.name,
        "stability": shift.name,
    }
    note = shift.detail or "" if shift.kind == "adversarial" else ""
    return Column(kind=shift.kind, name=_key(shift)[1], label=labels[shift.kind], note=note)


def _cell(index: int, case: CaseResult) -> Cell:
    held = standing(case)
    # Of checks for masking the verdict is the figure: the accuracy is that of a few samples under several attacks. That
    # of a stability case is no accuracy at all.
    is_figure = case.shift.kind not in ("masking", "stability") or case.value is None
    return Cell(
        text=figure(case) if is_figure else held.word,
        standing=held,
        value=case.value if is_figure else None,
        index=index,
        title=f"{case.name}: {figure(case)}{' %' if case.value is not None else ''}, {held.word}",
        severity=case.shift.severity if case.shift.kind == "corruption" else None,
    )


def _by_severity(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    return tuple(sorted(cells, key=lambda cell: cell.severity or 0))


@dataclass(frozen=True, kw_only=True)
class Digest:
    """Cells of one compression and column in one figure: their mean, and the worst where there are several."""

    text: str
    standing: Standing


def digest(cells: tuple[Cell, ...]) -> Digest | None:
    """Return cells in short, None where none was planned. No mean is taken over a part of the severities."""
    if not cells:
        return None
    held = min((cell.standing for cell in cells), key=STANDINGS.index)
    values = [(cell.value, cell) for cell in cells if cell.value is not None]
    missing = [cell.text for cell in cells if cell.value is None]
    if missing:
        part = f" ({len(missing)} of {len(cells)})" if values else ""
        return Digest(text=f"{missing[0]}{part}", standing=held)
    if len(values) == 1:
        return Digest(text=cells[0].text, standing=held)
    mean = sum(value for value, _ in values) / len(values)
    lowest, worst = min(values, key=lambda pair: pair[0])
    return Digest(text=f"{figures.tenths(mean)} ({figures.tenths(lowest)} at {worst.severity})", standing=held)
