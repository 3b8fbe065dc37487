"""The mildest transformation that changes more predictions than a rule allows: searched and shrunk by Hypothesis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from hypothesis.strategies import SearchStrategy
from numpy.typing import NDArray

from robustgate.core.components import Samples, StabilityRule
from robustgate.core.images import take
from robustgate.core.seeds import derive
from robustgate.engine.data import as_tensor
from robustgate.engine.examples import Examples
from robustgate.engine.measure import Outcome, Progress, batch_size
from robustgate.engine.subjects import Subject, check_logits
from robustgate.engine.transformations import TRANSFORMATIONS, Amount, told, transformed

Steps = Mapping[str, Amount]


def chosen(samples: Samples, count: int, seed: int) -> Samples:
    """Return `count` of the samples, or all that there are, which ones `seed` decides, in their own order."""
    order = np.random.Generator(np.random.PCG64DXSM(seed)).permutation(len(samples))
    return take(samples, np.sort(order[:count]))


def measure_stability(
    subject: Subject,
    samples: Samples,
    name: str,
    progress: Progress,
    rule: StabilityRule,
    seed: int,
    examples: Examples,
) -> Outcome:
    """Search the transformations of a rule for the mildest that changes more than `rule.max` of the predictions.

    The outcome's `labels` are the answers to the untouched images, its `predictions` those under the mildest
    transformation that breaks the rule, or, where none does, under the one that changed most; the images that changed
    sides there are kept as examples. `details` tells the mildest of each transformation that alone breaks the rule,
    and how many were tried. The same samples, rule and seed give the same search. Raises MeasurementError.
    """
    search = Search(subject, samples, name, progress, rule, seed)
    found = {one: steps for one in rule.transformations if (steps := search.mildest_of(one))}
    together = None if found else search.mildest_together()
    mildest = min(found.values(), key=search.reach, default=together) or search.worst()
    predictions = search.answers(mildest)
    changed = np.flatnonzero(predictions != search.untouched)
    for row in changed:
        images, _ = as_tensor(samples, np.array([row]), subject.device)
        examples.add(np.array([row]), transformed(images, mildest))
    details: dict[str, Any] = {
        "mildest": told(mildest),
        "steps": {one: list(steps) for one, steps in mildest.items() if any(steps)},
        "breaks": bool(found or together),
        "alone": {one: {"told": told(steps), "share": search.share(steps)} for one, steps in found.items()},
        "tried": len(search.known),
    }
    return Outcome(labels=search.untouched, predictions=predictions, details=details, examples=examples.places)


@dataclass
class Search:
    """What a variant answers to N samples under transformations, each asked about once."""

    subject: Subject
    samples: Samples
    name: str
    progress: Progress
    rule: StabilityRule
    seed: int
    known: dict[tuple[tuple[str, Amount], ...], NDArray[np.int64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.untouched = self._classified({})

    def mildest_of(self, name: str) -> Steps | None:
        """Return the mildest amount of one transformation that breaks the rule, or None where none was found."""
        return self._find(self._amounts(name).map(lambda amount: {name: amount}), self.rule.examples, name)

    def mildest_together(self) -> Steps | None:
        """Return a mild mixture of all transformations that breaks the rule, or None where none was found."""
        mixtures = st.fixed_dictionaries({name: self._amounts(name) for name in self.rule.transformations})
        return self._find(mixtures, self.rule.examples, "together")

    def worst(self) -> Steps:
        """Return what changed the most predictions of all that was tried; of equals, the mildest."""
        tried = [dict(key) for key in self.known]
        return max(tried, key=lambda steps: (self.share(steps), -self.reach(steps)))

    def share(self, steps: Steps) -> float:
        """Return the share of the predictions that a transformation changes."""
        return float((self.answers(steps) != self.untouched).mean())

    def reach(self, steps: Steps) -> float:
        """Return how far transformations go, the largest by its own limit: 1 is as far as the rule searches."""
        reaches = [
            max(map(abs, amount)) / TRANSFORMATIONS[name].most(self.rule.transformations[name])
            for name, amount in steps.items()
        ]
        return max(reaches, default=0.0)

    def answers(self, steps: Steps) -> NDArray[np.int64]:
        """Return the predictions (N,) under transformations."""
        key = tuple(sorted((name, amount) for name, amount in steps.items() if any(amount)))
        if not key:
            return self.untouched
        if key not in self.known:
            self.known[key] = self._classified(steps)
        return self.known[key]

    def _amounts(self, name: str) -> SearchStrategy[Amount]:
        transformation = TRANSFORMATIONS[name]
        most = transformation.most(self.rule.transformations[name])
        least = 0 if transformation.one_sided else -most
        # The ends are where a rule breaks most often: they are tried for certain, and shrunk from.
        steps = st.integers(least, most) | st.sampled_from([most, least])
        return st.tuples(*[steps] * transformation.axes)

    def _find(self, strategy: SearchStrategy[Any], examples: int, what: str) -> Steps | None:
        options = settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        try:
            steps: Steps = find(
                strategy,
                lambda steps: self.share(steps) > self.rule.max,
                settings=options,
                random=Random(derive(self.seed, what)),  # noqa: S311  # a search needs no secret
            )
        except NoSuchExample:
            return None
        return steps

    def _classified(self, steps: Steps) -> NDArray[np.int64]:
        predictions, size = [], batch_size(self.samples)
        for start in range(0, len(self.samples), size):
            images, labels = as_tensor(self.samples, slice(start, start + size), self.subject.device)
            logits = self.subject.logits(transformed(images, steps))
            check_logits(logits, len(labels), len(self.samples.classes), self.name)
            predictions.append(logits.argmax(dim=1).cpu())
            self.progress(min(start + size, len(self.samples)), len(self.samples))
        classified: NDArray[np.int64] = torch.cat(predictions).numpy()
        return classified
