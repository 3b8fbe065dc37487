"""pairs.md, pairs.csv, pairs.tex: compressions by domain pair, as Shen et al. 2024 (arXiv 2401.12014) print them.

Accuracy on the target in percent, and each row's mean over all pairs of its table.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from statistics import fmean

from robustgate.core.records import CaseResult, Results, VariantRecord
from robustgate.reports import figures
from robustgate.reports.details import notes
from robustgate.reports.markdown import escape
from robustgate.reports.view import figure

HEADS = ("model", "compression", "size (M)")
TEXTS = 2  # columns of text, before those of figures
FLOAT_BYTES = 4
CAPTION = "Percent right on the whole of the target; trained on the first domain, tested on the second."
SIZE = (
    "Size: parameters in millions; (/x): the file takes 1/x of the 4 bytes a parameter that float32 takes, "
    "where that is less."
)
# What a spreadsheet takes for a formula.
FORMULA = re.compile(r"^\s*[=+\-@]")
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "{}$&#_%"}
    | {
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "*": "{*}",  # after a row's end, a star and a bracket are its options
        "[": "{[}",
        "→": r"$\to$",
        "±": r"$\pm$",
        figures.NOTHING: "---",
    }
)


@dataclass(frozen=True, kw_only=True)
class PairTable:
    """Models that have pairs in common; `remarks` say what else there is to know of the pairs.

    A row is a compression of a model: model, compression, size, accuracy on each pair, average.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]


def pair_tables(results: Results) -> list[PairTable]:
    """Return a table for each set of models that share pairs: what they do not share is a gap, and is counted as one.

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


def as_markdown(tables: Sequence[PairTable]) -> str:
    """Return pairs.md."""
    parts = ["# Domain pairs", f"{CAPTION} {SIZE}"]
    for table in tables:
        rule = ["---" if place < TEXTS else "---:" for place in range(len(table.heads))]
        rows = ([*map(escape, row[:TEXTS]), *row[TEXTS:]] for row in table.rows)
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in (map(escape, table.heads), rule, *rows)))
        parts.append("\n".join(f"- {escape(remark)}" for remark in table.remarks))
    return "\n\n".join(filter(None, parts)) + "\n"


def as_csv(tables: Sequence[PairTable]) -> str:
    """Return pairs.csv: tables of different pairs one below the other, with an empty line between them.

    A cell that a spreadsheet would take for a formula has an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for place, table in enumerate(tables):
        if place:
            text.write("\n")
        for line in (table.heads, *table.rows):
            writer.writerow([f"'{cell}" if FORMULA.match(cell) else cell for cell in line])
    return text.getvalue()


def as_latex(tables: Sequence[PairTable]) -> str:
    """Return pairs.tex: plain tabular environments that need no package; text from outside is escaped."""
    parts = [f"% {CAPTION}\n% {SIZE}"]
    for table in tables:
        columns = "l" * TEXTS + "r" * (len(table.heads) - TEXTS)
        head, *rows = [f"{' & '.join(map(_latex, line))} \\\\" for line in (table.heads, *table.rows)]
        body = "\n".join(["\\hline", head, "\\hline", *rows, "\\hline"])
        remarks = "\n".join(f"\\par {_latex(remark)}" for remark in table.remarks)
        parts.append(f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n{remarks}")
    return "\n\n".join(parts) + "\n"


def _latex(text: str) -> str:
    return " ".join(text.split()).translate(LATEX)


def _pair(case: CaseResult) -> tuple[str, str]:
    return case.source, str(case.shift.target)


def _table(results: Results, cases: list[CaseResult]) -> PairTable:
    columns: dict[tuple[str, str], list[CaseResult]] = {}
    rows: dict[tuple[str, str], dict[tuple[str, str], CaseResult]] = {}
    for case in cases:
        columns.setdefault(_pair(case), []).append(case)
        rows.setdefault((case.model, case.compression), {})[_pair(case)] = case
    built: dict[tuple[str, str], list[VariantRecord]] = {}
    for record in results.variants:
        built.setdefault((record.model, record.compression), []).append(record)
    return PairTable(
        heads=(*HEADS, *map(_named, columns), f"average over {figures.counted(len(columns), 'pair')}"),
        rows=tuple(
            (
                *(*row, _size(built.get(row, []))),
                *(_cell(found.get(pair)) for pair in columns),
                _average([found.get(pair) for pair in columns]),
            )
            for row, found in rows.items()
        ),
        remarks=tuple(
            f"{_named(pair)}: {remark}"
            for pair, members in columns.items()
            for remark in _remarks(members, results.run.confidence)
        ),
    )


def _named(pair: tuple[str, str]) -> str:
    return f"{pair[0]} → {pair[1]}"


def _cell(case: CaseResult | None) -> str:
    if case is None:
        return figures.NOTHING
    return figure(case) if case.value is None else _percent(case.value)


def _average(cases: list[CaseResult | None]) -> str:
    values = [case.value for case in cases if case is not None and case.value is not None]
    if not values:
        return figures.NOTHING
    gaps = "" if len(values) == len(cases) else f" (over {len(values)} of {len(cases)})"
    return f"{_percent(fmean(values))}{gaps}"


def _percent(fraction: float) -> str:
    """Return a fraction in percent with two decimals, rounded half up as on paper; see `figures.tenths`."""
    return str((Decimal(repr(float(fraction))) * 100).quantize(Decimal("0.01"), ROUND_HALF_UP))


def _size(records: list[VariantRecord]) -> str:
    """Return ``11.19`` or ``11.19 (/3.9)``; ``11.18 to 11.19`` where the networks of the sources differ."""
    counted = [(record.parameters, record.size_bytes) for record in records if record.parameters]
    if not counted:
        return figures.NOTHING
    texts = dict.fromkeys(_millions(parameters) for parameters, _ in sorted(counted))
    known = list(texts)
    shown = known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"
    share = FLOAT_BYTES * sum(parameters for parameters, _ in counted) / sum(size for _, size in counted)
    smaller = f"{share:.1f}"
    return f"{shown} (/{smaller})" if float(smaller) > 1 else shown


def _millions(parameters: int) -> str:
    millions = parameters / 1e6
    return f"{millions:.2f}" if millions >= 0.1 else f"{millions:.2g}"


def _remarks(cases: list[CaseResult], confidence: float) -> list[str]:
    """Return how many images a pair has and how wide its intervals are, and what was left out of it."""
    measured = [case for case in cases if case.value is not None]
    if not measured:
        return []
    least, most = (number(case.n for case in measured) for number in (min, max))
    count = figures.count(least) if least == most else f"{figures.count(least)} to {figures.count(most)}"
    whole = max(case.n_total for case in measured)
    of = f"{count} of {figures.counted(whole, 'image')}" if least < whole else figures.counted(whole, "image")
    widths = [(case.high - case.low) / 2 for case in measured if case.low is not None and case.high is not None]
    widest = f", {figures.level(confidence)} intervals of up to ± {figures.points(max(widths))}" if widths else ""
    return [f"{of}{widest}", *dict.fromkeys(note for case in measured for note in notes(case))]
