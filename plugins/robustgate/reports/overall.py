"""Every variant over all its shifts, as it is printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from robustgate.core.records import REFERENCE, OverallRecord, Results
from robustgate.reports import figures
from robustgate.reports.view import variant_label

UNMEASURED = f"{figures.NOTHING} not measured in full"
UNDEFINED = f"{figures.NOTHING} undefined"
SELF = "reference"
EXPLANATION = (
    "Plain means over all planned cells, as measured: intervals stand with the rules on them. An mCE is against the "
    "uncompressed reference, which is 100, and unrounded; it is partial where not all 15 benchmark corruptions at 5 "
    "severities are planned. A low relative mCE or a high retention may also come of a lost clean accuracy: read them "
    "beside the accuracy itself. Tau is the accuracy less the reference's."
)


@dataclass(frozen=True, kw_only=True)
class Overall:
    """A row: a variant and its cells, in the order of the heads."""

    title: str
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OverallTable:
    """The variants over the kinds of shifts that the run has."""

    heads: tuple[str, ...]
    rows: tuple[Overall, ...]


def overall_table(results: Results) -> OverallTable:
    """Return the table; without rows where no shift is in the plan but clean images, or nothing was measured."""
    kinds = {case.shift.kind for case in results.cases}
    columns = {"clean": _clean}
    if "corruption" in kinds:
        columns |= {
            "mean corruption accuracy": lambda one: _percent(one.mean_corruption_accuracy),
            "mCE against the reference": lambda one: _error(one, one.mce, one.mce_partial),
            "relative mCE (at mean corruption accuracy)": _relative,
            "retention, corruptions": lambda one: _retention(one.mean_corruption_accuracy, one.corruption_retention),
            "tau, corruptions": lambda one: _points(one, one.corruption_relative_robustness),
            "worst corruption": lambda one: _worst(one.worst_corruption, one.worst_corruption_accuracy),
        }
    if "domain_shift" in kinds:
        columns |= {
            "mean domain accuracy": lambda one: _percent(one.mean_domain_accuracy),
            "retention, domains": lambda one: _retention(one.mean_domain_accuracy, one.domain_retention),
            "tau, domains": lambda one: _points(one, one.domain_relative_robustness),
            "worst domain": lambda one: _worst(one.worst_domain, one.worst_domain_accuracy),
        }
    columns["agreement on clean (right→wrong, wrong→right, other)"] = _agreement
    known = len(columns) > 2 and any(
        one.clean is not None or one.mean_corruption_accuracy is not None or one.mean_domain_accuracy is not None
        for one in results.overall
    )
    rows = tuple(_row(one, tuple(columns.values())) for one in results.overall) if known else ()
    return OverallTable(heads=tuple(columns), rows=rows)


def _row(one: OverallRecord, cells: tuple[Callable[[OverallRecord], str], ...]) -> Overall:
    return Overall(title=variant_label(one), cells=tuple(cell(one) for cell in cells))


def _clean(one: OverallRecord) -> str:
    return _percent(one.clean)


def _percent(value: float | None) -> str:
    return UNMEASURED if value is None else figures.percent(value)


def _error(one: OverallRecord, whole: float | None, partial: float | None) -> str:
    """Return an error ratio times 100; one over a part of the benchmark says so."""
    if whole is not None:
        return figures.tenths(whole)
    if partial is not None:
        return f"{figures.tenths(partial)} (partial)"
    return UNMEASURED if one.mean_corruption_accuracy is None else UNDEFINED


def _relative(one: OverallRecord) -> str:
    text = _error(one, one.relative_mce, one.relative_mce_partial)
    is_known = one.relative_mce is not None or one.relative_mce_partial is not None
    return f"{text} at {_percent(one.mean_corruption_accuracy)}" if is_known else text


def _retention(held: float | None, value: float | None) -> str:
    return _percent(value) if value is not None or held is None else UNDEFINED


def _points(one: OverallRecord, value: float | None) -> str:
    if one.compression == REFERENCE:
        return SELF
    return UNMEASURED if value is None else figures.points(value)


def _worst(name: str | None, value: float | None) -> str:
    return UNMEASURED if name is None or value is None else f"{name}: {figures.percent(value)}"


def _agreement(one: OverallRecord) -> str:
    if one.compression == REFERENCE:
        return SELF
    if one.agreement is None or one.lost is None or one.gained is None:
        return UNMEASURED
    other = max(0.0, 1 - one.agreement - one.lost - one.gained)
    return f"{figures.percent(one.agreement)} ({', '.join(map(figures.tenths, (one.lost, one.gained, other)))})"
