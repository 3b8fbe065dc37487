"""The trade-off picture: what is drawn is the assessment's, to the figure."""

from __future__ import annotations

import re
from dataclasses import replace
from math import log10
from pathlib import Path
from typing import Any

import pytest

from robustgate.core.assessments import Assessment, Candidate, Front, LeftOut, Objective, Recommendation
from robustgate.core.records import Results
from robustgate.engine.assessment import assess
from robustgate.engine.candidates import OBJECTIVES
from robustgate.engine.error_table import from_table
from robustgate.reports import html
from robustgate.reports.supplement import Supplement
from robustgate.reports.tradeoff import trades
from robustgate.reports.tradeoff_charts import PLACE, SIZE, Chart

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>$\\frac{$&amp;|`'{{ 7 * 7 }}"


def variant(compression: str, accuracy: float, corrupted: float, size: float, **others: float) -> Candidate:
    figures: dict[str, float | None] = dict.fromkeys(OBJECTIVES)
    figures |= {"accuracy": accuracy, "mean_corruption_accuracy": corrupted, "deflated_size": size, **others}
    return Candidate(
        name=f"tiny-{compression}-day",
        model="tiny",
        source="day",
        compression=compression,
        is_compressed=compression not in ("none", "control"),
        figures=figures,
    )


@pytest.fixture
def found() -> Assessment:
    """Five of one model. By three objectives all but `weak` are on the front; by accuracy and corruption, two are."""
    candidates = (
        variant("none", 0.98, 0.80, 400_000),
        variant("control", 0.97, 0.82, 400_000),
        variant("pruned", 0.96, 0.78, 200_000),
        variant("weak", 0.90, 0.60, 210_000),
        variant("int8", 0.95, 0.75, 100_000),
    )
    objectives = ("accuracy", "mean_corruption_accuracy", "deflated_size")
    names = [one.name for one in candidates]
    return Assessment(
        objectives=tuple(OBJECTIVES[name] for name in objectives),
        candidates=candidates,
        fronts=(
            Front(
                model="tiny",
                source="day",
                members=tuple(name for name in names if "weak" not in name),
                dominated=("tiny-weak-day",),
                knee="tiny-int8-day",
                hypervolume=0.5,
                worst={},
                best={},
            ),
        ),
        left_out=(),
        warnings=(),
        recommendations=(
            Recommendation(policy="edge", model="tiny", source="day", name="tiny-pruned-day", reason="it is green"),
        ),
        rankings=(),
        notes=(),
    )


def figures_of(chart: Chart) -> list[tuple[float, float]]:
    """What the marks of a chart say, read back from where they lie."""
    (wide, tall), (left, bottom, across, up) = SIZE, PLACE
    (x_low, y_low), (x_high, y_high) = chart.scale.low, chart.scale.high
    found = []
    for mark in chart.marks:
        x = x_low + (mark.x / (72 * wide) - left) / across * (x_high - x_low)
        y = y_low + (1 - mark.y / (72 * tall) - bottom) / up * (y_high - y_low)
        found.append((x if chart.across == "accuracy" else 10**x, y))
    return found


def test_accuracy_against_robustness_and_robustness_against_cost(found: Assessment) -> None:
    (trade,) = trades(found)
    assert [(chart.up, chart.across) for chart in trade.charts] == [
        ("mean_corruption_accuracy", "accuracy"),
        ("mean_corruption_accuracy", "deflated_size"),
    ]
    assert trade.heads == ["accuracy", "mean corruption accuracy", "deflated size"]
    assert trade.cells(trade.entries[2]) == ["96.00 %", "78.00 %", "200 kB"]
    assert [entry.number for entry in trade.entries] == [1, 2, 3, 4, 5]


def test_marks_lie_at_their_figures(found: Assessment) -> None:
    for chart in trades(found)[0].charts:
        for entry, (x, y) in zip(chart.entries, figures_of(chart), strict=True):
            assert x == pytest.approx(entry.one.figures[chart.across], rel=1e-3)
            assert y == pytest.approx(entry.one.figures[chart.up], abs=1e-4)


def test_the_front_that_is_marked_is_the_assessments(found: Assessment) -> None:
    (trade,) = trades(found)
    assert {entry.name: entry.told for entry in trade.entries} == {
        "none": "on the front",
        "control": "on the front",
        "pruned": "on the front; take it under edge",
        "weak": "beaten",
        "int8": "on the front, its knee",
    }
    for chart in trade.charts:
        by_name = {entry.name: mark for entry, mark in zip(chart.entries, chart.marks, strict=True)}
        assert {name: mark.kind for name, mark in by_name.items()} == {
            "none": "front uncompressed", "control": "front uncompressed", "pruned": "front", "weak": "beaten",
            "int8": "front",
        }  # fmt: skip
        assert [name for name, mark in by_name.items() if mark.ring] == ["pruned"]
        assert {label.text for label in chart.labels} == {
            "none (reference)", "control", "pruned (recommended)", "weak", "int8 (knee)",
        }  # fmt: skip


def drawn_line(chart: Chart) -> list[tuple[float, float]]:
    (path,) = re.findall(r'<path class="staircase" d="([^"]*)"', chart.svg)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


def test_the_line_goes_along_those_that_no_other_beats_in_the_two_drawn(found: Assessment) -> None:
    both, size = trades(found)[0].charts
    # More accurate to the right: none, then control; the line drops to the axis behind none.
    low, high = both.scale.low, both.scale.high
    corners = [(0.98, low[1]), (0.98, 0.80), (0.97, 0.80), (0.97, 0.82), (low[0], 0.82)]
    assert drawn_line(both) == [pytest.approx(both.scale.spot(*corner), abs=0.02) for corner in corners]
    low, high = size.scale.low, size.scale.high
    corners = [
        (log10(100_000), low[1]), (log10(100_000), 0.75), (log10(200_000), 0.75), (log10(200_000), 0.78),
        (log10(400_000), 0.78), (log10(400_000), 0.82), (high[0], 0.82),
    ]  # fmt: skip
    assert drawn_line(size) == [pytest.approx(size.scale.spot(*corner), abs=0.02) for corner in corners]


def test_four_charts_at_most_and_every_cost(found: Assessment) -> None:
    others = {"robust_accuracy": 0.4, "mean_domain_accuracy": 0.6, "latency": 0.7, "size": 5e5}
    more = [replace(one, figures=one.figures | others) for one in found.candidates]
    (trade,) = trades(replace(found, candidates=tuple(more)))
    assert [(chart.up, chart.across) for chart in trade.charts] == [
        ("mean_corruption_accuracy", "accuracy"),
        ("robust_accuracy", "accuracy"),
        ("mean_corruption_accuracy", "deflated_size"),
        ("mean_corruption_accuracy", "latency"),
    ]
    assert all("nan" not in chart.svg for chart in trade.charts)


def test_without_a_shift_accuracy_stands_against_size(found: Assessment) -> None:
    plain = [replace(one, figures=one.figures | {"mean_corruption_accuracy": None}) for one in found.candidates]
    (trade,) = trades(replace(found, candidates=tuple(plain)))
    assert [(chart.up, chart.across) for chart in trade.charts] == [("accuracy", "deflated_size")]
    assert trades(replace(found, candidates=tuple(plain[:1]))) == []
    assert trades(None) == []


def test_a_figure_that_cannot_be_drawn_has_no_mark(found: Assessment) -> None:
    none, control, pruned, weak, int8 = found.candidates
    empty = replace(weak, figures=weak.figures | {"deflated_size": 0.0})
    lacking = replace(int8, figures=int8.figures | {"mean_corruption_accuracy": None})
    front = replace(found.fronts[0], members=("tiny-none-day",), knee="tiny-none-day", dominated=("tiny-pruned-day",))
    (trade,) = trades(replace(found, candidates=(none, control, pruned, empty, lacking), fronts=(front,)))
    both, size = trade.charts
    assert {entry.name for entry in both.entries} == {"none", "control", "pruned", "weak"}
    assert {entry.name for entry in size.entries} == {"none", "control", "pruned"}
    assert trade.entries[4].told == "not compared"
    assert trade.cells(trade.entries[4]) == ["95.00 %", "—", "100 kB"]


def test_each_source_domain_has_its_picture_and_each_model_its_mark(found: Assessment) -> None:
    other = [replace(one, name=one.name.replace("tiny", "wide"), model="wide") for one in found.candidates]
    across = replace(
        found.fronts[0], model=None, members=("wide-none-day",), knee="wide-none-day", dominated=("tiny-none-day",)
    )
    night = [replace(one, name=one.name.replace("day", "night"), source="night") for one in found.candidates]
    (day, dark) = trades(
        replace(
            found,
            candidates=(*found.candidates, *other, *night),
            fronts=(*found.fronts, across, replace(found.fronts[0], source="night", members=("tiny-int8-night",))),
        )
    )
    assert (day.front.place, dark.front.place) == ("all models on day", "tiny on night")
    assert len(day.entries) == 10
    assert {mark.shape for mark in day.charts[0].marks} == {"circle", "square"}
    assert [model for model, _ in day.models] == ["tiny", "wide"]
    # What to take among one model's is no word on all of them.
    assert not any(entry.policies for entry in day.entries)
    assert {entry.name for entry in day.entries if entry.standing == "knee"} == {"wide none"}
    assert [entry.name for entry in dark.entries] == ["none", "control", "pruned", "weak", "int8"]


def test_the_published_front_is_the_one_drawn(real_data: Path) -> None:
    """Five members, arXiv 2512.24971, and the figures of the table."""
    (trade,) = trades(assess(from_table(real_data / "compression_on_cifar10c.csv")))
    on_front = {entry.name for entry in trade.entries if entry.standing in ("front", "knee")}
    assert on_front == {
        "resnet50 PQAT", "resnet50 PQAT+Int8", "resnet50 PCQAT+Int8", "vgg19 P+C+Int8", "vgg19 PCQAT+Int8",
    }  # fmt: skip
    for chart in trade.charts:
        assert len(chart.marks) == 48
        filled = {entry.name for entry, mark in zip(chart.entries, chart.marks, strict=True) if mark.kind == "front"}
        assert filled == on_front
        names = {entry.name for entry in chart.entries} | {str(number) for number in range(1, 49)}
        assert {label.text.split(" (")[0] for label in chart.labels} <= names
    pqat = next(entry for entry in trade.entries if entry.name == "resnet50 PQAT")
    assert trade.cells(pqat)[0] == "93.46 %"


def test_a_drawing_has_no_name_in_it_no_id_and_only_colours_of_the_style_sheet(found: Assessment) -> None:
    for chart in trades(found)[0].charts:
        assert not re.search(r"\bid=|href|url\(|#[0-9a-f]{3}|pruned|none<", chart.svg)


def page(results: Results, found: Assessment | None, **given: Any) -> str:
    return html.render(results, Supplement(assessment=found, **given))


def test_the_section_has_the_chart_and_the_same_figures(results: Results, found: Assessment) -> None:
    first = page(results, found)
    section = first[first.index('<h2 id="tradeoff"') : first.index('<h2 id="assessment"')]
    assert '<li><a href="#tradeoff">' in first
    assert section.count('<svg class="drawn"') == 2
    assert section.count('class="ring"') == 2
    text = " ".join(re.sub(r"<[^>]*>", " ", section).split())
    assert "3 pruned 96.00 % 78.00 % 200 kB on the front; take it under edge" in text
    assert page(results, found) == first


def test_without_an_assessment_there_is_no_picture(results: Results) -> None:
    text = page(results, None, unassessed="no variant has accuracy")
    assert 'id="tradeoff"' not in text
    assert "#tradeoff" not in text


def test_hostile_names_stay_text(results: Results, found: Assessment) -> None:
    names = {one.name: f"{HOSTILE}{place}" for place, one in enumerate(found.candidates)}
    hostile = [
        replace(one, name=names[one.name], model=HOSTILE, source=HOSTILE, compression=f"{HOSTILE}{place}")
        for place, one in enumerate(found.candidates)
    ]
    front = replace(
        found.fronts[0],
        model=HOSTILE,
        source=HOSTILE,
        members=tuple(names[name] for name in found.fronts[0].members),
        dominated=(names["tiny-weak-day"],),
        knee=names["tiny-int8-day"],
    )
    advice = replace(
        found.recommendations[0], policy=HOSTILE, model=HOSTILE, source=HOSTILE, name=names["tiny-pruned-day"],
        reason=HOSTILE,
    )  # fmt: skip
    source = page(
        results,
        replace(
            found,
            candidates=tuple(hostile),
            fronts=(front,),
            recommendations=(advice,),
            warnings=(HOSTILE,),
            notes=(HOSTILE,),
            left_out=(LeftOut(name=HOSTILE, lacks=(HOSTILE,)),),
            objectives=(*found.objectives, Objective(name=HOSTILE, maximised=True)),
        ),
        unread=HOSTILE,
    )
    assert source.count("<script>") == 1
    assert "<img" not in source
    assert "{{ 7 * 7 }}" in source
    assert source.count("&lt;script&gt;") > 10
