"""What a test measured, as the properties of its test case in `--junitxml`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from robustgate.core.records import CaseResult, Finding, VariantRecord, worst
from robustgate.reports.view import rule_text

# Each property's name after `robustgate.`, and the field that it shows; what is None is left out.
OF_CASE = {
    "case": "name",
    "verdict": "verdict",
    "metric": "metric",
    "value": "value",
    "low": "low",
    "high": "high",
    "n": "n",
    "n_total": "n_total",
    "reference": "reference_value",
    "drop": "drop",
    "drop_low": "drop_low",
    "drop_high": "drop_high",
    "measurement": "measurement",
    "cached": "cached",
}
OF_VARIANT = {
    "variant": "name",
    "artifact_sha256": "artifact_sha256",
    "size_bytes": "size_bytes",
    "parameters": "parameters",
    "latency_ms": "latency_ms",
    "memory_bytes": "memory_bytes",
}


def properties(
    case: CaseResult | None, variant: VariantRecord | None, findings: Sequence[Finding]
) -> list[tuple[str, str]]:
    """Return the properties of what a test measured: a case, or findings on a variant.

    Figures have all their digits, accuracies and drops are fractions. ``robustgate.finding`` stands once for each rule
    that was applied: its verdict, and what the reports say of it. Text from outside is in values only, which pytest
    makes fit for XML.
    """
    found: list[tuple[str, object]] = []
    if case is not None:
        found += [(name, getattr(case, field)) for name, field in OF_CASE.items()]
    if variant is not None:
        found += [(name, getattr(variant, field)) for name, field in OF_VARIANT.items()]
    judged = (*(case.findings if case is not None else ()), *findings)
    if findings:
        found.append(("verdict", worst(finding.verdict for finding in findings)))
    found += _of(judged)
    return [(f"robustgate.{name}", str(value)) for name, value in found if value is not None]


def _of(findings: Iterable[Finding]) -> Iterable[tuple[str, object]]:
    listed = list(findings)
    if listed:
        yield "policy", ", ".join(dict.fromkeys(finding.policy for finding in listed))
    for finding in listed:
        yield "finding", f"{finding.verdict}: {rule_text(finding)}"
