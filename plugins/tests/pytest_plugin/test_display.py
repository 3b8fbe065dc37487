"""The lines of the live display: what they say, and that they fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from robustgate.core.records import Case, CaseResult, Shift, Variant
from robustgate.engine.progress import Reached
from robustgate.pytest_plugin import display
from robustgate.pytest_plugin.pace import Pace
from robustgate.statistics.proportion import wilson

CASE = Case(
    variant=Variant(model="resnet18", source="amazon", compression="int8"),
    shift=Shift(kind="adversarial", name="pgd", attack="pgd"),
)


def printed(line: RenderableType, width: int = 120) -> str:
    console = Console(width=width, color_system=None, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(line)
    (only,) = capture.get().splitlines()
    assert len(only) <= width
    return " ".join(only.split())


def test_before_any_sample_it_is_prepared() -> None:
    assert printed(display.at_work(Reached(case=CASE), None, 0.99)) == "resnet18-int8-amazon-pgd preparing"


def test_a_draw_tells_a_share_and_its_interval() -> None:
    draw = Reached(case=CASE, done=450, total=1000, right=185, is_draw=True)
    now = Reached(case=CASE, done=500, total=1000, kept=300, right=190)
    interval = wilson(185, 450, 0.95)
    told = f"41.1 % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    assert told == "41.1 % [36.7, 45.7]"
    assert printed(display.at_work(now, draw, 0.95)) == f"resnet18-int8-amazon-pgd 500/1,000 {told} 300 kept"


@pytest.mark.parametrize(
    ("done", "right", "told"),
    [(0, 0, ""), (200, 150, "15.0 to 95.0 %"), (1000, 412, "41.2 %"), (500, None, "")],
)
def test_samples_in_any_order_tell_what_the_rest_can_make_of_it(done: int, right: int | None, told: str) -> None:
    reached = Reached(case=CASE, done=done, total=1000, right=right)
    assert display.estimate(reached, None, 0.99) == told


def test_a_case_that_came_in() -> None:
    result = replace(
        CaseResult.of(CASE, verdict="fail"), value=0.412, low=0.369, high=0.456, n=450, n_total=1000, cached=True
    )
    assert printed(display.came_in(result)) == "resnet18-int8-amazon-pgd 450/1,000 41.2 % [36.9, 45.6] fail kept"
    broken = CaseResult.of(CASE, verdict="error", message="no")
    assert printed(display.came_in(broken)) == "resnet18-int8-amazon-pgd 0/0 error"


def test_the_run_counts_cases_and_what_was_kept() -> None:
    pace = Pace()
    pace.plan(("clean", str(number)) for number in range(1200))
    pace.finish(("clean", "0"), kept=True)
    line = display.run(pace, 0.5, 3723)
    assert printed(line).endswith("1/1,200 cases, 1 kept about 1:02:03 left")
    assert "left" not in printed(display.run(pace, 0, None))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_narrow_screen_only_the_name_gives_way(width: int) -> None:
    long = replace(CASE, shift=replace(CASE.shift, name="pgd_with_many_restarts_and_a_name_that_does_not_end"))
    draw = Reached(case=long, done=450, total=1000, right=185, is_draw=True)
    line = printed(display.at_work(draw, draw, 0.95), width)
    assert line.endswith("450/1,000 41.1 % [36.7, 45.7]")
    assert line.startswith("resnet18-int8-amazon-pgd"[: width // 4])
    assert ("…" in line) == (width < 110)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3599.7, "1:00:00"), (36000, "10:00:00")]
)
def test_a_clock(seconds: float, told: str) -> None:
    assert display.clock(seconds) == told
