"""Timing under a clock that the timed programs themselves move: every figure is known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from robustgate.core.components import Reading
from robustgate.engine import latency
from robustgate.engine.latency import MOST_ROUNDS, Durations, Program, one_by_one, time_in_turn
from robustgate.engine.subjects import OnnxSubject, TorchSubject, load_file
from robustgate.statistics.median import fewest_values, median_interval

CPU = torch.device("cpu")
IMAGES = {batch: torch.zeros(batch, 3, 2, 2) for batch in (1, 32)}


class Clock:
    """Seconds that only the timed programs let pass; counts who ran in which order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def subject(self, name: str, seconds: Iterator[float]) -> Any:
        def runner(images: Tensor) -> Callable[[], object]:
            def run() -> None:
                self.order.append(name)
                self.now += next(seconds) * len(images)

            return run

        return SimpleNamespace(runner=runner)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(latency.time, "perf_counter", lambda: made.now)
    return made


def test_medians_ratio_and_order_are_known(clock: Clock) -> None:
    variant, reference = clock.subject("variant", cycle([0.003])), clock.subject("reference", cycle([0.005]))
    single, many = (one.at(0.99) for one in time_in_turn(variant, reference, IMAGES, 0.99))
    assert (single.batch, many.batch) == (1, 32)
    assert single.median_ms == pytest.approx(3)
    assert many.median_ms == pytest.approx(96)
    for found in (single, many):
        assert found.low_ms == pytest.approx(found.median_ms) == pytest.approx(found.high_ms)
        assert found.ratio == pytest.approx(0.6) == pytest.approx(found.ratio_low) == pytest.approx(found.ratio_high)
        assert found.reference_ms == pytest.approx(found.median_ms / 0.6)
    # Two seconds of rounds of 8 ms; of rounds of 256 ms there are too few in them.
    assert (single.rounds, many.rounds) == (250, 15)
    assert clock.order == ["reference", "variant"] * (len(clock.order) // 2)


def test_a_machine_that_slows_down_moves_the_times_and_not_the_ratio(clock: Clock) -> None:
    pace = [1.0] * 200 + [3.0] * 10_000
    variant = clock.subject("variant", (0.002 * slow for slow in pace))
    reference = clock.subject("reference", (0.004 * slow for slow in pace))
    (timed,) = time_in_turn(variant, reference, {1: IMAGES[1]}, 0.99)
    found = timed.at(0.99)
    assert found.ratio_low == pytest.approx(0.5) == pytest.approx(found.ratio_high)
    assert found.high_ms == pytest.approx(3 * found.low_ms) == pytest.approx(6)


def test_fast_programs_stop_at_the_most_rounds_and_slow_ones_have_enough_for_an_interval(clock: Clock) -> None:
    for seconds, confidence, rounds in (
        (1e-5, 0.99, MOST_ROUNDS),
        (9.0, 0.99, 15),
        (9.0, 1 - 2e-9, fewest_values(1 - 2e-9)),
    ):
        subjects = [clock.subject(name, cycle([seconds])) for name in ("variant", "reference")]
        (found,) = time_in_turn(subjects[0], subjects[1], {1: IMAGES[1]}, confidence)
        assert found.at(confidence).rounds == rounds


def test_another_instrument_runs_the_single_image_alone(clock: Clock) -> None:
    watched = []

    def instrument(before: Program, program: Program, rounds: int) -> None:
        watched.append(rounds)
        one_by_one(before, program, rounds)

    subjects = [clock.subject(name, cycle([0.004])) for name in ("variant", "reference")]
    single, _ = time_in_turn(subjects[0], subjects[1], IMAGES, 0.99, instrument)
    assert watched == [len(single.seconds)] == [250]


def test_intervals_are_those_of_the_medians() -> None:
    ours = [0.01 + 0.001 * ((7 * index) % 31) for index in range(31)]
    theirs = [0.02 + 0.001 * ((11 * index) % 31) for index in range(31)]
    found = Durations(batch=8, seconds=tuple(ours), reference=tuple(theirs)).at(0.95)
    times, ratios = (
        median_interval(ours, 0.95),
        median_interval([a / b for a, b in zip(ours, theirs, strict=True)], 0.95),
    )
    assert (found.batch, found.rounds) == (8, 31)
    assert (found.low_ms, found.high_ms) == (1e3 * times.low, 1e3 * times.high)
    assert (found.ratio_low, found.ratio_high) == (ratios.low, ratios.high)
    assert found.median_ms == pytest.approx(1e3 * sorted(ours)[15])
    assert found.ratio_low <= found.ratio <= found.ratio_high


def test_a_tracer_does_not_see_the_timed_programs_and_is_back_afterwards(clock: Clock) -> None:
    seen: list[str] = []

    def tracer(frame: Any, *_: Any) -> None:
        seen.append(frame.f_code.co_name)

    subjects = [clock.subject(name, cycle([0.1])) for name in ("variant", "reference")]
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        time_in_turn(subjects[0], subjects[1], {1: IMAGES[1]}, 0.9)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert "time_in_turn" in seen
    assert seen.count("run") == len(clock.order), "each program's wrapper, never the program within"


# What is timed of each kind of artifact.


def test_a_network_is_run_on_the_images_without_gradients() -> None:
    seen: list[tuple[Tensor, bool]] = []

    class Net(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append((images, torch.is_inference_mode_enabled()))
            return images

    images = torch.rand(4, 3, 2, 2)
    run = TorchSubject(Net(), CPU).runner(images)
    assert not seen
    run()
    assert seen == [(images, True)]


def onnx_subject(path: Any, batch: int | str) -> OnnxSubject:
    import onnx
    from onnx import helper

    x, y = (helper.make_tensor_value_info(name, 1, [batch, *sizes]) for name, sizes in (("x", (3, 2, 2)), ("y", (12,))))
    graph = helper.make_graph([helper.make_node("Flatten", ["x"], ["y"])], "net", [x], [y])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, path)
    subject = load_file(path, Reading(high=255.0), "net", CPU, threads=1)
    assert isinstance(subject, OnnxSubject)
    return subject


@pytest.mark.parametrize(("batch", "parts"), [("n", 1), (2, 3)])
def test_a_file_is_run_on_arrays_that_are_ready(tmp_path: Any, batch: int | str, parts: int) -> None:
    subject = onnx_subject(tmp_path / "net.onnx", batch)
    images = torch.rand(5, 3, 2, 2)
    run = subject.runner(images)
    fed: list[Any] = []
    subject.session = SimpleNamespace(run=lambda _, feed: fed.append(feed[subject.input]))
    run()
    run()
    assert len(fed) == 2 * parts
    assert all(fed[index] is fed[index + parts] for index in range(parts)), "the same arrays, made once"
    read = torch.cat([torch.from_numpy(part) for part in fed[:parts]])
    torch.testing.assert_close(read[:5], 255 * images)
