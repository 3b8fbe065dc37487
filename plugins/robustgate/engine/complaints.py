"""Why a run is red, told from its results alone."""

from __future__ import annotations

from collections.abc import Iterable

from robustgate.core.errors import listing
from robustgate.core.records import Finding, Results, is_red
from robustgate.engine.results import key, rules_left


def reasons(results: Results, *, complete: bool) -> list[str]:
    """Return why pytest's exit status is not 0 for a run; `complete` asks for all that was planned, too.

    Raises ResultsError as `rules_left` does.
    """
    nothing = "" if results.run.measured or results.findings else "nothing was measured"
    found = (broken(results), gap(results), left_out(results) if complete else "", nothing)
    return [reason for reason in found if reason]


def broken(results: Results) -> str:
    """Return what fails its test, each finding by its own policy, or an empty text."""
    decides = {policy.name: policy.on_undecided for policy in results.run.policies}

    def fails(findings: Iterable[Finding]) -> bool:
        return any(is_red(finding.verdict, decides.get(finding.policy, "fail")) for finding in findings)

    rows = [row for row in results.cases if row.verdict == "error" or fails(row.findings)]
    variants = {finding.subject for finding in results.findings if fails([finding])}
    names = [*("/".join(key(row)) for row in rows), *(f"a rule on {name}" for name in variants)]
    return f"{len(names):,} failed: {listing(names)}" if names else ""


def gap(results: Results) -> str:
    """Return what was selected and has no figure, or an empty text: it turns a run red whose tests all passed.

    Raises ResultsError as `rules_left` does.
    """
    missing = [row.name for row in results.cases if row.selected and row.value is None and row.verdict == "incomplete"]
    if missing:
        return f"{len(missing)} selected cases were not measured, {missing[0]} among them"
    rules = [f"{one.rule!r} of policy {one.policy} on {one.subject}" for one in rules_left(results) if one.selected]
    return f"{len(rules)} rules on selected variants were not judged, {rules[0]} among them" if rules else ""


def left_out(results: Results) -> str:
    """Return what keeps a run from being complete, or an empty text. Raises ResultsError as `rules_left` does."""
    run = results.run
    if run.complete:
        return ""
    left = f"{run.planned - run.measured:,} of {run.planned:,} planned cases"
    return f"{left} and {len(rules_left(results)):,} rules on variants were not measured"
