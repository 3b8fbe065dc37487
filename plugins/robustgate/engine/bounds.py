"""What the samples drawn so far say of a figure: an interval of it, as a policy infers one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustgate.config import Policy
from robustgate.core.records import EarlyStop, IntervalMethod, Scope
from robustgate.statistics.paired import PairedCounts, drop_interval
from robustgate.statistics.proportion import Interval, clopper_pearson, wilson
from robustgate.statistics.sequential import betting_interval
from robustgate.statistics.stratified import stratified_wilson

Values = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How a policy infers a figure from samples; see `Policy`. `confidence` is that of the two-sided interval."""

    scope: Scope
    early_stop: EarlyStop
    method: IntervalMethod
    confidence: float

    @classmethod
    def of(cls, policy: Policy, confidence: float | None = None) -> Inference:
        """Return how a policy infers, at its own confidence or at another."""
        return cls(
            scope=policy.scope,
            early_stop=policy.early_stop,
            method=policy.interval,
            confidence=policy.confidence if confidence is None else confidence,
        )

    def accuracy(self, correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> Interval:
        """Return the interval of an accuracy: which of the first n drawn are right (n,), and the labels (N,) of all.

        Measured in full, it is exact on the test set; of the population it is Clopper and Pearson's, Wilson's, or that
        of Zou and Donner over the classes, whose shares are taken to be those of the test set.
        """

        def in_full(values: Values) -> Interval:
            right, total = int(values.sum()), len(values)
            if self.method == "stratified_wilson":
                classes, sizes = np.unique(labels, return_counts=True)
                counts = [(int(values[labels == one].sum()), int(n)) for one, n in zip(classes, sizes, strict=True)]
                return stratified_wilson(counts, (sizes / total).tolist(), self.confidence)
            formula = wilson if self.method == "wilson" else clopper_pearson
            return formula(right, total, self.confidence)

        return self._interval(correct.astype(np.int8), len(labels), 0, in_full)

    def drop(self, lost: NDArray[np.int8], total: int) -> Interval:
        """Return the interval of a paired drop, from what each of the first n of `total` samples drawn says of it (n,).

        That is 1 where only the reference is right, -1 where only the variant is, else 0. Measured in full it is exact
        on the test set; of the population it is Tango's, corrected for continuity.
        """

        def in_full(values: Values) -> Interval:
            counts = PairedCounts(n=len(values), lost=int((values > 0).sum()), gained=int((values < 0).sum()))
            return drop_interval(counts, self.confidence, corrected=True)

        return self._interval(lost, total, -1, in_full)

    def _interval(self, values: Values, total: int, least: int, in_full: Callable[[Values], Interval]) -> Interval:
        """Return the interval of the mean of `total` values in [`least`, 1], of which the first are known.

        With "confident", a confidence sequence, unless all that is asked about is known. Else between the interval
        that would come of the worst of the values that are to come and that of the best: no sample to come leads
        beyond it. Raises ValueError where no value is known.
        """
        if not len(values):
            raise ValueError("expected at least 1 value: nothing was measured, got none")
        rest = total - len(values)
        if self.early_stop == "confident" and (rest or self.scope == "population"):
            known = total if self.scope == "test_set" else None
            return betting_interval(values, self.confidence, least=least, most=1, total=known)
        low, high = (np.append(values, np.full(rest, end, np.int8)) for end in (least, 1))
        if self.scope == "test_set":
            return Interval(low=float(low.mean()), high=float(high.mean()))
        return Interval(low=in_full(low).low, high=in_full(high).high)
