"""Two releases, each with its results.json: what is worse, what is better, what cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from robustgate.core.records import VERDICTS, CaseResult, Results, RunRecord, Timing, VariantRecord, Verdict
from robustgate.engine.baseline import WITHOUT_STANDARD, Standard, place, standard_of
from robustgate.statistics.multiple import stepped_down
from robustgate.statistics.paired import PairedCounts, drop_interval
from robustgate.statistics.proportion import clopper_pearson

COMPARISON_SCHEMA = "robustgate/comparison/1"
Change = Literal["worse", "gone", "incomparable", "unclear", "better", "new", "same"]
# From worst to best; `gone` may hide anything.
CHANGES: tuple[Change, ...] = ("worse", "gone", "incomparable", "unclear", "better", "new", "same")
Speed = Literal["slower", "faster", "unclear"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """An accuracy on the `n` samples of `n_total` that are compared; its own exact interval where it is not paired."""

    value: float
    correct: int
    n: int
    n_total: int
    low: float | None = None
    high: float | None = None

    def bounded(self, confidence: float) -> Figure:
        """Return it with its interval."""
        interval = clopper_pearson(self.correct, self.n, confidence)
        return replace(self, low=interval.low, high=interval.high)

    def is_above(self, other: Figure) -> bool:
        """Say whether its interval lies wholly above the other's."""
        return self.low is not None and other.high is not None and self.low > other.high


@dataclass(frozen=True, kw_only=True)
class Drop:
    """What the samples that both releases measured say, the interval included: on `lost` only the first was right."""

    n: int
    lost: int
    gained: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A case of either release. `drop` is None where the two are not paired, and `reason` says why they are not.

    ``worse`` and ``better`` where the drop's interval lies wholly on one side of 0, or, unpaired, where the two own
    intervals do not meet; ``same`` where no sample came out otherwise.
    """

    name: str
    change: Change
    before: Figure | None = None
    after: Figure | None = None
    drop: Drop | None = None
    reason: str = ""

    @property
    def fall(self) -> float:
        """How far the accuracy fell, on the samples that are compared; 0 where nothing is."""
        if self.drop is not None:
            return self.drop.value
        return self.before.value - self.after.value if self.before and self.after else 0.0


@dataclass(frozen=True, kw_only=True)
class VerdictChange:
    """A case, or a rule on a variant, that both releases judged, and not alike."""

    subject: str
    before: Verdict
    after: Verdict


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a variant costs in one release; `ratio` is the time of one image by the reference's, timed in turn."""

    artifact_sha256: str
    size_bytes: int
    latency_ms: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None


@dataclass(frozen=True, kw_only=True)
class CostChange:
    """A variant that both releases built. `speed` is by the two ratios' intervals, on one kind of processor only."""

    name: str
    before: Cost
    after: Cost
    speed: Speed | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two releases, worst first. `each` is the confidence of every interval, for `confidence` that all verdicts hold.

    `counted` is how many comparisons share that error (Holm): a case without one sample that came out otherwise is
    none of them, since nothing could call it worse or better.
    """

    schema: str = COMPARISON_SCHEMA
    before: RunRecord
    after: RunRecord
    confidence: float
    each: float
    counted: int
    cases: tuple[Difference, ...]
    verdicts: tuple[VerdictChange, ...]
    variants: tuple[CostChange, ...]

    @property
    def compared(self) -> int:
        """How many cases both measured such that they can be compared."""
        return sum(one.change not in ("new", "gone", "incomparable") for one in self.cases)

    @property
    def is_worse(self) -> bool:
        """Whether a case is worse or a variant slower, beyond its interval."""
        return any(one.change == "worse" for one in self.cases) or any(one.speed == "slower" for one in self.variants)


def compare(before: Results, after: Results, confidence: float) -> Comparison:
    """Compare two releases, case by case: paired where both measured the same samples of the same data.

    Raises BaselineError where the outcomes of a case are damaged.
    """
    matched = list(_matched(before, after))
    contrasts = [one for one in matched if isinstance(one, Contrast)]
    counted = sum(one.may_differ for one in contrasts)
    error = 1 - confidence
    if counted:
        error = stepped_down(lambda each: sum(one.is_decided(1 - each) for one in contrasts), counted, error)
    cases = [one.at(1 - error) if isinstance(one, Contrast) else one for one in matched]
    return Comparison(
        before=before.run,
        after=after.run,
        confidence=confidence,
        each=1 - error,
        counted=counted,
        cases=tuple(sorted(cases, key=lambda one: (CHANGES.index(one.change), -one.fall, one.name))),
        verdicts=tuple(_verdicts(before, after)),
        variants=tuple(_costs(before, after)),
    )


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A case that both releases measured; `unpaired` says why there is no `pair` of counts."""

    name: str
    before: Figure
    after: Figure
    pair: PairedCounts | None = None
    unpaired: str = ""

    @property
    def may_differ(self) -> bool:
        """Whether the figures leave it open that it is worse or better."""
        return self.pair is None or self.pair.lost + self.pair.gained > 0

    def is_decided(self, confidence: float) -> bool:
        """Say whether it is worse or better at a confidence."""
        return self.may_differ and self.at(confidence).change in ("worse", "better")

    def at(self, confidence: float) -> Difference:
        """Return the case with its intervals at a confidence."""
        if self.pair is None:
            old, new = self.before.bounded(confidence), self.after.bounded(confidence)
            change = _change(old.is_above(new), new.is_above(old))
            return Difference(name=self.name, change=change, before=old, after=new, reason=self.unpaired)
        pair, interval = self.pair, drop_interval(self.pair, confidence, corrected=True)
        counts = {"n": pair.n, "lost": pair.lost, "gained": pair.gained}
        return Difference(
            name=self.name,
            change=_change(interval.low > 0, interval.high < 0) if self.may_differ else "same",
            before=self.before,
            after=self.after,
            drop=Drop(**counts, value=pair.drop, low=interval.low, high=interval.high),
        )


