"""Which lines stand out, and how lines are drawn and told."""

from __future__ import annotations

import re
from dataclasses import replace

from robustgate.core.records import Results
from robustgate.reports import drawing, lines
from robustgate.reports.drawing import Look
from robustgate.reports.lines import FAINT, Legend, Line, Spot

MANY = ["none", "control", *(f"c{number:02}" for number in range(12))]
LOOKS = {name: Look(series=f"series-{number % 7}") for number, name in enumerate(MANY)}


def line(name: str, *values: float | None, look: Look | None = None, partial: bool = False) -> Line:
    spots = [
        Spot(x=x, value=value, text="not measured" if value is None else f"{100 * value:g}", partial=partial)
        for x, value in enumerate(values)
    ]
    return Line(compression=name, look=look or LOOKS[name], spots=tuple(spots))


def standing_out(levels: dict[str, float], broken: set[str]) -> tuple[list[str], Legend]:
    own, legend = lines.told_apart(LOOKS, MANY, levels, broken)
    assert [name for name, _ in legend.names] == [name for name in MANY if own[name] != FAINT]
    assert all(own[name] == LOOKS[name] for name, _ in legend.names)
    return [name for name, _ in legend.names], legend


def test_a_few_keep_their_looks() -> None:
    few = MANY[:10]
    own, legend = lines.told_apart(LOOKS, few, {}, set())
    assert own == {name: LOOKS[name] for name in few}
    assert (len(legend.names), legend.others) == (10, 0)


def test_of_many_the_reference_the_control_the_worst_and_the_broken_stand_out() -> None:
    levels = dict.fromkeys(MANY, 0.5) | {"c05": 0.1, "none": 0.0}
    names, legend = standing_out(levels, {"c02", "c05", "c09"})
    assert names == ["none", "control", "c02", "c05", "c09"]
    assert (legend.remainder, legend.broken) == ("9 others", 0)


def test_of_too_many_that_break_a_rule_the_worst_six_stand_out_and_the_rest_are_counted() -> None:
    levels = {name: (20 - number) / 100 for number, name in enumerate(MANY)}
    names, legend = standing_out(levels, set(MANY[2:]))
    assert names == ["none", "control", *MANY[-6:]]
    assert legend.remainder == "6 others, 6 of them break a rule"


def test_what_was_not_measured_in_full_is_not_the_worst_but_may_break_a_rule() -> None:
    panels = [[line(name, 0.9, None if name in ("c01", "c02") else 0.5) for name in MANY]]
    (drawn,), legend = lines.stand_out(LOOKS, panels, {"c02"})
    assert [name for name, _ in legend.names] == ["none", "control", "c00", "c02"]
    assert [one.compression for one in drawn if not one.is_faint] == ["none", "control", "c00", "c02"]


def test_the_worst_is_that_of_all_charts_together() -> None:
    first = [line(name, 0.1 if name == "c03" else 0.5) for name in MANY]
    second = [line(name, 0.95 if name == "c03" else 0.2 if name == "c04" else 0.5) for name in MANY]
    _, legend = lines.stand_out(LOOKS, [first, second], set())
    assert [name for name, _ in legend.names] == ["none", "control", "c04"]


def test_one_other_that_breaks_a_rule_is_told_in_the_singular() -> None:
    assert Legend(names=(), others=1, broken=1).remainder == "1 other, 1 of them breaks a rule"


def test_marks_are_filled_for_whole_samples_and_hollow_for_parts() -> None:
    with drawing.style():
        sheet, axes = drawing.sheet((2.0, 1.0), (0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, 2), ylim=(0, 100), xticks=[], yticks=[])
        mixed = line("c00", 1.0, 0.5, None, look=Look(series="series-1"))
        spots = (mixed.spots[0], replace(mixed.spots[1], partial=True), mixed.spots[2])
        lines.draw(axes, [replace(mixed, spots=spots)], size=4)
        svg = drawing.svg(sheet)
    assert re.findall(r'class="([^"]*)" d="([^"]*)"', svg) == [
        ("series-1", "M0 0L72 36"), ("dots series-1", "M0 0h0"), ("hollow series-1", "M72 36h0"),
        ("hollow page", "M72 36h0"),
    ]  # fmt: skip


def test_lines_are_told_by_their_ends_and_the_faint_ones_together() -> None:
    known = [
        line("none", 0.9, 0.4), line("c00", 0.9, None), line("c01", 0.8, 0.3, look=FAINT),
        line("c02", 0.8, 0.25, look=FAINT), line("c03", 0.8, None, look=FAINT),
    ]  # fmt: skip
    assert lines.in_words(known, "at 5") == (
        "none: 90 % at first, 40 % at 5; c00: 90 % at first, not measured at 5; 3 others: 25.0 to 30.0 % at 5"
    )


def test_a_broken_rule_counts_under_a_waiver_too(results: Results) -> None:
    found = {case.verdict: lines.breaks_a_rule(case) for case in results.cases}
    assert found == {"pass": False, "fail": True, "undecided": False, "waived": True}
