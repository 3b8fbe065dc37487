"""The findings of a policy as one family: how sure each must be, for all of them together to be as sure as asked."""

from __future__ import annotations

from collections.abc import Callable

from robustgate.engine.judging import Judging
from robustgate.statistics.multiple import stepped_down


def size(judging: Judging) -> int:
    """Return how many findings of a policy may err, as planned: those that are inferred from a part of something.

    Of a test set that is measured in full nothing is inferred, but from the few samples of a masking case. Timings have
    an error of their own, and checks for masking and searches for instability are judged by what was counted.
    """
    policy = judging.policy
    inferred = policy.scope == "population" or policy.early_stop == "confident"
    count = sum(limits for (kind, _), limits in judging.limits.items() if inferred or kind == "masking")
    if policy.scope == "population":
        components = (rule.component for rules in judging.run_rules.values() for rule in rules)
        count += sum(len(component.bounds) for component in components if component.measures == "outcomes")
    return count


def confidence(judging: Judging) -> float:
    """Return the confidence of each finding's interval, whatever becomes of the others (Bonferroni; Holm's first step).

    It is what a case is measured to, and judged by where that suffices: so a verdict does not depend on which cases
    are selected with it, nor on their order.
    """
    policy = judging.policy
    return policy.confidence if policy.familywise == "none" else 1 - (1 - policy.confidence) / max(1, size(judging))


def left_over(judging: Judging, decided_at: Callable[[float], int]) -> float:
    """Return the confidence of the findings that are left undecided; `decided_at` counts those that an error decides.

    See `statistics.multiple.stepped_down`.
    """
    policy = judging.policy
    if policy.familywise == "none" or not size(judging):
        return policy.confidence
    return 1 - stepped_down(decided_at, size(judging), 1 - policy.confidence)
