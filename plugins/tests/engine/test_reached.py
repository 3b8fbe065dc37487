"""What a gate tells of its cases while it measures them: in the order of the draw, with what came out right so far."""

from __future__ import annotations

from datetime import date

import numpy as np

from robustgate.config import load
from robustgate.engine.gate import Gate
from robustgate.engine.measurements import drawing_order
from robustgate.engine.plan import make_plan
from robustgate.engine.progress import Reached

N = 144
CASE = "tiny-none-day-contrast_s1"


def heard(tiny, early_stop: str) -> list[Reached]:
    path = tiny.configure(("[policies.edge]\n", f"[policies.edge]\nearly_stop = {early_stop}\n"))
    told: list[Reached] = []
    plan = make_plan(load(path))
    case = next(case for case in plan.cases if case.name == CASE)
    Gate(plan, today=date(2026, 1, 1), progress=told.append).result(case)
    return [one for one in told if one.case == case]


def test_a_case_is_announced_before_its_variant_is_built(tiny) -> None:
    first = heard(tiny, "false")[0]
    assert (first.done, first.total, first.right) == (0, 0, None)


def test_samples_in_any_order_tell_no_more_than_they_count(tiny) -> None:
    last = heard(tiny, "false")[-1]
    assert (last.done, last.total, last.is_draw) == (N, N, False)
    assert last.right is not None


def test_a_look_tells_of_the_first_ones_drawn(tiny) -> None:
    # The images by day are sorted by class, dark ones first: only a draw tells of both.
    draws = [one for one in heard(tiny, '"certain"') if one.is_draw]
    assert [one.done for one in draws][:1] == [50]
    levels = tiny.day[drawing_order(0, N)[:50]].astype(int)
    # Contrast at severity 1 leaves the grey images alone: each is told by its own brightness.
    assert draws[0].right == int(np.where(levels > 127, levels > 127.5, levels <= 127.5).sum())
