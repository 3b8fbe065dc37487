"""The run as a whole: what was planned against what was measured."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Literal

from robustgate.config import Policy, RunRule
from robustgate.core.records import (
    VERDICTS,
    Case,
    CaseResult,
    Finding,
    PolicyRecord,
    Results,
    RunRecord,
    VariantRecord,
    Verdict,
    WaiverRecord,
    worst,
)
from robustgate.engine.judging import Judging
from robustgate.engine.overall import overall
from robustgate.engine.plan import Plan

VariantTest = Literal["cost", "latency", "overall"]
"""The tests of the suite that judge variants, not cases, by their markers."""
VARIANT_TESTS: tuple[VariantTest, ...] = ("cost", "latency", "overall")
# Which test judges the rules that measure something; `test_cost` all others.
MEASURED_BY: dict[str | None, VariantTest] = {"latency": "latency", "outcomes": "overall"}


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What only the caller knows of a run."""

    id: str
    started: datetime
    seconds: float
    device: str
    processor: str
    versions: Mapping[str, str]


def assemble(
    plan: Plan,
    measured: Mapping[tuple[str, str], CaseResult],
    variants: Collection[VariantRecord],
    findings: Collection[Finding],
    selected: Collection[tuple[str, str]],
    circumstances: Circumstances,
) -> Results:
    """Put a run together: every planned case has a row, measured or not.

    `measured` and `selected` are keyed by (shift kind, case name); of `variants` there may be several records of one
    variant, each from another test; `findings` are those of rules on variants. The run's verdict is the worst of its
    parts, and ``incomplete`` where a planned case or a rule on a variant was not measured.
    """
    records = _merged(variants)
    rows = tuple(measured.get(key(case)) or _unmeasured(case, key(case) in selected) for case in plan.cases)
    judged = {_place(finding): finding for finding in findings}  # once, however many tests asked
    known = {place for place, finding in judged.items() if finding.value is not None}
    policies = tuple(_policy_record(judging, rows, judged.values(), known) for judging in plan.policies)
    complete = all(row.value is not None for row in rows) and all(known >= _asked(one) for one in plan.policies)
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
            processor=circumstances.processor,
            policy=", ".join(plan.policy_names),
            confidence=plan.policies[0].policy.confidence,
            policies=policies,
            versions={"python": platform.python_version(), **circumstances.versions},
            config=shown_path(configuration.source),
            config_sha256=configuration.sha256,
            planned=len(plan.cases),
            selected=sum(key(case) in selected for case in plan.cases),
            measured=sum(row.value is not None for row in rows),
            complete=complete,
            verdict=worst(verdicts),
        ),
        variants=tuple(records[variant.name] for variant in plan.variants if variant.name in records),
        cases=rows,
        findings=tuple(judged[place] for place in sorted(judged)),
        waivers=tuple(
            waiver
            for judging in plan.policies
            for waiver in _waivers(judging.policy, (*_findings(rows), *judged.values()), today)
        ),
        overall=overall(plan.variants, rows),
    )


def rules_of(test: VariantTest, rules: Iterable[RunRule]) -> tuple[RunRule, ...]:
    """Return the rules on variants that a test judges: `test_latency` runs alone, `test_overall` measures cases."""
    return tuple(rule for rule in rules if MEASURED_BY.get(rule.component.measures, "cost") == test)


def unmeasured(plan: Plan, results: Results, selected: Collection[tuple[str, str]]) -> list[str]:
    """Return the rules on variants without a figure among those that were selected, as (test, variant's name)."""
    known = {_place(finding) for finding in results.findings if finding.value is not None}
    return [
        f"{rule.name!r} of policy {judging.policy.name} on {name}"
        for judging in plan.policies
        for name, rules in judging.run_rules.items()
        for test in VARIANT_TESTS
        for rule in rules_of(test, rules)
        if (test, name) in selected and (name, rule.name, judging.policy.name) not in known
    ]


def key(case: Case | CaseResult) -> tuple[str, str]:
    """Return what identifies a case in a run: a clean case is called after its variant, as is that variant's cost."""
    return case.shift.kind, case.name


def shown_path(path: Path) -> str:
    """Return a path as a person would type it here: relative where it lies below the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _merged(records: Iterable[VariantRecord]) -> dict[str, VariantRecord]:
    """Return one record a variant, by its name: what one test measured of it beside what another did."""
    merged: dict[str, VariantRecord] = {}
    for record in records:
        known = merged.get(record.name, record)
        timings = {timing.batch: timing for timing in (*known.timings, *record.timings)}
        merged[record.name] = replace(
            record,
            latency_ms=known.latency_ms if record.latency_ms is None else record.latency_ms,
            timings=tuple(timings[batch] for batch in sorted(timings)),
            memory_bytes=known.memory_bytes if record.memory_bytes is None else record.memory_bytes,
        )
    return merged


def _place(finding: Finding) -> tuple[str, str, str]:
    """Return what identifies a finding on a variant: of two policies each may have a rule of the same name."""
    return finding.subject, finding.rule, finding.policy


def _asked(judging: Judging) -> set[tuple[str, str, str]]:
    """Return the findings on variants that a policy asks for."""
    return {(name, rule.name, judging.policy.name) for name, rules in judging.run_rules.items() for rule in rules}


def _policy_record(
    judging: Judging, rows: Collection[CaseResult], findings: Iterable[Finding], known: set[tuple[str, str, str]]
) -> PolicyRecord:
    """Return what a policy says of the run; a case that was not measured counts for every policy, as for the run."""
    policy = judging.policy
    own = [finding for finding in (*_findings(rows), *findings) if finding.policy == policy.name]
    counts = Counter(finding.verdict for finding in own)
    verdicts: list[Verdict] = list(counts)
    verdicts += ["pass" if row.value is not None else row.verdict for row in rows]
    if not known >= _asked(judging):
        verdicts.append("incomplete")
    return PolicyRecord(
        name=policy.name,
        confidence=policy.confidence,
        scope=policy.scope,
        early_stop=policy.early_stop,
        familywise=policy.familywise,
        prove=policy.prove,
        on_undecided=policy.on_undecided,
        interval=policy.interval,
        findings={verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]},
        verdict=worst(verdicts),
    )


def _findings(rows: Iterable[CaseResult]) -> list[Finding]:
    return [finding for row in rows for finding in row.findings]


def _unmeasured(case: Case, selected: bool) -> CaseResult:
    message = "selected, but not measured" if selected else "not selected"
    return CaseResult.of(case, verdict="incomplete", message=message, selected=selected)


def _waivers(policy: Policy, findings: Iterable[Finding], today: date) -> tuple[WaiverRecord, ...]:
    """Return the waivers of a policy, each with the number of findings that refer to it."""
    covered = Counter(finding.waiver_index for finding in findings if finding.policy == policy.name)
    return tuple(
        WaiverRecord(
            policy=policy.name,
            index=index,
            where=dict(waiver.where),
            until=waiver.until.isoformat(),
            reason=waiver.reason,
            days_left=waiver.days_left(today),
            expired=not waiver.is_current(today),
            findings=covered[index],
        )
        for index, waiver in enumerate(policy.waivers)
    )
