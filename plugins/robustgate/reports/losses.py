"""Which classes a compression lost most, over all shifts of a model and source domain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustgate.core.records import REFERENCE, CaseResult, ClassAccuracy, Results, Shift
from robustgate.reports import figures
from robustgate.reports.view import shift_label

# Reports fold what comes after these classes of a table.
OPEN = 12


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a compression lost of a class where it lost most: the case of that `index` among the results'.

    In so many `cases`, this one among them, the class is one of those that lost most.
    """

    points: float
    figures: str
    shift: str
    index: int
    cases: int


@dataclass(frozen=True, kw_only=True)
class ClassLosses:
    """A class, and what each compression lost of it; None where it is in no case one of those that lost most."""

    name: str
    cells: tuple[Loss | None, ...]

    @property
    def worst(self) -> float:
        """The largest of its losses."""
        return max(loss.points for loss in self.cells if loss)


@dataclass(frozen=True, kw_only=True)
class LossTable:
    """The classes that a model of a source domain lost most, under any compression and shift; worst first."""

    model: str
    source: str
    compressions: tuple[str, ...]
    rows: tuple[ClassLosses, ...]


def loss_tables(results: Results) -> list[LossTable] | None:
    """Return a table for each model and source domain that lost anything; None where nothing could be compared."""
    groups: dict[tuple[str, str], list[tuple[int, CaseResult]]] = {}
    for index, case in enumerate(results.cases):
        if case.compression != REFERENCE and case.reference_value is not None:
            groups.setdefault((case.model, case.source), []).append((index, case))
    if not groups:
        return None
    tables = [_table(model, source, cases) for (model, source), cases in groups.items()]
    return [table for table in tables if table.rows]


def _table(model: str, source: str, cases: Iterable[tuple[int, CaseResult]]) -> LossTable:
    compressions = tuple(dict.fromkeys(case.compression for _, case in cases))
    found: dict[str, dict[str, list[tuple[ClassAccuracy, int, CaseResult]]]] = {}
    for index, case in cases:
        for lost in case.most_lost:
            found.setdefault(lost.name, {}).setdefault(case.compression, []).append((lost, index, case))
    rows = (
        ClassLosses(name=name, cells=tuple(_worst(cells.get(compression, [])) for compression in compressions))
        for name, cells in found.items()
    )
    return LossTable(
        model=model,
        source=source,
        compressions=compressions,
        rows=tuple(sorted(rows, key=lambda row: -row.worst)),
    )


def _worst(losses: list[tuple[ClassAccuracy, int, CaseResult]]) -> Loss | None:
    if not losses:
        return None
    lost, index, case = max(losses, key=lambda entry: entry[0].reference - entry[0].value)
    return Loss(
        points=lost.reference - lost.value,
        figures=f"{figures.tenths(lost.reference)} → {figures.percent(lost.value)} of {figures.count(lost.n)}",
        shift=_short(case.shift),
        index=index,
        cases=len(losses),
    )


def _short(shift: Shift) -> str:
    return shift.attack or shift_label(shift)
