"""What keeps a run from a pass, and why."""

from __future__ import annotations

from dataclasses import dataclass

from robustgate.core.records import VERDICTS, CaseResult, Finding, Results
from robustgate.reports import figures
from robustgate.reports.details import notes
from robustgate.reports.view import (
    STANDING,
    STANDINGS,
    Standing,
    loss,
    reference_value,
    rule_text,
    sample_count,
    standing,
    subjects,
    variant_label,
)

KINDS = ("error", "fail", "incomplete", "undecided")
# Reports fold what comes after these, so that the rest of the page stays in reach.
OPEN = 20


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What keeps a run from a pass: a case (`index` into the results' cases) or a finding on a variant.

    `finding` is the worst of a case's, None where it has none.
    """

    standing: Standing
    title: str
    reasons: tuple[str, ...]
    reproduce: str = ""
    index: int | None = None
    finding: Finding | None = None


def troubles(results: Results) -> list[Trouble]:
    """Return everything that is neither passed, waived nor left out, worst first."""
    labels = subjects(results)
    found = [
        Trouble(
            standing=standing(case),
            title=f"{variant_label(case)} {case.shift.phrase}",
            reasons=_reasons(case),
            reproduce=case.reproduce,
            index=index,
            finding=max(case.findings, key=lambda finding: VERDICTS.index(finding.verdict), default=None),
        )
        for index, case in enumerate(results.cases)
    ]
    found += [
        Trouble(
            standing=STANDING[finding.verdict],
            title=labels.get(finding.subject, finding.subject),
            reasons=(rule_text(finding),),
            finding=finding,
        )
        for finding in results.findings
    ]
    bad = [trouble for trouble in found if trouble.standing.word in KINDS]
    return sorted(bad, key=lambda trouble: STANDINGS.index(trouble.standing))


def _reasons(case: CaseResult) -> tuple[str, ...]:
    lines = []
    if case.value is not None:
        ours = f"{case.metric} {figures.percent(case.value)} {figures.interval(case.low, case.high)}".rstrip()
        reference = reference_value(case)
        held = "" if reference is None else f"; the reference holds {figures.percent(reference)}"
        lines.append(f"{ours} on {sample_count(case)} images{held}")
    lines += [rule_text(finding) for finding in case.findings if finding.verdict not in ("pass", "waived")]
    if case.most_lost:
        lines.append(f"most lost: {loss(case)}")
    lines += notes(case)
    # A case's message may tell the same again, as the terminal prints it; only what it adds is kept.
    if case.value is None or not case.findings:
        lines += [line.strip() for line in case.message.splitlines()]
    return tuple(line for line in dict.fromkeys(lines) if line and line != case.reproduce)
