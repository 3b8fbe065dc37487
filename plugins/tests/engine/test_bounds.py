"""What a part of the samples says of all: against every way in which the rest may come out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustgate.config import Policy
from robustgate.engine.bounds import Inference
from robustgate.statistics.paired import PairedCounts, drop_interval
from robustgate.statistics.proportion import Interval, clopper_pearson, wilson
from robustgate.statistics.sequential import betting_interval
from robustgate.statistics.stratified import stratified_wilson

deterministic = settings(derandomize=True, database=None, deadline=None, max_examples=60)
LABELS = np.array([0, 1, 1, 0, 2, 1, 2, 2])
N = len(LABELS)
METHODS = ("clopper_pearson", "wilson", "stratified_wilson")


def inference(**given: Any) -> Inference:
    policy = Policy(name="edge", case_rules=(), run_rules=(), **{"scope": "population", "confidence": 0.9, **given})
    return Inference.of(policy)


def accuracy(found: Inference, outcomes: tuple[int, ...] | list[int], labels: np.ndarray = LABELS) -> Interval:
    return found.accuracy(np.array(outcomes, dtype=bool), labels)


def drop(found: Inference, lost: tuple[int, ...] | list[int], total: int = N) -> Interval:
    return found.drop(np.array(lost, dtype=np.int8), total)


def in_full(method: str, outcomes: tuple[int, ...]) -> Interval:
    """The interval of all samples, straight from statistics/."""
    right = np.array(outcomes)
    if method == "stratified_wilson":
        sizes = (2, 3, 3)
        counts = [(int(right[np.equal(LABELS, label)].sum()), size) for label, size in enumerate(sizes)]
        return stratified_wilson(counts, [size / N for size in sizes], 0.9)
    return {"clopper_pearson": clopper_pearson, "wilson": wilson}[method](int(right.sum()), N, 0.9)


def hull(
    known: tuple[int, ...], values: tuple[int, ...], rest: int, interval: Callable[[tuple[int, ...]], Interval]
) -> tuple[float, float]:
    """From the lowest to the highest end of any way in which the rest may come out."""
    found = [interval((*known, *completion)) for completion in product(values, repeat=rest)]
    return min(one.low for one in found), max(one.high for one in found)


def known_runs(values: tuple[int, ...], longest: int) -> list[tuple[int, ...]]:
    return [run for n in range(1, longest + 1) for run in product(values, repeat=n)]


# Every completion.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("early_stop", ["certain", False])
def test_of_the_population_it_holds_every_interval_that_may_come(method: Any, early_stop: Any) -> None:
    found = inference(interval=method, early_stop=early_stop)
    whole = {run: in_full(method, run) for run in product((0, 1), repeat=N)}
    for known in known_runs((0, 1), N):
        ours, expected = accuracy(found, known), hull(known, (0, 1), N - len(known), whole.__getitem__)
        assert (ours.low, ours.high) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("early_stop", ["certain", False])
def test_of_the_test_set_it_holds_every_accuracy_that_may_come_and_no_other(early_stop: Any) -> None:
    found = inference(scope="test_set", early_stop=early_stop)

    def fact(run: tuple[int, ...]) -> Interval:
        return Interval(low=sum(run) / N, high=sum(run) / N)

    for known in known_runs((0, 1), N):
        ours = accuracy(found, known)
        assert (ours.low, ours.high) == hull(known, (0, 1), N - len(known), fact)


@pytest.mark.parametrize("scope", ["test_set", "population"])
@pytest.mark.parametrize("early_stop", ["certain", False])
def test_a_drop_holds_every_drop_that_may_come(scope: Any, early_stop: Any) -> None:
    found, total = inference(scope=scope, early_stop=early_stop), 5

    def interval(run: tuple[int, ...]) -> Interval:
        if scope == "test_set":
            return Interval(low=sum(run) / total, high=sum(run) / total)
        return drop_interval(PairedCounts(n=total, lost=run.count(1), gained=run.count(-1)), 0.9, corrected=True)

    whole = {run: interval(run) for run in product((-1, 0, 1), repeat=total)}
    for known in known_runs((-1, 0, 1), total):
        ours = drop(found, known, total)
        expected = hull(known, (-1, 0, 1), total - len(known), whole.__getitem__)
        assert (ours.low, ours.high) == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_the_classes_uses_their_shares_of_the_test_set() -> None:
    labels = np.repeat([0, 1], [70, 30])
    right = np.concatenate([np.arange(70) < 56, np.arange(30) < 15])
    order = np.random.default_rng(0).permutation(100)
    found = inference(interval="stratified_wilson").accuracy(right[order], labels[order])
    expected = stratified_wilson([(56, 70), (15, 30)], [0.7, 0.3], 0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.high - found.low < wilson(71, 100, 0.9).high - wilson(71, 100, 0.9).low


# A confidence sequence.


@pytest.mark.parametrize("scope", ["test_set", "population"])
@pytest.mark.parametrize("n", [1, 50, 120, 199])
def test_a_part_is_the_confidence_sequences(scope: Any, n: int) -> None:
    random = np.random.default_rng(n)
    right, lost = random.random(n) < 0.9, random.choice([-1, 0, 1], n, p=[0.02, 0.9, 0.08]).astype(np.int8)
    found, total = inference(scope=scope, early_stop="confident", confidence=0.97), 200
    known = total if scope == "test_set" else None
    labels = np.zeros(total, np.int64)
    expected = betting_interval(right.astype(float), 0.97, least=0, most=1, total=known)
    assert found.accuracy(right, labels) == expected
    assert found.drop(lost, total) == betting_interval(lost, 0.97, least=-1, most=1, total=known)
    if scope == "population":
        assert expected.low <= clopper_pearson(int(right.sum()), n, 0.97).low, "one look is surer than each of many"
    else:
        assert expected.low >= inference(scope=scope, early_stop="certain").accuracy(right, labels).low


def test_measured_in_full_it_is_a_fact_of_the_test_set_and_a_sequence_of_the_population() -> None:
    right, lost = np.arange(200) < 150, (np.arange(200) < 7).astype(np.int8)
    labels = np.zeros(200, np.int64)
    fact, sample = (inference(scope=scope, early_stop="confident") for scope in ("test_set", "population"))
    assert fact.accuracy(right, labels) == Interval(low=0.75, high=0.75)
    assert fact.drop(lost, 200) == Interval(low=0.035, high=0.035)
    # An interval for one look would be narrower, and wrong: earlier looks were taken.
    assert sample.accuracy(right, labels) == betting_interval(right, 0.9, least=0, most=1)
    assert sample.drop(lost, 200) == betting_interval(lost, 0.9, least=-1, most=1)


@pytest.mark.parametrize("early_stop", [False, "certain", "confident"])
def test_of_the_test_set_all_samples_are_a_point(early_stop: Any) -> None:
    found = inference(scope="test_set", early_stop=early_stop)
    for right in range(N + 1):
        one = accuracy(found, [1] * right + [0] * (N - right))
        assert one.low == one.high == right / N
        both = drop(found, [1] * right + [-1] * (N - right))
        assert both.low == both.high == (2 * right - N) / N


@pytest.mark.parametrize("scope", ["test_set", "population"])
@pytest.mark.parametrize("early_stop", [False, "certain", "confident"])
def test_no_sample_at_all_is_refused(scope: Any, early_stop: Any) -> None:
    found = inference(scope=scope, early_stop=early_stop)
    for ask in (lambda: accuracy(found, []), lambda: drop(found, []), lambda: drop(found, [], 0)):
        with pytest.raises(ValueError, match="nothing was measured"):
            ask()


def test_a_policy_says_how_it_infers_and_a_family_how_surely() -> None:
    policy = Policy(
        name="edge",
        case_rules=(),
        run_rules=(),
        scope="population",
        early_stop="certain",
        interval="wilson",
        confidence=0.95,
    )
    expected = Inference(scope="population", early_stop="certain", method="wilson", confidence=0.95)
    assert Inference.of(policy) == expected
    assert Inference.of(policy, 0.999).confidence == 0.999


# Monotone.

SCOPES, STOPS = st.sampled_from(["test_set", "population"]), st.sampled_from([False, "certain", "confident"])


@pytest.mark.parametrize("method", METHODS)
def test_of_all_outcomes_none_is_bounded_lower_than_a_worse_one(method: Any) -> None:
    found = inference(interval=method)
    whole = {run: accuracy(found, run) for run in product((0, 1), repeat=N)}
    for run, place in product(whole, range(N)):
        better = whole[*run[:place], 1, *run[place + 1 :]]
        assert better.low >= whole[run].low - 1e-12
        assert better.high >= whole[run].high - 1e-12


@pytest.mark.parametrize("method", METHODS)
@deterministic
@given(data=st.data())
def test_a_miss_turned_into_a_hit_lowers_no_end_of_an_accuracy(method: Any, data: st.DataObject) -> None:
    outcomes = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=40))
    rest, place = data.draw(st.integers(0, 30)), data.draw(st.integers(0, len(outcomes) - 1))
    labels = np.array(data.draw(st.permutations([index % 3 for index in range(len(outcomes) + rest)])))
    scope = data.draw(SCOPES) if method == "clopper_pearson" else "population"
    found = inference(interval=method, scope=scope, early_stop=data.draw(STOPS))
    worse, better = [*outcomes], [*outcomes]
    worse[place], better[place] = 0, 1
    below, above = accuracy(found, worse, labels), accuracy(found, better, labels)
    assert above.low >= below.low - 1e-12
    assert above.high >= below.high - 1e-12


@deterministic
@given(
    lost=st.lists(st.integers(-1, 1), min_size=1, max_size=40),
    rest=st.integers(0, 30),
    place=st.integers(0, 39),
    scope=SCOPES,
    early_stop=STOPS,
)
def test_more_lost_lowers_no_end_of_a_drop(lost: list[int], rest: int, place: int, scope: Any, early_stop: Any) -> None:
    found, total = inference(scope=scope, early_stop=early_stop), len(lost) + rest
    one = place % len(lost)
    ends = [drop(found, [*lost[:one], value, *lost[one + 1 :]], total) for value in (-1, 0, 1)]
    for below, above in pairwise(ends):
        assert above.low >= below.low - 1e-9
        assert above.high >= below.high - 1e-9


@deterministic
@given(outcomes=st.lists(st.integers(0, 1), min_size=2, max_size=60), rest=st.integers(0, 40))
def test_what_is_certain_only_narrows_as_samples_come(outcomes: list[int], rest: int) -> None:
    found, labels = inference(early_stop="certain"), np.zeros(len(outcomes) + rest, np.int64)
    intervals = [accuracy(found, outcomes[:n], labels) for n in range(1, len(outcomes) + 1)]
    for earlier, later in pairwise(intervals):
        assert earlier.low <= later.low <= later.high <= earlier.high
