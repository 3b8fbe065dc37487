"""report.md: the run as a comment on a pull request, the verdict first, then what failed, all else in folds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robustgate.core.records import Results
from robustgate.reports import figures, policies, view
from robustgate.reports.costs import COLUMNS, costs
from robustgate.reports.details import notes
from robustgate.reports.matrix import Digest, Matrix, digest, matrices
from robustgate.reports.overall import EXPLANATION as OVER_ALL_SHIFTS
from robustgate.reports.overall import overall_table
from robustgate.reports.troubles import KINDS, Trouble, troubles

SPECIAL = re.compile(r"^[#+-]|(?<=^\d)[.)]|[\\`*\[\]|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# What GitHub would take for a person to tell, or for an issue; a space of no width keeps it from that.
REFERENCE = re.compile(r"@(?=\w)|#(?=\d)")
# GitHub refuses a comment over 65,536 characters. In bytes, so that it holds however characters are counted.
LIMIT = 65_000
# Room for the sentence that says what was left out.
SENTENCE = 1_000
# What did not pass is told openly up to here; the rest of it is in a fold.
OPEN = 10
NAMES, WORDS = 200, 500  # characters of a text from outside, where it must be short


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page in its forms, from full to short; where none fits, it is left out whole and `name` said.

    What has the lowest `rank` is left out last.
    """

    name: str
    rank: int
    forms: tuple[str, ...]


def render(results: Results) -> str:
    """Return the report as Markdown (GitHub's). Text from outside is escaped: it shows, and formats nothing.

    It is never longer than a comment on GitHub may be: what is less important is left out, and that is said.
    """
    verdict = _verdict(results)
    found = troubles(results)
    sections = [
        _cautions(results),
        _troubles(found[:OPEN]),
        _more_troubles(found[OPEN:]),
        _matrices(results),
        _overall(results),
        _notes(results, "About the data", rank=9, attacked=False),
        _notes(results, "Under attack", rank=10, attacked=True),
        _costs(results),
        _rules(results),
        _waivers(results),
        _provenance(results),
    ]
    kept, left_out = _fitting([section for section in sections if section], LIMIT - _length(verdict) - SENTENCE)
    return "\n\n".join([verdict, *left_out, *kept]) + "\n"


def _fitting(sections: Sequence[Section], room: int) -> tuple[list[str], list[str]]:
    """Return the sections that fit into `room` bytes, in their order, and what there is to say of the others."""
    kept: dict[str, str] = {}
    shortened = []
    for section in sorted(sections, key=lambda section: section.rank):
        form = next((form for form in section.forms if _length(form) <= room), None)
        if form is None:
            continue
        room -= _length(form)
        kept[section.name] = form
        shortened += [section.name] if form != section.forms[0] else []
    told = {
        "Left out": [section.name for section in sections if section.name not in kept],
        "Shortened": [section.name for section in sections if section.name in shortened],
    }
    lines = [f"{word}: {', '.join(names)}." for word, names in told.items() if names]
    note = [f"> A comment must be short. {' '.join(lines)} This run's report.html has all of it."] if lines else []
    return [kept[section.name] for section in sections if section.name in kept], note


def _length(text: str) -> int:
    return len(text.encode()) + 2  # with what stands between it and the next


def _section(name: str, *parts: str, rank: int) -> Section:
    return Section(name=name, rank=rank, forms=("\n\n".join((f"## {name}", *parts)),))


def _folded(summary: str, *parts: str) -> str:
    """Return a fold. The empty line after its summary lets the Markdown within be rendered."""
    return "\n\n".join((f"<details><summary>{summary}</summary>", *parts, "</details>"))


def escape(text: str) -> str:
    """Return outside text so that Markdown shows it as it is, on one line, in a table's cell too."""
    line = " ".join(text.split())
    safe = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return REFERENCE.sub(r"\g<0>&#8203;", SPECIAL.sub(lambda found: f"\\{found[0]}", safe))


