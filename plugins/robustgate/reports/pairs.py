"""pairs.md, pairs.csv, pairs.tex: compressions by domain pair, as Shen et al. 2024 (arXiv 2401.12014) print them.

Accuracy on the target in percent, and each row's mean over all pairs of its table.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from robustgate.core.records import CaseResult, Results, VariantRecord
from robustgate.reports import figures, tables
from robustgate.reports.tables import SIZE, Table, measured_on, percent, size
from robustgate.reports.view import figure

HEADS = ("model", "compression", "size (M)")
TEXTS = 2  # columns of text, before those of figures
CAPTION = "Percent right on the whole of the target; trained on the first domain, tested on the second."


def pair_tables(results: Results) -> list[Table]:
    """Return a table for each set of models that share pairs: what they do not share is a gap, and is counted as one.

    A row is a compression of a model: model, compression, size, accuracy on each pair, average.

    Rows and pairs stand in the order of the results.
    """
    cases = [case for case in results.cases if case.shift.kind == "domain_shift"]
    groups: list[tuple[set[str], set[tuple[str, str]]]] = []
    for case in cases:
        models, pairs = {case.model}, {_pair(case)}
        for group in [one for one in groups if one[0] & models or one[1] & pairs]:
            groups.remove(group)
            models, pairs = models | group[0], pairs | group[1]
        groups.append((models, pairs))
    order = {case.model: place for place, case in reversed(list(enumerate(cases)))}
    groups.sort(key=lambda group: min(order[model] for model in group[0]))
    return [_table(results, [case for case in cases if case.model in models]) for models, _ in groups]


def as_markdown(found: Sequence[Table]) -> str:
    """Return pairs.md."""
    return tables.as_markdown("Domain pairs", f"{CAPTION} {SIZE}", found)


def as_latex(found: Sequence[Table]) -> str:
    """Return pairs.tex."""
    return tables.as_latex(f"{CAPTION}\n% {SIZE}", found)


def _pair(case: CaseResult) -> tuple[str, str]:
    return case.source, str(case.shift.target)


def _table(results: Results, cases: list[CaseResult]) -> Table:
    columns: dict[tuple[str, str], list[CaseResult]] = {}
    rows: dict[tuple[str, str], dict[tuple[str, str], CaseResult]] = {}
    for case in cases:
        columns.setdefault(_pair(case), []).append(case)
        rows.setdefault((case.model, case.compression), {})[_pair(case)] = case
    built: dict[tuple[str, str], list[VariantRecord]] = {}
    for record in results.variants:
        built.setdefault((record.model, record.compression), []).append(record)
    return Table(
        texts=TEXTS,
        heads=(*HEADS, *map(_named, columns), f"average over {figures.counted(len(columns), 'pair')}"),
        rows=tuple(
            (
                *(*row, size(built.get(row, []))),
                *(_cell(found.get(pair)) for pair in columns),
                _average([found.get(pair) for pair in columns]),
            )
            for row, found in rows.items()
        ),
        remarks=tuple(
            f"{_named(pair)}: {remark}"
            for pair, members in columns.items()
            for remark in measured_on(members, results.run.confidence)
        ),
    )


def _named(pair: tuple[str, str]) -> str:
    return f"{pair[0]} → {pair[1]}"


def _cell(case: CaseResult | None) -> str:
    if case is None:
        return figures.NOTHING
    return figure(case) if case.value is None else percent(case.value)


def _average(cases: list[CaseResult | None]) -> str:
    values = [case.value for case in cases if case is not None and case.value is not None]
    if not values:
        return figures.NOTHING
    gaps = "" if len(values) == len(cases) else f" (over {len(values)} of {len(cases)})"
    return f"{percent(fmean(values))}{gaps}"
