"""report.md: the run on one page of plain text, verdict first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from robustgate.core.records import Results
from robustgate.reports import figures, policies, view
from robustgate.reports.costs import COLUMNS, costs
from robustgate.reports.details import notes
from robustgate.reports.matrix import Digest, Matrix, digest, matrices
from robustgate.reports.overall import EXPLANATION as OVER_ALL_SHIFTS
from robustgate.reports.overall import overall_table
from robustgate.reports.troubles import KINDS, OPEN, Trouble, troubles

SPECIAL = re.compile(r"^[#+-]|(?<=^\d)[.)]|[\\`*\[\]|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def render(results: Results) -> str:
    """Return the report as Markdown (GitHub's). Text from outside is escaped: it shows, and formats nothing."""
    parts = [
        *_verdict(results),
        *_troubles(results),
        *_matrices(results),
        *_overall(results),
        *_notes(results, "## About the data", attacked=False),
        *_notes(results, "## Under attack", attacked=True),
        *_costs(results),
        *_waivers(results),
        *_provenance(results),
    ]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return outside text so that Markdown shows it as it is, on one line, in a table's cell too."""
    line = " ".join(text.split())
    safe = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(lambda found: f"\\{found[0]}", safe)


def fenced(text: str) -> str:
    """Return text as a code block that no run of backticks within it can close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int) -> str:
    """Return a table of escaped cells; columns from `numbers_from` on are aligned to the right."""
    rule = ["---" if place < numbers_from else "---:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))


def _verdict(results: Results) -> list[str]:
    run = results.run
    counts = [
        [f"{kind.mark} {kind.word}", figures.count(number), kind.meaning] for kind, number in view.counts(results)
    ]
    level = figures.level(run.confidence)
    kind = view.STANDING[run.verdict]
    noun, _, names = policies.named(results).partition(" ")
    measured = f"{figures.count(run.measured)} of {figures.counted(run.planned, 'planned case')} measured"
    return [
        f"# robustgate: {kind.mark} {kind.word}",
        f"{escape(view.sentence(results))} {noun.capitalize()} **{escape(names)}**, {escape(policies.asked(results))}, "
        f"intervals at {level} confidence, {measured}.",
        *_policies(results),
        *(f"> **{escape(note)}**" for note in view.cautions(results)),
        _table(["verdict", "cases", "meaning"], counts, numbers_from=1).replace("| ---: | ---: |", "| ---: | --- |"),
    ]


def _policies(results: Results) -> list[str]:
    """Return each policy's verdict, where there are several."""
    if len(results.run.policies) == 1:
        return []
    rows = [
        [
            escape(policy.name),
            f"{view.STANDING[policy.verdict].mark} {policy.verdict}",
            *(policies.SCOPES[policy.scope], figures.level(policy.confidence), policies.tally(policy.findings)),
        ]
        for policy in results.run.policies
    ]
    return [_table(["policy", "verdict", "asked", "confidence", "findings"], rows, numbers_from=5)]


def _troubles(results: Results) -> list[str]:
    found = troubles(results)
    if not found:
        return []
    parts = ["## What did not pass, and why", *(_trouble(trouble) for trouble in found[:OPEN])]
    rest = found[OPEN:]
    if rest:
        parts += [
            f"<details><summary>{len(rest)} more</summary>",
            *(_trouble(trouble) for trouble in rest),
            "</details>",
        ]
    return parts


def _trouble(trouble: Trouble) -> str:
    reasons = "\n".join(f"- {escape(reason)}" for reason in trouble.reasons)
    code = fenced(trouble.reproduce) if trouble.reproduce else ""
    heading = f"### {trouble.standing.mark} {trouble.standing.word}: {escape(trouble.title)}"
    return "\n\n".join(part for part in (heading, reasons, code) if part)


def _matrices(results: Results) -> list[str]:
    found = matrices(results)
    if not found:
        return []
    legend = ", ".join(f"{kind.mark} {kind.word}" for kind, _ in view.counts(results))
    explanation = "Percent. Corruptions: mean over severities (worst at its severity). · is not in the plan."
    if view.is_partial(results):
        explanation += " Some are estimates from a part of the samples: cases that stopped early."
    if any(case.shift.kind == "masking" for case in results.cases):
        explanation += " Gradient masking: the verdict of its checks."
    if any(case.shift.kind == "stability" for case in results.cases):
        explanation += " Mild changes: the verdict of the search for one that changes too many predictions."
    return ["## Accuracy", f"{explanation} Marks: {legend}.", *(part for item in found for part in _matrix(item))]


def _matrix(matrix: Matrix) -> list[str]:
    heads = ["compression", *(escape(f"{column.label} {column.note}") for column in matrix.columns)]
    rows = [[escape(row.label), *map(_cell, map(digest, row.cells))] for row in matrix.rows]
    return [
        f"### {escape(matrix.title)}",
        _table(heads, rows, numbers_from=1),
    ]


def _cell(found: Digest | None) -> str:
    if found is None:
        return "·"
    return (
        f"**{found.text} {found.standing.mark}**"
        if found.standing.word in KINDS
        else f"{found.text} {found.standing.mark}"
    )


def _overall(results: Results) -> list[str]:
    table = overall_table(results)
    if not table.rows:
        return []
    rows = [[escape(row.title), *map(escape, row.cells)] for row in table.rows]
    return ["## Over all shifts", OVER_ALL_SHIFTS, _table(["variant", *table.heads], rows, numbers_from=1)]


def _notes(results: Results, heading: str, *, attacked: bool) -> list[str]:
    """Tell what there is to say of cases under attack, or of the others, beside their accuracy.

    In a fold: there may be many.
    """
    cases = [case for case in results.cases if (case.shift.kind in ("adversarial", "masking")) == attacked]
    told = [(case, note) for case in cases for note in notes(case)]
    if not told:
        return []
    lines = (f"- {escape(f'{view.variant_label(case)} {case.shift.phrase}: {note}')}" for case, note in told)
    summary = f"<details><summary>{figures.counted(len(told), 'note')} on cases</summary>"
    return [heading, summary, "\n".join(lines), "</details>"]


def _costs(results: Results) -> list[str]:
    heads = ["variant", "format", *COLUMNS.values()]
    rows = [(escape(cost.title), cost.format, *cost.cells) for cost in costs(results)]
    parts = ["## Costs", _table(heads, rows, numbers_from=2)] if rows else []
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
    if rules:
        heads = ["variant", "policy", "rule", "finding", "verdict"]
        parts += ["## Rules on variants", _table(heads, rules, numbers_from=5)]
    return parts


def _waivers(results: Results) -> list[str]:
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
        parts += ["## Waivers", _table(heads, rows, numbers_from=6)]
    covered = [f"- {escape(title)}: {escape(view.rule_text(finding))}" for title, finding in view.waived(results)]
    if covered:
        summary = f"<details><summary>{figures.counted(len(covered), 'waived finding')}</summary>"
        parts += [summary, "\n".join(covered), "</details>"]
    return parts


def _provenance(results: Results) -> list[str]:
    facts = "\n".join(f"- {escape(name)}: {escape(text)}" for name, text in view.facts(results))
    return ["## Provenance", facts, "Run it again:", fenced(view.again(results))]
