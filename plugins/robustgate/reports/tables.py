"""Tables as papers print them: the same cells as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from robustgate.core.records import CaseResult, VariantRecord
from robustgate.reports import figures, markdown
from robustgate.reports.details import notes
from robustgate.reports.markdown import escape

FLOAT_BYTES = 4
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
class Table:
    """A table: the first `texts` cells of a row are words, the others figures; `remarks` stand below it."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]
    texts: int


def as_markdown(title: str, caption: str, tables: Sequence[Table]) -> str:
    """Return a page of Markdown; text from outside is escaped."""
    parts = [f"# {title}", caption]
    for table in tables:
        rows = ([*map(escape, row[: table.texts]), *row[table.texts :]] for row in table.rows)
        parts.append(markdown.table([*map(escape, table.heads)], rows, numbers_from=table.texts))
        parts.append("\n".join(f"- {escape(remark)}" for remark in table.remarks))
    return "\n\n".join(filter(None, parts)) + "\n"


def as_csv(tables: Sequence[Table]) -> str:
    """Return a CSV: several tables one below the other, with an empty line between them.

    A cell of text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for place, table in enumerate(tables):
        if place:
            text.write("\n")
        writer.writerow(map(_plain, table.heads))
        writer.writerows([*map(_plain, row[: table.texts]), *row[table.texts :]] for row in table.rows)
    return text.getvalue()


def as_latex(caption: str, tables: Sequence[Table]) -> str:
    """Return plain tabular environments that need no package; text from outside is escaped."""
    parts = [f"% {caption}"]
    for table in tables:
        columns = "l" * table.texts + "r" * (len(table.heads) - table.texts)
        head, *rows = [f"{' & '.join(map(_latex, line))} \\\\" for line in (table.heads, *table.rows)]
        body = "\n".join(["\\hline", head, "\\hline", *rows, "\\hline"])
        remarks = "\n".join(f"\\par {_latex(remark)}" for remark in table.remarks)
        parts.append(f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n{remarks}")
    return "\n\n".join(parts) + "\n"


def percent(fraction: float) -> str:
    """Return a fraction in percent with two decimals, rounded half up as on paper; see `figures.tenths`."""
    return str((Decimal(repr(float(fraction))) * 100).quantize(Decimal("0.01"), ROUND_HALF_UP))


def size(records: Sequence[VariantRecord]) -> str:
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


def measured_on(cases: Sequence[CaseResult], confidence: float) -> list[str]:
    """Return how many images the cases have and how wide their intervals are, and what was left out of them."""
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


def _plain(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) else text


def _latex(text: str) -> str:
    return " ".join(text.split()).translate(LATEX)


def _millions(parameters: int) -> str:
    millions = parameters / 1e6
    return f"{millions:.2f}" if millions >= 0.1 else f"{millions:.2g}"
