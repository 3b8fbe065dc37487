"""The section on an assessment, and the picture of ranks in it."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from robustgate.core.assessments import Assessment, LeftOut, ObjectiveRanking, Ranking
from robustgate.core.records import OverallRecord, Results
from robustgate.engine.assessment import assess
from robustgate.engine.candidates import from_results
from robustgate.engine.error_table import from_table
from robustgate.reports import assessments, html
from robustgate.reports.supplement import Supplement

RANKING = ObjectiveRanking(
    objective="mean_corruption_accuracy",
    blocks=("a on x", "b on x"),
    compressions=("fp<50>", "int8", "control", "a_name_that_is_longer_than_its_place"),
    ranking=Ranking(
        mean_ranks=(3.5, 1.0, 2.0, 3.5),
        statistic=5.5,
        p_value=0.139,
        critical_difference=1.25,
        groups=((1, 2), (0, 3)),
    ),
)


def words(source: str) -> str:
    text = re.sub(r"<[^>]*>", " ", source.replace("<wbr>", ""))
    return " ".join(unescape(text).split()).replace(" ,", ",")


def section(results: Results, supplement: Supplement) -> str:
    page = html.render(results, supplement)
    return page[page.index('<h2 id="assessment"') : page.index("</section>", page.index('<h2 id="assessment"'))]


@pytest.fixture
def published(real_data: Path) -> Assessment:
    return assess(from_table(real_data / "compression_on_cifar10c.csv"))


def test_the_section_tells_all_of_it(results: Results, published: Assessment) -> None:
    text = words(section(results, Supplement(assessment=published)))
    parts = [
        "Compared by accuracy ↑, mCE rounded ↓, compression ratio ↑.",
        "mce_rounded is against each model's own reference",
        "resnet50 on compression_on_cifar10c PQAT, PQAT+Int8, PCQAT+Int8 13 variants Original, Int8,",
        "all models on compression_on_cifar10c",
        "43 variants resnet50 Original,",
        "How compressions rank",
        "By accuracy",
        "ranks 13.32 apart differ (Nemenyi, 5 %)",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_what_to_take_is_told_first_with_its_reason(results: Results) -> None:
    overall = tuple(
        OverallRecord(
            name=one.name, model=one.model, source=one.source, compression=one.compression,
            clean=0.99 - 0.01 * place, mean_corruption_accuracy=0.8 + 0.01 * (place % 3),
        )
        for place, one in enumerate(results.variants)
    )  # fmt: skip
    results = replace(results, overall=overall)
    found = assess(from_results(results), ["accuracy", "mean_corruption_accuracy", "deflated_size"])
    text = words(section(results, Supplement(assessment=found)))
    assert len(found.recommendations) == 3
    start = text.index("because") + len("because ")
    for one, told in zip(found.recommendations, assessments.advice(found), strict=True):
        line = f"digits resnet20 on {one.source} {told.take or 'none'} {told.reason}"
        assert text[start:].startswith(line)
        start += len(line) + 1
        assert told.reason.endswith(".")
        assert (told.take is None) == (one.name is None)
    assert text[start:].startswith("Compared by")
    assert text.count("deflated size") == 2


def test_the_fronts_are_the_assessments(published: Assessment) -> None:
    rows = assessments.fronts(published)
    assert [row.place for row in rows] == [front.place for front in published.fronts]
    last = rows[-1]
    assert last.members == (
        "resnet50 PQAT", "resnet50 PQAT+Int8", "resnet50 PCQAT+Int8", "vgg19 P+C+Int8", "vgg19 PCQAT+Int8",
    )  # fmt: skip
    assert last.knee in last.members
    assert len(last.beaten) == 43
    assert rows[0].members == ("PQAT", "PQAT+Int8", "PCQAT+Int8")
    assert last.hypervolume == f"{100 * (published.fronts[-1].hypervolume or 0):.1f} %"


def test_variants_are_left_out_together_with_what_they_lack(results: Results, published: Assessment) -> None:
    lacking = tuple(
        LeftOut(name=name, lacks=lacks)
        for name, lacks in (("a", ("mce",)), ("b", ("mce", "deflated_size")), ("c", ("mce",)))
    )
    text = words(section(results, Supplement(assessment=replace(published, left_out=lacking))))
    assert "Left out, without mCE: a, c. Left out, without mCE, deflated size: b." in text


def test_a_diagram_has_its_names_over_it_and_lines_to_their_ranks() -> None:
    diagram = assessments.diagram(RANKING)
    assert [label.text for label in diagram.labels] == [
        "int8  1.00", "control  2.00", "3.50  fp<50>", "3.50  a_name_that_is_longer_t…"
    ]  # fmt: skip
    assert [label.anchor for label in diagram.labels] == ["end", "end", "start", "start"]
    assert "CD 1.25</text>" in diagram.svg
    assert "int8" not in diagram.svg
    assert not re.search(r"\bid=|href|url\(|#[0-9a-f]{3}", diagram.svg)
    # Every name's line goes from the axis down to its level, and sideways to the name.
    ends = [
        tuple(map(float, found))
        for found in re.findall(r'd="M[\d.]+ [\d.]+L[\d.]+ [\d.]+L([\d.]+) ([\d.]+)"', diagram.svg)
    ]
    assert len(ends) == 4
    for label, (x, y) in zip(diagram.labels, ends, strict=True):
        assert y == pytest.approx(label.y, abs=0.02)
        assert abs(x - label.x) == pytest.approx(0.06 * 72, abs=0.02)
    # The bars lie over the ranks that they join.
    bars = re.findall(r'd="M([\d.]+) [\d.]+L([\d.]+) [\d.]+" style="[^"]*stroke:var\(--link\)', diagram.svg)
    assert len(bars) == 2
    assert len({label.y for label in diagram.labels}) == 2


def test_names_in_a_diagram_are_escaped(results: Results, published: Assessment) -> None:
    source = section(results, Supplement(assessment=replace(published, rankings=(RANKING,))))
    assert "3.50  fp&lt;50&gt;</text>" in source
    assert "<50>" not in source
    assert "Not told apart: int8, control." in source


def test_why_there_is_none_is_one_line(results: Results) -> None:
    text = words(section(results, Supplement(unassessed="no variant has accuracy: of 3, accuracy: 0")))
    assert text == "Assessment Variants could not be compared: no variant has accuracy: of 3, accuracy: 0."
    assert 'id="assessment"' not in html.render(results)
