"""What a test set can show: for each rule of a policy the smallest difference from its limit that it resolves. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

from robustgate.config import CaseRule
from robustgate.core.records import LimitKind
from robustgate.engine import family
from robustgate.engine.judging import Judging
from robustgate.statistics.power import samples_for_gap, samples_needed, smallest_drop, smallest_gap

# The gap of an accuracy from its floor for which the samples that are needed are told.
GAP = 0.02


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What `n` samples, the fewest of a rule's cases, say of new data at a confidence.

    `smallest` is the distance of a true figure from the limit that they show with a chance of `POWER`, infinite where
    none is; `needed` samples show `difference`. `warning` is why the limit is beyond them, or empty.
    """

    rule: str
    limit_kind: LimitKind
    limit: float
    n: int
    confidence: float
    smallest: float
    needed: int
    difference: float
    warning: str


def resolutions(judging: Judging, sizes: Mapping[str, int], disagreement: float) -> Iterator[Resolution]:
    """Yield what the test set resolves of each limit of a policy on cases, whose `sizes` are given by their names.

    `disagreement` is the share of samples on which a variant and what it is compared with are not both right or both
    wrong. Where the policy asks about new data, the confidence is that of each finding among all of them.
    """
    policy = judging.policy
    confidence = family.confidence(judging) if policy.scope == "population" else policy.confidence
    for rule in policy.case_rules:
        counts = [sizes[name] for name, rules in judging.case_rules.items() if rule in rules and name in sizes]
        if counts and rule.min is not None:
            yield _floor(rule, rule.min, min(counts), confidence)
        if counts and rule.max_drop is not None:
            yield _drop(rule, rule.max_drop, min(counts), confidence, disagreement)


def _floor(rule: CaseRule, limit: float, n: int, confidence: float) -> Resolution:
    smallest = smallest_gap(n, limit, confidence)
    room = 1 - limit
    beyond = 0 < room < smallest
    return Resolution(
        rule=rule.name,
        limit_kind="min",
        limit=limit,
        n=n,
        confidence=confidence,
        smallest=smallest,
        needed=samples_for_gap(GAP, limit, confidence),
        difference=GAP,
        warning=f"even a network that is always right is only {100 * room:.1f} points above it" if beyond else "",
    )


def _drop(rule: CaseRule, limit: float, n: int, confidence: float, disagreement: float) -> Resolution:
    smallest = smallest_drop(n, disagreement, confidence)
    told = f"the smallest is {100 * smallest:.1f} points" if isfinite(smallest) else "no drop is large enough"
    difference = limit or GAP
    return Resolution(
        rule=rule.name,
        limit_kind="max_drop",
        limit=limit,
        n=n,
        confidence=confidence,
        smallest=smallest,
        needed=samples_needed(difference, disagreement, confidence),
        difference=difference,
        warning=f"{n:,} images cannot resolve {100 * limit:.1f} points: {told}" if smallest > limit > 0 else "",
    )
