"""The history in the report: exactly what was planted is what it shows to have changed."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from robustgate.core.records import Results, Verdict
from robustgate.reports import html, trend_charts, trends
from robustgate.reports.history import History, Point, Run, Series
from robustgate.reports.supplement import Supplement
from robustgate.reports.trend_charts import Chart
from robustgate.reports.trends import MOST_CHARTS, Trends

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>$\\frac{$&amp;|`'{{ 7 * 7 }}"
DATA, OTHER = "d1" * 32, "d2" * 32


def run(number: int, **given: Any) -> Run:
    made = Run(
        number=number,
        name=f"run {number}",
        started=f"2026-01-{number:02}T03:00:00+00:00",
        seconds=1.0,
        seed=0,
        device="cpu",
        processor="x86_64",
        policy="edge",
        config="robustgate.toml",
        config_sha256="c3" * 32,
        version="0.2",
        planned=9,
        measured=9,
        verdict="pass",
    )
    return replace(made, **given)


def point(number: int, value: float, verdict: Verdict = "pass", data: str | None = DATA, **given: Any) -> Point:
    near = {"low": value - 0.02, "high": value + 0.02, "n": 200, "n_total": 200, "artifact": "a1" * 32}
    return Point(run=number, value=value, verdict=verdict, data=data, **(near | given))


def case(name: str, *points: Point) -> Series:
    return Series(kind="clean", name=name, policy="", rule="", metric="accuracy", points=points)


FELL = case("fell", point(1, 0.90), point(2, 0.90), point(3, 0.90), point(4, 0.75, "fail", artifact="a2" * 32))
HISTORY = History(
    runs=(run(1), run(2), run(3), run(4, verdict="fail", measured=8)),
    series=(
        FELL,
        case("still", *(point(number, 0.8) for number in (1, 2, 3, 4))),
        case("moved before", point(1, 0.5), point(2, 0.9), point(3, 0.9), point(4, 0.9)),
        case("other data", point(1, 0.9), point(3, 0.9), point(4, 0.1, "fail", OTHER)),
        case("first time", point(4, 0.3)),
        case("not there", point(1, 0.9), point(2, 0.7)),
    ),
)


@pytest.fixture
def fourth(results: Results) -> Results:
    return replace(results, run=replace(results.run, id="run 4"))


def words(source: str) -> str:
    text = re.sub(r"<[^>]*>", " ", source.replace("<wbr>", ""))
    return " ".join(unescape(text).split())


def section(results: Results, history: History) -> str:
    page = html.render(results, Supplement(history=history))
    return page[page.index('<h2 id="history"') : page.index("</section>", page.index('<h2 id="history"'))]


def figures_of(chart: Chart) -> list[tuple[float, float]]:
    """What the marks of a chart say, read back from where they lie: the place of the run, and the figure."""
    (wide, tall), (left, bottom, across, up) = trend_charts.SIZE, trend_charts.PLACE
    (x_low, y_low), (x_high, y_high) = chart.scale.low, chart.scale.high
    return [
        (
            x_low + (mark.x / (72 * wide) - left) / across * (x_high - x_low),
            y_low + (1 - mark.y / (72 * tall) - bottom) / up * (y_high - y_low),
        )
        for mark in chart.marks
    ]


def test_exactly_the_planted_change_is_shown(fourth: Results) -> None:
    found = trends.trends(HISTORY, fourth)
    assert [chart.series.name for chart in found.charts] == ["fell"]
    assert (found.changed, found.same, found.on_other_data, found.fresh, found.absent) == (1, 2, 1, 1, 1)
    assert found.summary == (
        "Since the run before that measured them: 1 figure changed; 2 did not; 1 not compared, on other data; "
        "1 measured for the first time; 1 not measured in this run."
    )
    (chart,) = found.charts
    assert chart.step == "90.0 → 75.0 %, -15.0 points"
    assert (chart.before.word, chart.standing.word) == ("pass", "fail")
    assert figures_of(chart) == [pytest.approx(spot, abs=1e-3) for spot in ((0, 0.9), (1, 0.9), (2, 0.9), (3, 0.75))]
    assert [mark.kind for mark in chart.marks] == ["pass", "pass", "pass", "fail"]
    assert [mark.shape for mark in chart.marks] == ["circle", "circle", "circle", "cross"]


def test_the_section_tells_the_change_run_by_run(fourth: Results) -> None:
    text = words(section(fourth, HISTORY))
    assert "clean/fell 90.0 → 75.0 %, -15.0 points ✓ pass → ✗ fail" in text
    assert "2026-01-03 03:00 90.0 [88.0, 92.0] 200 ✓ pass —" in text
    assert "2026-01-04 03:00 75.0 [73.0, 77.0] 200 ✗ fail model" in text
    assert (
        "4 runs run started robustgate policy verdict cases measured 4 2026-01-04 03:00 this run 0.2 edge ✗ fail 8 of 9"
        in text
    )
    assert "clean/still" not in text
    assert "clean/other data" not in text
    strip = re.findall(r'<li class="([\w ]+)" title', section(fourth, HISTORY))
    assert strip == ["pass", "pass", "pass", "fail this"]


def paths(chart: Chart, name: str) -> list[list[tuple[float, float]]]:
    found = re.findall(rf'<path class="{name}" d="([^"]*)"', chart.svg)
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)] for path in found]


def test_a_line_breaks_where_the_data_changed_and_a_new_model_is_marked() -> None:
    points = (
        point(1, 0.9), point(2, 0.8), point(3, 0.5, data=OTHER), point(4, 0.6, data=OTHER, artifact="a2" * 32),
    )  # fmt: skip
    chart = Chart(series=case("both", *points), runs=HISTORY.runs, index=None)
    lines = paths(chart, "trend")
    spots = [(mark.x, mark.y) for mark in chart.marks]
    assert [[pytest.approx(spot, abs=0.02) for spot in half] for half in (spots[:2], spots[2:])] == lines
    ((data, _), (_, top)) = paths(chart, "other data")[0]
    assert data == pytest.approx((spots[1][0] + spots[2][0]) / 2, abs=0.02)
    assert top == pytest.approx(
        72 * trend_charts.SIZE[1] * (1 - trend_charts.PLACE[1] - trend_charts.PLACE[3]), abs=0.02
    )
    (model,) = paths(chart, "other model")
    assert model[0][0] == pytest.approx(spots[3][0], abs=0.02)
    # The band goes through the ends of the intervals.
    assert len(paths(chart, "band")) == 2
    assert chart.scale.spot(0, 0.92) == pytest.approx(paths(chart, "band")[0][3], abs=0.02)
    assert [row.changed for row in chart.rows] == ["", "", "data", "model"]


def test_a_run_that_did_not_measure_leaves_a_gap_in_the_marks_not_in_time() -> None:
    chart = Chart(series=case("gap", point(1, 0.9), point(4, 0.6)), runs=HISTORY.runs, index=None)
    assert [round(x, 2) for x, _ in figures_of(chart)] == [0.0, 3.0]


def test_those_whose_verdict_turned_come_first_then_the_farthest(fourth: Results) -> None:
    def moved(name: str, by: float, verdict: Verdict = "pass") -> Series:
        return case(name, point(3, 0.5), point(4, 0.5 + by, verdict))

    size = Series(
        kind="variant", name="tiny", policy="edge", rule="fits", metric="size_bytes",
        points=(point(3, 8000.0, data=None), point(4, 9500.0, data=None)),
    )  # fmt: skip
    many = tuple(moved(f"little {place:02}", 0.001 * place) for place in range(1, 20))
    history = replace(HISTORY, series=(size, *many, moved("far", -0.3), moved("turned", 0.0, "undecided")))
    found = trends.trends(history, fourth)
    names = [chart.series.name for chart in found.charts]
    assert names == ["turned", "far", *(f"little {place:02}" for place in range(19, 9, -1))]
    assert (len(names), found.changed) == (MOST_CHARTS, 22)
    assert found.summary.startswith("Since the run before that measured them: 22 figures changed. The 12 that changed")
    only = trends.trends(replace(HISTORY, series=(size,)), fourth).charts[0]
    assert only.step == "8 kB → 9.5 kB"
    assert only.series.label in only.text


def test_an_older_run_is_compared_with_those_before_it(results: Results) -> None:
    second = replace(results, run=replace(results.run, id="run 2"))
    found = trends.trends(HISTORY, second)
    assert [row.run.number for row in found.rows] == [1, 2]
    assert [chart.series.name for chart in found.charts] == ["moved before", "not there"]
    assert found.is_known


def test_a_run_that_the_history_has_not_is_told(results: Results) -> None:
    assert not trends.trends(HISTORY, results).is_known
    assert "This run is not in the history: what follows is about its last one." in words(section(results, HISTORY))


def test_the_first_run_has_nothing_to_compare_with(fourth: Results) -> None:
    first = replace(fourth, run=replace(fourth.run, id="run 1"))
    text = words(section(first, HISTORY))
    assert "The history has one run: there is nothing to compare it with yet." in text
    assert "changed" not in text


def test_a_history_that_cannot_be_read_says_why_and_none_says_nothing(fourth: Results) -> None:
    page = html.render(fourth, Supplement(unread="history.sqlite: file is not a database"))
    assert "The runs before could not be read: history.sqlite: file is not a database." in words(page)
    assert 'id="history"' not in html.render(fourth)


def test_a_case_is_linked_where_it_is(fourth: Results) -> None:
    row = next(one for one in fourth.cases if one.value is not None)
    series = replace(FELL, kind=row.shift.kind, name=row.name)
    found = trends.trends(replace(HISTORY, series=(series, FELL)), fourth)
    assert [chart.index for chart in found.charts] == [None, fourth.cases.index(row)]
    assert f'<a href="#case-{fourth.cases.index(row)}">' in section(fourth, replace(HISTORY, series=(series,)))


def test_hostile_text_stays_text_and_the_page_is_the_same_twice(fourth: Results) -> None:
    runs = tuple(replace(one, started=HOSTILE, version=HOSTILE, policy=HOSTILE) for one in HISTORY.runs)
    hostile = History(runs=runs, series=(replace(FELL, name=HOSTILE, metric=HOSTILE),))
    page = html.render(fourth, Supplement(history=hostile))
    assert page.count("<script>") == 1
    assert "<img" not in page
    assert "{{ 7 * 7 }}" in page
    assert html.render(fourth, Supplement(history=hostile)) == page


def test_a_chart_has_no_id_and_only_colours_of_the_style_sheet(fourth: Results) -> None:
    found: Trends = trends.trends(HISTORY, fourth)
    assert not re.search(r"\bid=|href|url\(|#[0-9a-f]{3}|2026", found.charts[0].svg)


def test_figures_that_are_all_alike_and_intervals_that_are_none_are_drawn() -> None:
    flat = case("flat", point(3, 0.0, low=None, high=None), point(4, 0.0, "fail", low=None, high=None))
    chart = Chart(series=flat, runs=HISTORY.runs, index=None)
    assert paths(chart, "band") == []
    assert "nan" not in chart.svg
    assert [round(value, 4) for _, value in figures_of(chart)] == [0.0, 0.0]