def fenced(text: str) -> str:
    """Return text as a code block that no run of backticks within it can close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int) -> str:
    """Return a table of cells that are escaped already; columns from `numbers_from` on are aligned to the right."""
    rule = ["---" if place < numbers_from else "---:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))


def _verdict(results: Results) -> str:
    run = results.run
    counts = [
        [f"{kind.mark} {kind.word}", figures.count(number), kind.meaning] for kind, number in view.counts(results)
    ]
    level = figures.level(run.confidence)
    kind = view.STANDING[run.verdict]
    noun, _, names = policies.named(results).partition(" ")
    measured = f"{figures.count(run.measured)} of {figures.counted(run.planned, 'planned case')} measured"
    asked = escape(figures.clipped(policies.asked(results), WORDS))
    parts = [
        f"# robustgate: {kind.mark} {kind.word}",
        f"{escape(view.sentence(results))} {noun.capitalize()} **{escape(figures.clipped(names, NAMES))}**, {asked}, "
        f"intervals at {level} confidence, {measured}.",
        table(["verdict", "cases", "meaning"], counts, numbers_from=1).replace("| ---: | ---: |", "| ---: | --- |"),
    ]
    return "\n\n".join(parts)


def _cautions(results: Results) -> Section | None:
    """Return what a reader of the verdict must know besides, and each policy's verdict where there are several."""
    told = [f"> **{escape(note)}**" for note in view.cautions(results)]
    rows = [
        [
            escape(policy.name),
            f"{view.STANDING[policy.verdict].mark} {policy.verdict}",
            *(policies.SCOPES[policy.scope], figures.level(policy.confidence), policies.tally(policy.findings)),
        ]
        for policy in results.run.policies
    ]
    heads = ["policy", "verdict", "asked", "confidence", "findings"]
    judged = [table(heads, rows, numbers_from=5)] if len(rows) > 1 else []
    short = f"> **cautions: {len(told):,}, policies: {len(rows):,}**"
    forms = ("\n\n".join([*told, *judged]), short)
    return Section(name="cautions and policies", rank=0, forms=forms) if told or judged else None


def _troubles(found: Sequence[Trouble]) -> Section | None:
    if not found:
        return None
    heading = "## What did not pass, and why"
    full = "\n\n".join([heading, *map(_trouble, found)])
    return Section(
        name="what did not pass", rank=1, forms=(full, f"{heading}\n\n" + "\n".join(map(_trouble_line, found)))
    )


def _more_troubles(found: Sequence[Trouble]) -> Section | None:
    """Return the rest of what did not pass; in short, a line for each."""
    if not found:
        return None
    summary = f"{figures.count(len(found))} more"
    return Section(
        name=f"{summary} that did not pass",
        rank=5,
        forms=(_folded(summary, *map(_trouble, found)), _folded(summary, "\n".join(map(_trouble_line, found)))),
    )


def _trouble_line(trouble: Trouble) -> str:
    title, reasons = figures.clipped(trouble.title, NAMES), figures.clipped("; ".join(trouble.reasons), NAMES)
    return f"- {trouble.standing.mark} {trouble.standing.word}: {escape(title)}: {escape(reasons)}"


def _trouble(trouble: Trouble) -> str:
    reasons = "\n".join(f"- {escape(reason)}" for reason in trouble.reasons)
    code = fenced(trouble.reproduce) if trouble.reproduce else ""
    heading = f"### {trouble.standing.mark} {trouble.standing.word}: {escape(trouble.title)}"
    return "\n\n".join(part for part in (heading, reasons, code) if part)


def _matrices(results: Results) -> Section | None:
    found = matrices(results)
    if not found:
        return None
    legend = ", ".join(f"{kind.mark} {kind.word}" for kind, _ in view.counts(results))
    explanation = "Percent. Corruptions: mean over severities (worst at its severity). · is not in the plan."
    if view.is_partial(results):
        explanation += " Some are estimates from a part of the samples: cases that stopped early."
    if any(case.shift.kind == "masking" for case in results.cases):
        explanation += " Gradient masking: the verdict of its checks."
    if any(case.shift.kind == "stability" for case in results.cases):
        explanation += " Mild changes: the verdict of the search for one that changes too many predictions."
    fold = _folded(figures.counted(len(found), "table"), f"{explanation} Marks: {legend}.", *map(_matrix, found))
    return _section("Accuracy", fold, rank=4)


