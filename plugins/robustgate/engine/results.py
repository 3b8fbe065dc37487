"""The run as a whole: what was planned against what was measured."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

from robustgate.core.records import (
    Case,
    CaseResult,
    Finding,
    Results,
    RunRecord,
    VariantRecord,
    Verdict,
    WaiverRecord,
    matches,
    worst,
)
from robustgate.engine.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What only the caller knows of a run."""

    id: str
    started: datetime
    seconds: float
    device: str
    versions: Mapping[str, str]


def assemble(
    plan: Plan,
    measured: Mapping[tuple[str, str], CaseResult],
    variants: Mapping[str, VariantRecord],
    findings: Collection[Finding],
    selected: Collection[tuple[str, str]],
    circumstances: Circumstances,
) -> Results:
    """Put a run together: every planned case has a row, measured or not.

    `measured` and `selected` are keyed by (shift kind, case name), `variants` by variant name; `findings` are those
    of rules on variants. The run's verdict is the worst of its parts, and ``incomplete`` where a planned case or a
    rule on a variant was not measured.
    """
    rows = tuple(measured.get(key(case)) or _unmeasured(case, key(case) in selected) for case in plan.cases)
    judged = {(finding.subject, finding.rule): finding for finding in findings}  # once, however many tests asked
    asked = {(variant, rule.name) for variant, rules in plan.run_rules.items() for rule in rules}
    complete = all(row.value is not None for row in rows) and judged.keys() >= asked
    verdicts: list[Verdict] = [*(row.verdict for row in rows), *(finding.verdict for finding in judged.values())]
    if not complete:
        verdicts.append("incomplete")
    configuration = plan.configuration
    today = circumstances.started.date()
    return Results(
        run=RunRecord(
            id=circumstances.id,
            started=circumstances.started.isoformat(timespec="seconds"),
            seconds=round(circumstances.seconds, 1),
            seed=configuration.gate.seed,
            device=circumstances.device,
            policy=plan.policy.name,
            confidence=plan.policy.confidence,
            versions={"python": platform.python_version(), **circumstances.versions},
            config=shown_path(configuration.source),
            config_sha256=configuration.sha256,
            planned=len(plan.cases),
            selected=len(selected),
            measured=sum(row.value is not None for row in rows),
            complete=complete,
            verdict=worst(verdicts),
        ),
        variants=tuple(variants[variant.name] for variant in plan.variants if variant.name in variants),
        cases=rows,
        findings=tuple(judged[place] for place in sorted(judged)),
        waivers=_waivers(plan, rows, judged.values(), today),
    )


def key(case: Case | CaseResult) -> tuple[str, str]:
    """Return what identifies a case in a run: a clean case is called after its variant, as is that variant's cost."""
    return case.shift.kind, case.name


def shown_path(path: Path) -> str:
    """Return a path as a person would type it here: relative where it lies below the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _unmeasured(case: Case, selected: bool) -> CaseResult:
    message = "selected, but not measured" if selected else "not selected"
    return CaseResult.of(case, verdict="incomplete", message=message, selected=selected)


def _waivers(
    plan: Plan, rows: Collection[CaseResult], findings: Collection[Finding], today: date
) -> tuple[WaiverRecord, ...]:
    everything = [*findings, *(finding for row in rows for finding in row.findings)]
    # A variant's findings go by the fields of its clean case, which has the same name.
    fields = {case.name: case.fields for case in plan.cases}
    records = []
    for waiver in plan.policy.waivers:
        mark = f"{waiver.until}: {waiver.reason}"
        record = WaiverRecord(
            where=dict(waiver.where),
            until=waiver.until.isoformat(),
            reason=waiver.reason,
            expired=not waiver.is_current(today),
            findings=0,
        )
        covered = sum(
            finding.waiver is not None
            and finding.waiver.endswith(mark)
            and matches(waiver.where, fields[finding.subject])
            for finding in everything
        )
        records.append(replace(record, findings=covered))
    return tuple(records)
