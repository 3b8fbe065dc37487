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
from robustgate.core.errors import ResultsError
from robustgate.core.records import (
    VERDICTS,
    Case,
    CaseResult,
    Finding,
    PolicyRecord,
    Results,
    RunRecord,
    Unjudged,
    Variant,
    VariantRecord,
    Verdict,
    WaiverRecord,
    worst,
)
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

    `measured` is keyed by (shift kind, case name), `selected` holds such keys and (test, variant's name); of `variants`
    there may be several records of one variant, each from another test; `findings` are those of rules on variants.
    """
    records = merged(variants)
    rows = tuple(measured.get(key(case)) or _unmeasured(case, key(case) in selected) for case in plan.cases)
    judged = {finding_key(finding): finding for finding in findings}  # once, however many tests asked
    configuration = plan.configuration
    today = circumstances.started.date()
    results = Results(
        run=RunRecord(
            id=circumstances.id,
            started=circumstances.started.isoformat(timespec="seconds"),
            seconds=round(circumstances.seconds, 1),
            seed=configuration.gate.seed,
            device=circumstances.device,
            processor=circumstances.processor,
            policy=", ".join(plan.policy_names),
            confidence=plan.policies[0].policy.confidence,
            policies=tuple(_policy_record(judging.policy) for judging in plan.policies),
            versions={"python": platform.python_version(), **circumstances.versions},
            config=shown_path(configuration.source),
            config_sha256=configuration.sha256,
            planned=len(rows),
            selected=0,
            measured=0,
            complete=False,
            verdict="incomplete",
        ),
        variants=tuple(records[variant.name] for variant in plan.variants if variant.name in records),
        cases=rows,
        findings=tuple(judged[which] for which in sorted(judged)),
        waivers=tuple(waiver for judging in plan.policies for waiver in _waivers(judging.policy, today)),
        unjudged=_unjudged(plan, judged.values(), selected),
    )
    return tallied(results)


def tallied(results: Results) -> Results:
    """Return the results with counts, verdicts and the figures over all shifts as their rows and findings have them.

    The run's verdict is the worst of its parts, and ``incomplete`` where a planned case or a rule on a variant was not
    measured. Raises ResultsError as `rules_left` does.
    """
    run, rows = results.run, results.cases
    findings = [*(finding for row in rows for finding in row.findings), *results.findings]
    left = rules_left(results)
    complete = not left and all(row.value is not None for row in rows)
    verdicts: list[Verdict] = [*(row.verdict for row in rows), *(finding.verdict for finding in results.findings)]
    covered = Counter((finding.policy, finding.waiver_index) for finding in findings)
    return replace(
        results,
        run=replace(
            run,
            policies=tuple(_tallied(policy, rows, findings, left) for policy in run.policies),
            selected=sum(row.selected for row in rows),
            measured=sum(row.value is not None for row in rows),
            complete=complete,
            verdict=worst(verdicts if complete else [*verdicts, "incomplete"]),
        ),
        waivers=tuple(replace(waiver, findings=covered[waiver.policy, waiver.index]) for waiver in results.waivers),
        overall=overall(_variants(rows), rows),
    )


def rules_of(test: VariantTest, rules: Iterable[RunRule]) -> tuple[RunRule, ...]:
    """Return the rules on variants that a test judges: `test_latency` runs alone, `test_overall` measures cases."""
    return tuple(rule for rule in rules if MEASURED_BY.get(rule.component.measures, "cost") == test)


def rules_left(results: Results) -> tuple[Unjudged, ...]:
    """Return the rules on variants without a figure. Raises ResultsError where the results do not tell."""
    if results.unjudged is None:
        raise ResultsError(
            "unjudged: expected the rules on variants that have no figure, got none: the run is of an older "
            "robustgate; run it again"
        )
    return results.unjudged


def key(case: Case | CaseResult) -> tuple[str, str]:
    """Return what identifies a case in a run: a clean case is called after its variant, as is that variant's cost."""
    return case.shift.kind, case.name


def shown_path(path: Path) -> str:
    """Return a path as a person would type it here: relative where it lies below the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def merged(records: Iterable[VariantRecord]) -> dict[str, VariantRecord]:
    """Return one record a variant, by its name: what one test measured of it beside what another did."""
    found: dict[str, VariantRecord] = {}
    for record in records:
        known = found.get(record.name, record)
        timings = {timing.batch: timing for timing in (*known.timings, *record.timings)}
        found[record.name] = replace(
            record,
            latency_ms=known.latency_ms if record.latency_ms is None else record.latency_ms,
            timings=tuple(timings[batch] for batch in sorted(timings)),
            memory_bytes=known.memory_bytes if record.memory_bytes is None else record.memory_bytes,
        )
    return found


def finding_key(finding: Finding | Unjudged) -> tuple[str, str, str]:
    """Return what identifies a finding on a variant: of two policies each may have a rule of the same name."""
    return finding.subject, finding.rule, finding.policy


def _unjudged(plan: Plan, findings: Iterable[Finding], selected: Collection[tuple[str, str]]) -> tuple[Unjudged, ...]:
    """Return the rules on variants that have no figure; `selected` holds tests on variants as (test, variant)."""
    known = {finding_key(finding) for finding in findings if finding.value is not None}
    return tuple(
        Unjudged(policy=judging.policy.name, rule=rule.name, subject=name, selected=(test, name) in selected)
        for judging in plan.policies
        for name, rules in judging.run_rules.items()
        for test in VARIANT_TESTS
        for rule in rules_of(test, rules)
        if (name, rule.name, judging.policy.name) not in known
    )


def _unmeasured(case: Case, selected: bool) -> CaseResult:
    message = "selected, but not measured" if selected else "not selected"
    return CaseResult.of(case, verdict="incomplete", message=message, selected=selected)


def _policy_record(policy: Policy) -> PolicyRecord:
    """Return a policy's settings; what it says of the run is not counted yet."""
    return PolicyRecord(
        name=policy.name,
        confidence=policy.confidence,
        scope=policy.scope,
        early_stop=policy.early_stop,
        familywise=policy.familywise,
        prove=policy.prove,
        on_undecided=policy.on_undecided,
        interval=policy.interval,
        findings={},
        verdict="incomplete",
    )


def _waivers(policy: Policy, today: date) -> tuple[WaiverRecord, ...]:
    """Return the waivers of a policy; the findings that refer to them are not counted yet."""
    return tuple(
        WaiverRecord(
            policy=policy.name,
            index=index,
            where=dict(waiver.where),
            until=waiver.until.isoformat(),
            reason=waiver.reason,
            days_left=waiver.days_left(today),
            expired=not waiver.is_current(today),
            findings=0,
        )
        for index, waiver in enumerate(policy.waivers)
    )


def _tallied(
    policy: PolicyRecord, rows: Iterable[CaseResult], findings: Iterable[Finding], left: Iterable[Unjudged]
) -> PolicyRecord:
    """Return what a policy says of the run; a case that was not measured counts for every policy, as for the run."""
    counts = Counter(finding.verdict for finding in findings if finding.policy == policy.name)
    verdicts: list[Verdict] = list(counts)
    verdicts += ["pass" if row.value is not None else row.verdict for row in rows]
    if any(one.policy == policy.name for one in left):
        verdicts.append("incomplete")
    told = {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]}
    return replace(policy, findings=told, verdict=worst(verdicts))


def _variants(rows: Iterable[CaseResult]) -> tuple[Variant, ...]:
    """Return the variants of a run in the plan's order: each has a clean case at least."""
    found = (Variant(model=row.model, source=row.source, compression=row.compression) for row in rows)
    return tuple(dict.fromkeys(found))
