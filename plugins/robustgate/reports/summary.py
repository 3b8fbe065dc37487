"""The run for the terminal: its verdict, what failed, and what took long."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from textwrap import shorten

from robustgate.core.records import VERDICTS, CaseResult, Finding, LimitKind, Results, Verdict, is_red
from robustgate.reports import figures, policies

# What prints as 0.0 s says nothing.
SHORTEST_SECONDS = 0.05
# How much of a message the terminal repeats: the failed test has told all of it.
LONGEST = 60
WORDS: dict[Verdict, str] = {"undecided": "undecided", "incomplete": "not measured", "error": "error"}
TOO: dict[LimitKind, str] = {"min": "too low", "max": "too high", "max_drop": "too much"}


def heading(results: Results) -> str:
    """Return ``policy edge, on new data``, or ``policies edge on this test set, cloud on new data``."""
    asked = policies.asked(results)
    if len({policy.scope for policy in results.run.policies}) == 1:
        return f"{policies.named(results)}, {asked}"
    return f"policies {asked}"


def summarize(results: Results) -> list[str]:
    """Return the lines of the closing summary, the verdict first."""
    run = results.run
    counts = Counter(row.verdict for row in results.cases if row.selected)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in counts)
    kept = sum(row.cached for row in results.cases)
    lines = [
        f"{run.verdict}: {run.measured:,} of {run.planned:,} planned cases measured ({kept:,} kept from before)"
        + (f": {told}" if told else "")
    ]
    if len(run.policies) > 1:
        lines += [
            f"policy {one.name}, {policies.SCOPES[one.scope]}: {one.verdict}: {policies.tally(one.findings)}"
            for one in run.policies
        ]
    seen, whole = (sum(counted) for counted in zip(*((row.n, row.n_total) for row in results.cases), strict=True))
    if seen < whole:
        lines.append(f"{seen:,} of the {whole:,} samples of these cases were enough for their verdicts")
    costs = Counter(finding.verdict for finding in results.findings)
    if costs:
        lines.append("rules on variants: " + ", ".join(f"{count} {verdict}" for verdict, count in costs.items()))
    if run.selected < run.planned:
        left = run.planned - run.selected
        lines.append(f"{left:,} cases were not selected: this run certifies nothing as a whole")
    unruled = sum(not row.findings for row in results.cases if row.value is not None)
    if unruled:
        lines.append(f"{unruled:,} cases were measured under no rule of {policies.the_policies(results)}")
    return lines + [line for expired in (True, False) for line in policies.warnings(results, expired=expired)]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What turned a test red: a case or a variant by its name, its figure, the limit, the rule (its policy), and why.

    `beyond` is how far the figure lies on the wrong side of the limit: a fraction of the samples for a case, of the
    limit for a variant.
    """

    name: str
    verdict: Verdict
    why: str
    figure: str = figures.NOTHING
    limit: str = ""
    rule: str = figures.NOTHING
    beyond: float = 0.0
    is_case: bool = True


def failures(results: Results) -> list[Failure]:
    """Return what turned tests red, worst first: by verdict, cases before variants, then by how far beyond the limit.

    A finding that a policy lets pass is none, though it be undecided.
    """
    settings = {policy.name: policy.on_undecided for policy in results.run.policies}

    def reds(findings: tuple[Finding, ...]) -> list[Finding]:
        return [one for one in findings if is_red(one.verdict, settings[one.policy])]

    found = [_unmeasured(case) for case in results.cases if case.selected and case.value is None]
    found += [_of_case(case, one) for case in results.cases if case.value is not None for one in reds(case.findings)]
    found += [_of_variant(one) for one in reds(results.findings)]
    return sorted(found, key=lambda one: (-VERDICTS.index(one.verdict), not one.is_case, -one.beyond, one.name))


def slowest(results: Results, most: int) -> list[CaseResult]:
    """Return the cases that took longest, but for those that were kept from before: they took no time."""
    measured = [case for case in results.cases if not case.cached and case.seconds >= SHORTEST_SECONDS]
    return sorted(measured, key=lambda case: (-case.seconds, case.name))[:most]


def _unmeasured(case: CaseResult) -> Failure:
    word = WORDS[case.verdict]
    told = f"{word}: {case.message}" if case.message else word
    return Failure(name=case.name, verdict=case.verdict, why=shorten(told, LONGEST, placeholder="…"))


def _of_case(case: CaseResult, finding: Finding) -> Failure:
    """Return a rule that a measured case breaks: its figures are fractions of samples."""
    is_drop = finding.limit_kind == "max_drop"
    beyond, figure = _beyond(finding), figures.NOTHING
    if finding.value is not None:
        shown = f"drop {figures.tenths(finding.value)}" if is_drop else figures.percent(finding.value)
        figure = f"{shown} {figures.interval(finding.low, finding.high)}".strip()
    return Failure(
        name=case.name,
        verdict=finding.verdict,
        why=_why(finding, f"{figures.points(beyond)} {TOO[finding.limit_kind]}"),
        figure=figure,
        limit=f"{finding.limit_kind} {(figures.points if is_drop else figures.percent)(finding.limit)}",
        rule=f"{finding.rule} ({finding.policy})",
        beyond=beyond,
    )


def _of_variant(finding: Finding) -> Failure:
    """Return a rule that a variant breaks: each such rule has units of its own, in which its message tells both."""
    limit, _, told = finding.message.partition("; ")
    return Failure(
        name=finding.subject,
        verdict=finding.verdict,
        why=_why(finding, TOO[finding.limit_kind]),
        figure=figures.NOTHING if finding.value is None else told.removeprefix("it is "),
        limit=limit,
        rule=f"{finding.rule} ({finding.policy})",
        beyond=_beyond(finding) / (abs(finding.limit) or 1.0),
        is_case=False,
    )


def _beyond(finding: Finding) -> float:
    """Return how far a figure lies on the wrong side of its limit, below zero on the right one."""
    excess = 0.0 if finding.value is None else finding.value - finding.limit
    return -excess if finding.limit_kind == "min" else excess


def _why(finding: Finding, broken: str) -> str:
    """Return the reason in a few words; `broken` says it of a broken rule."""
    why = broken if finding.verdict == "fail" else WORDS[finding.verdict]
    if finding.value is None and (told := finding.message.partition("; ")[2]):
        why = shorten(told, LONGEST, placeholder="…")
    return f"{why}; its waiver {finding.waiver}" if finding.waiver else why
