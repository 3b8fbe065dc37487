"""What reports and the terminal say of the policies that judged a run, and of their waivers."""

from __future__ import annotations

from collections.abc import Mapping

from robustgate.core.records import VERDICTS, PolicyRecord, Results, Scope, Verdict, WaiverRecord
from robustgate.reports import figures

SCOPES: Mapping[Scope, str] = {"test_set": "on this test set", "population": "on new data"}
# How many days before a waiver expires a run begins to say so.
WARNED_DAYS = 14


def named(results: Results) -> str:
    """Return ``policy edge`` or ``policies edge, cloud``."""
    return f"{_noun(results)} {results.run.policy}"


def the_policies(results: Results) -> str:
    """Return how a sentence calls them: ``the policy``, or ``the policies`` where there are several."""
    return f"the {_noun(results)}"


def asked(results: Results) -> str:
    """Return what was asked: ``on new data``; of each policy by its name where they ask different things."""
    questions = {policy.name: SCOPES[policy.scope] for policy in results.run.policies}
    if len(set(questions.values())) == 1:
        return next(iter(questions.values()))
    return ", ".join(f"{name} {question}" for name, question in questions.items())


def tally(counts: Mapping[Verdict, int]) -> str:
    """Return ``3 fail, 9 pass``, worst first."""
    found = [f"{figures.count(counts[verdict])} {verdict}" for verdict in reversed(VERDICTS) if verdict in counts]
    return ", ".join(found) or "no findings"


def settings(policy: PolicyRecord) -> str:
    """Return what a policy is set to, in the words of the configuration."""
    early = policy.early_stop or "false"
    proof = f"prove {policy.prove}" if policy.prove else f"on_undecided {policy.on_undecided}"
    return (
        f"confidence {policy.confidence:.10g}, scope {policy.scope}, early_stop {early}, "
        f"familywise {policy.familywise}, {proof}, interval {policy.interval}"
    )


def state(waiver: WaiverRecord) -> str:
    """Return ``in force``, ``expires in 5 days`` or ``expired``."""
    if waiver.expired:
        return "expired"
    if waiver.days_left > WARNED_DAYS:
        return "in force"
    return f"expires in {figures.counted(waiver.days_left, 'day')}" if waiver.days_left else "expires today"


def warnings(results: Results, *, expired: bool) -> list[str]:
    """Return a line for each waiver that has expired, or for each that soon will."""
    return [
        f"waiver of policy {waiver.policy} {state(waiver)}{' on' if expired else ', on'} {waiver.until}: "
        f"{waiver.reason}"
        for waiver in results.waivers
        if waiver.expired == expired and state(waiver) != "in force"
    ]


def _noun(results: Results) -> str:
    return "policy" if len(results.run.policies) == 1 else "policies"
