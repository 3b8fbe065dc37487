"""corruptions.md, corruptions.csv, corruptions.tex: compressions by corruption, as the field's papers print them.

The columns are those of Alves da Silva et al. 2025 (arXiv 2512.24971: compression rate, clean error, mCE, the error of
each corruption) and of Bair et al. 2024 (arXiv 2306.14306: size of the dense network, mean accuracy, its ratio R_C).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from robustgate.core.records import REFERENCE, CaseResult, OverallRecord, Results, VariantRecord
from robustgate.reports import figures, tables
from robustgate.reports.tables import SIZE, Table, measured_on, percent, size
from robustgate.reports.view import figure

TEXTS = ("model", "source", "compression")
FIGURES = (
    *("size (M)", "of reference", "compression rate", "clean error"),
    *("mean corruption accuracy", "R_C", "mCE", "relative mCE"),
)
CAPTION = "Percent. Below a corruption's name: the error, a plain mean over its severities."
COLUMNS = (
    "Of reference: parameters against the uncompressed network's; compression rate: its deflated file against the "
    "uncompressed network's; R_C: mean corruption accuracy by clean accuracy; mCE and relative mCE: against the "
    "uncompressed network of the same model and source, which has 100, unrounded, and partial where not all 15 "
    "benchmark corruptions at 5 severities are planned."
)

_Key = tuple[str, str, str]


def corruption_tables(results: Results) -> list[Table]:
    """Return one table, or none where the run has no corruptions; rows and columns stand in the order of the results.

    A row is a variant. No mean is taken over a part of the severities that are planned of a corruption.
    """
    cases = [case for case in results.cases if case.shift.kind == "corruption"]
    if not cases:
        return []
    columns = tuple(dict.fromkeys(_corruption(case) for case in cases))
    rows: dict[_Key, dict[str, list[CaseResult]]] = {}
    for case in cases:
        rows.setdefault(_key(case), {}).setdefault(_corruption(case), []).append(case)
    built = {_key(record): record for record in results.variants}
    overall = {_key(record): record for record in results.overall}
    clean = {_key(case): case for case in results.cases if case.shift.kind == "clean"}
    return [
        Table(
            heads=(*TEXTS, *FIGURES, *columns),
            texts=len(TEXTS),
            rows=tuple(
                (
                    *key,
                    *_costs(built.get(key), built.get((*key[:2], REFERENCE))),
                    _error([clean[key]] if key in clean else []),
                    *_means(overall.get(key)),
                    *(_error(found.get(name, [])) for name in columns),
                )
                for key, found in rows.items()
            ),
            remarks=tuple(_remarks(cases, results.run.confidence)),
        )
    ]


def as_markdown(found: Sequence[Table]) -> str:
    """Return corruptions.md."""
    return tables.as_markdown("Corruptions", f"{CAPTION} {SIZE} {COLUMNS}", found)


def as_latex(found: Sequence[Table]) -> str:
    """Return corruptions.tex."""
    return tables.as_latex(f"{CAPTION}\n% {SIZE}\n% {COLUMNS}", found)


def _key(row: CaseResult | VariantRecord | OverallRecord) -> _Key:
    return row.model, row.source, row.compression


def _corruption(case: CaseResult) -> str:
    return case.shift.corruption or case.shift.name


def _costs(record: VariantRecord | None, reference: VariantRecord | None) -> tuple[str, str, str]:
    if record is None:
        return (figures.NOTHING,) * 3
    dense = reference.parameters if reference else None
    share = f"{record.parameters / dense:.2f}" if record.parameters and dense else figures.NOTHING
    rate = figures.NOTHING if record.compression_ratio is None else f"{record.compression_ratio:.2f}"
    return size([record]), share, rate


def _error(cases: Sequence[CaseResult]) -> str:
    """Return the mean error of cases, or words that say why there is none."""
    if not cases:
        return figures.NOTHING
    values = [case.value for case in cases if case.value is not None]
    missing = [case for case in cases if case.value is None]
    if missing:
        part = f" ({len(missing)} of {len(cases)})" if values else ""
        return f"{figure(missing[0])}{part}"
    return percent(1 - fmean(values))


def _means(record: OverallRecord | None) -> tuple[str, str, str, str]:
    if record is None:
        return (figures.NOTHING,) * 4
    held = record.mean_corruption_accuracy
    kept = record.corruption_retention
    return (
        figures.NOTHING if held is None else percent(held),
        figures.NOTHING if kept is None else f"{kept:.3f}",
        _ratio(record.mce, record.mce_partial),
        _ratio(record.relative_mce, record.relative_mce_partial),
    )


def _ratio(whole: float | None, partial: float | None) -> str:
    if whole is not None:
        return percent(whole)
    return figures.NOTHING if partial is None else f"{percent(partial)} (partial)"


def _remarks(cases: Sequence[CaseResult], confidence: float) -> Iterable[str]:
    """Return for each source domain which severities, how many images, and what else there is to know of them."""
    for source in dict.fromkeys(case.source for case in cases):
        members = [case for case in cases if case.source == source]
        severities = sorted({case.shift.severity for case in members if case.shift.severity is not None})
        if severities:
            yield f"{source}: severities {', '.join(map(str, severities))}"
        for detail in dict.fromkeys(case.shift.detail for case in members if case.shift.detail):
            yield f"{source}: {detail}"
        for remark in measured_on(members, confidence):
            yield f"{source}: {remark}"