def _matched(before: Results, after: Results) -> Iterator[Contrast | Difference]:
    """Yield every case that either release measured; a check of masking or stability has a verdict only."""
    old, new = (
        {place(row): row for row in one.cases if row.shift.kind not in WITHOUT_STANDARD} for one in (before, after)
    )
    same_order = before.run.seed == after.run.seed
    for name in dict.fromkeys([*old, *new]):
        first, second = old.get(name), new.get(name)
        if first is not None and second is not None and first.value is not None and second.value is not None:
            yield _contrast(name, first, second, same_order)
        elif first is not None and first.value is not None:
            why = "no longer planned" if second is None else f"not measured: {second.message}"
            yield Difference(name=name, change="gone", before=_figure(first), reason=why)
        elif second is not None and second.value is not None:
            why = "not planned before" if first is None else f"not measured before: {first.message}"
            yield Difference(name=name, change="new", after=_figure(second), reason=why)


def _contrast(name: str, old: CaseResult, new: CaseResult, same_order: bool) -> Contrast | Difference:
    if old.shift.detail != new.shift.detail:
        why = f"under another shift: {old.shift.detail or 'none'} → {new.shift.detail or 'none'}"
        return Difference(name=name, change="incomparable", before=_figure(old), after=_figure(new), reason=why)
    if old.right is None or new.right is None:
        unpaired = "a run is of an older robustgate, which did not tell which samples were right"
    elif old.data != new.data:
        unpaired = "on other data"
    elif not same_order:
        unpaired = "in the order of another seed"
    else:
        return paired(name, standard_of(old), standard_of(new))
    return Contrast(name=name, before=_figure(old), after=_figure(new), unpaired=unpaired)


def paired(name: str, old: Standard, new: Standard) -> Contrast:
    """Pair a case's outcomes on the samples that both measured, the first ones drawn."""
    n = min(old.n, new.n)
    pair = PairedCounts.of(old.outcomes[:n], new.outcomes[:n])
    before, after = (_on(one, int(one.outcomes[:n].sum()), n) for one in (old, new))
    return Contrast(name=name, before=before, after=after, pair=pair)


def _figure(row: CaseResult) -> Figure:
    return _on(row, row.correct, row.n)


def _on(row: CaseResult | Standard, correct: int, n: int) -> Figure:
    return Figure(value=correct / n, correct=correct, n=n, n_total=row.n_total)


def _change(is_worse: bool, is_better: bool) -> Change:
    return "worse" if is_worse else "better" if is_better else "unclear"


def _verdicts(before: Results, after: Results) -> list[VerdictChange]:
    old, new = _judged(before), _judged(after)
    changes = [
        VerdictChange(subject=subject, before=old[subject], after=new[subject])
        for subject in old
        if subject in new and old[subject] != new[subject]
    ]
    return sorted(changes, key=lambda one: VERDICTS.index(one.before) - VERDICTS.index(one.after))


def _judged(results: Results) -> dict[str, Verdict]:
    """Return the verdicts of the cases that were selected, and of the rules on variants."""
    cases = {place(row): row.verdict for row in results.cases if row.selected}
    rules = {f"{one.subject}: rule {one.rule!r} of policy {one.policy}": one.verdict for one in results.findings}
    return cases | rules


def _costs(before: Results, after: Results) -> list[CostChange]:
    old, new = ({record.name: record for record in one.variants} for one in (before, after))
    same_processor = before.run.processor == after.run.processor and before.run.device == after.run.device
    changes = [_cost_change(old[name], new[name], same_processor) for name in old if name in new]
    return sorted(changes, key=lambda one: (one.speed != "slower", one.before.size_bytes - one.after.size_bytes))


def _cost_change(before: VariantRecord, after: VariantRecord, same_processor: bool) -> CostChange:
    old, new = _single(before), _single(after)
    speed: Speed | None = None
    if old is not None and new is not None and same_processor:
        speed = (
            "slower" if new.ratio_low > old.ratio_high else "faster" if new.ratio_high < old.ratio_low else "unclear"
        )
    return CostChange(name=before.name, before=_cost(before, old), after=_cost(after, new), speed=speed)


def _single(record: VariantRecord) -> Timing | None:
    return next((timing for timing in record.timings if timing.batch == 1), None)


def _cost(record: VariantRecord, timing: Timing | None) -> Cost:
    return Cost(
        artifact_sha256=record.artifact_sha256,
        size_bytes=record.size_bytes,
        latency_ms=record.latency_ms,
        ratio=timing.ratio if timing else None,
        ratio_low=timing.ratio_low if timing else None,
        ratio_high=timing.ratio_high if timing else None,
    )
