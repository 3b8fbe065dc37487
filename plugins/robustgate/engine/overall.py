"""Every variant over all its shifts, from the accuracies of its cases alone: point figures, for the reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustgate.core.benchmark import BENCHMARK_CORRUPTIONS, SEVERITIES
from robustgate.core.records import REFERENCE, CaseResult, OverallRecord, Variant
from robustgate.rules.mce import corruption_errors

BENCHMARK_CELLS = {(name, severity) for name in BENCHMARK_CORRUPTIONS for severity in SEVERITIES}


def overall(variants: Sequence[Variant], rows: Iterable[CaseResult]) -> tuple[OverallRecord, ...]:
    """Return a record for each variant; no mean is taken over a part of what is planned."""
    of: dict[tuple[str, str, str], list[CaseResult]] = {}
    for row in rows:
        of.setdefault((row.model, row.source, row.compression), []).append(row)
    return tuple(
        _record(variant, of.get((variant.model, variant.source, variant.compression), [])) for variant in variants
    )


def _record(variant: Variant, rows: Sequence[CaseResult]) -> OverallRecord:
    clean = [row for row in rows if row.shift.kind == "clean"]
    corrupted = [row for row in rows if row.shift.kind == "corruption"]
    moved = [row for row in rows if row.shift.kind == "domain_shift"]
    is_clean_known = _all_measured(clean)
    base = _base(clean) if is_clean_known else None
    figures: dict[str, Any] = {}
    if is_clean_known:
        figures |= {"clean": clean[0].value, "agreement": clean[0].agreement}
        figures |= {"lost": clean[0].lost, "gained": clean[0].gained}
    if _all_measured(corrupted):
        means = {name: float(np.mean(held)) for name, held in _by_corruption(corrupted, _values(corrupted)).items()}
        worst = min(means, key=lambda name: means[name])
        figures |= {"worst_corruption": worst, "worst_corruption_accuracy": means[worst]}
        figures |= _held("corruption", corrupted, figures.get("clean"))
        figures |= _errors(corrupted, figures.get("clean"), base)
    if _all_measured(moved):
        least = min(moved, key=lambda row: row.value or 0.0)
        figures |= {"worst_domain": least.shift.target, "worst_domain_accuracy": least.value}
        figures |= _held("domain", moved, figures.get("clean"))
    given: dict[str, Any] = {**variant.fields, **figures}
    return OverallRecord(name=variant.name, **given)


def _held(kind: str, rows: Sequence[CaseResult], clean: float | None) -> dict[str, float | None]:
    """Return the mean accuracy, the retention and the relative robustness under shifts of one kind."""
    held = float(_values(rows).mean())
    return {
        f"mean_{kind}_accuracy": held,
        f"{kind}_retention": held / clean if clean else None,
        f"{kind}_relative_robustness": None if rows[0].compression == REFERENCE else held - float(_bases(rows).mean()),
    }


def _errors(rows: Sequence[CaseResult], clean: float | None, base: float | None) -> dict[str, float | None]:
    """Return mCE and relative mCE against the reference, over the benchmark or over the part of it that is planned."""
    cells = [row for row in rows if (row.shift.corruption, row.shift.severity) in BENCHMARK_CELLS]
    if not cells:
        return {}
    suffix = "" if len(cells) == len(BENCHMARK_CELLS) else "_partial"
    errors, base_errors = 1 - _grid(cells, _values(cells)), 1 - _grid(cells, _bases(cells))
    figures = {f"mce{suffix}": _finite(corruption_errors(errors, base_errors))}
    if clean is not None and base is not None:
        added = corruption_errors(errors - (1 - clean), base_errors - (1 - base))
        figures[f"relative_mce{suffix}"] = _finite(added)
    return figures


def _finite(errors: NDArray[np.float64]) -> float | None:
    mean = float(errors.mean())
    return mean if np.isfinite(mean) else None


def _grid(cells: Sequence[CaseResult], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values, one a cell, as (corruptions, severities)."""
    return np.array(list(_by_corruption(cells, values).values()))


def _by_corruption(rows: Sequence[CaseResult], values: NDArray[np.float64]) -> dict[str, list[float]]:
    by_name: dict[str, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        by_name.setdefault(str(row.shift.corruption), []).append(float(value))
    return by_name


def _all_measured(rows: Sequence[CaseResult]) -> bool:
    """Say whether there are rows, and all are measured in full, as are those that they are compared with."""
    in_full = all(row.value is not None and row.n == row.n_total for row in rows)
    return bool(rows) and in_full and all(_base([row]) is not None for row in rows)


def _values(rows: Sequence[CaseResult]) -> NDArray[np.float64]:
    return np.array([row.value for row in rows], dtype=np.float64)


def _bases(rows: Sequence[CaseResult]) -> NDArray[np.float64]:
    return np.array([_base([row]) for row in rows], dtype=np.float64)


def _base(rows: Sequence[CaseResult]) -> float | None:
    """Return the accuracy of a row's reference, which a reference is itself."""
    (row,) = rows
    return row.value if row.compression == REFERENCE else row.reference_value