def _matrix(matrix: Matrix) -> str:
    heads = ["compression", *(escape(f"{column.label} {column.note}") for column in matrix.columns)]
    rows = [[escape(row.label), *map(_cell, map(digest, row.cells))] for row in matrix.rows]
    return f"### {escape(matrix.title)}\n\n{table(heads, rows, numbers_from=1)}"


def _cell(found: Digest | None) -> str:
    if found is None:
        return "·"
    return (
        f"**{found.text} {found.standing.mark}**"
        if found.standing.word in KINDS
        else f"{found.text} {found.standing.mark}"
    )


def _overall(results: Results) -> Section | None:
    found = overall_table(results)
    if not found.rows:
        return None
    rows = [[escape(row.title), *map(escape, row.cells)] for row in found.rows]
    cells = table(["variant", *found.heads], rows, numbers_from=1)
    return _section("Over all shifts", _folded(figures.counted(len(rows), "variant"), OVER_ALL_SHIFTS, cells), rank=6)


def _notes(results: Results, heading: str, *, rank: int, attacked: bool) -> Section | None:
    """Tell what there is to say of cases under attack, or of the others, beside their accuracy."""
    cases = [case for case in results.cases if (case.shift.kind in ("adversarial", "masking")) == attacked]
    told = [(case, note) for case in cases for note in notes(case)]
    if not told:
        return None
    lines = (f"- {escape(f'{view.variant_label(case)} {case.shift.phrase}: {note}')}" for case, note in told)
    return _section(heading, _folded(f"{figures.counted(len(told), 'note')} on cases", "\n".join(lines)), rank=rank)


def _costs(results: Results) -> Section | None:
    heads = ["variant", "format", *COLUMNS.values()]
    rows = [(escape(cost.title), cost.format, *cost.cells) for cost in costs(results)]
    if not rows:
        return None
    summary = figures.counted(len(rows), "variant")
    return _section("Costs", _folded(summary, table(heads, rows, numbers_from=2)), rank=8)


def _rules(results: Results) -> Section | None:
    labels = view.subjects(results)
    rules = [
        [
            escape(labels.get(finding.subject, finding.subject)),
            escape(finding.policy),
            escape(finding.rule),
            escape(finding.message + (f" ({finding.waiver})" if finding.waiver else "")),
            f"{view.STANDING[finding.verdict].mark} {finding.verdict}",
        ]
        for finding in results.findings
    ]
    if not rules:
        return None
    heads = ["variant", "policy", "rule", "finding", "verdict"]
    summary = figures.counted(len(rules), "finding")
    return _section("Rules on variants", _folded(summary, table(heads, rules, numbers_from=5)), rank=7)


def _waivers(results: Results) -> Section | None:
    rows = [
        (
            *(escape(waiver.policy), escape(view.where_text(waiver.where)), escape(waiver.until)),
            *(policies.state(waiver), figures.count(waiver.findings), escape(waiver.reason)),
        )
        for waiver in results.waivers
    ]
    parts = []
    if rows:
        heads = ["policy", "where", "until", "state", "findings", "reason"]
        parts.append(_folded(figures.counted(len(rows), "waiver"), table(heads, rows, numbers_from=6)))
    covered = [f"- {escape(title)}: {escape(view.rule_text(finding))}" for title, finding in view.waived(results)]
    if covered:
        parts.append(_folded(figures.counted(len(covered), "waived finding"), "\n".join(covered)))
    return _section("Waivers", *parts, rank=3) if parts else None


def _provenance(results: Results) -> Section:
    told = [*view.facts(results), *((f"{name} version", version) for name, version in view.versions(results))]
    facts = "\n".join(f"- {escape(name)}: {escape(text)}" for name, text in told)
    fold = _folded("how it was run, and how to run it again", facts, "Run it again:", fenced(view.again(results)))
    return _section("Provenance", fold, rank=2)
