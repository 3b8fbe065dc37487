"""Charts as they stand in a page: lean, without ids, in the colours of the style sheet; each compression its look."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from robustgate.core.records import Results
from robustgate.reports import drawing, html
from robustgate.reports.drawing import Look

HOSTILE = "\"><script>alert('x')</script>$\\frac{&amp;"


def drawn(paint: Any) -> str:
    with drawing.style():
        sheet, axes = drawing.sheet((2.0, 1.0), (0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, 144), ylim=(0, 72), xticks=[], yticks=[])
        paint(axes)
        return drawing.svg(sheet)


def test_a_line_is_its_points_in_short_and_a_missing_one_is_a_gap() -> None:
    look = Look(series="series-1", dash="5 2")
    svg = drawn(lambda axes: axes.plot([0, 10, float("nan"), 100, 144], [72, 62.1234, 0, 36, 0], **look.style))
    assert svg == (
        '<path class="series-1" d="M0 0L10 9.88M100 36L144 72" '
        'style="stroke-dasharray:5,2;stroke:var(--series-1);stroke-width:1.5"/>'
    )


def test_dots_are_lines_of_no_length_and_hollow_ones_show_the_page() -> None:
    look = Look(series="series-2")
    dots = drawn(lambda axes: drawing.dots(axes, [(10, 72), (20, 36)], look, size=4))
    width = "stroke-width:{};stroke-linecap:round"
    assert dots == (
        f'<path class="dots series-2" d="M10 0h0M20 36h0" style="stroke:var(--series-2);{width.format(4)}"/>'
    )
    hollow = drawn(lambda axes: drawing.dots(axes, [(10, 72)], look, size=4, hollow=True))
    assert re.findall(r'class="([^"]*)" d="M10 0h0" style="stroke:var\(--([\w-]+)\);stroke-width:([\d.]+)', hollow) == [
        ("hollow series-2", "series-2", "4"), ("hollow page", "page", "1.6"),
    ]  # fmt: skip
    assert drawn(lambda axes: drawing.dots(axes, [], look, size=4)) == ""


def test_text_is_escaped_and_no_formula() -> None:
    svg = drawn(lambda axes: axes.text(10, 20, HOSTILE))
    (text,) = ElementTree.fromstring(f"<svg>{svg}</svg>")  # noqa: S314 -- what was drawn here
    assert text.text == HOSTILE
    assert "<script" not in svg
    assert (text.get("x"), text.get("y")) == ("10", "52")


def test_the_labels_of_axes_are_words_the_vertical_one_turned() -> None:
    svg = drawn(lambda axes: axes.set(ylabel="up", xticks=[72], xticklabels=["a <b>"]))
    assert re.search(
        r'<text x="-?[\d.]+" y="36" transform="rotate\(-90 [^"]*" style="text-anchor:middle">up</text>', svg
    )
    assert re.search(r'<text x="72" y="[\d.]+" style="text-anchor:middle">a &lt;b&gt;</text>', svg)


def test_what_needs_ids_is_refused() -> None:
    with pytest.raises(ValueError, match="paths and texts only"):
        drawn(lambda axes: axes.plot([1, 2], [3, 4], marker="o"))


def test_every_variable_is_a_colour_of_the_style_sheet_light_and_dark(results: Results) -> None:
    css = html.render(results).split("<style>")[1].split("</style>")[0]
    dark = css.split("prefers-color-scheme: dark")[1].split("\n}")[0]
    for name in drawing.VARIABLES:
        assert css.count(f"--{name}: ") == 2
        assert f"--{name}: " in dark
    assert len({drawing.colour(name) for name in drawing.VARIABLES}) == len(drawing.VARIABLES)


def test_an_unknown_colour_is_refused() -> None:
    with pytest.raises(KeyError):
        drawing.colour("red")


def test_reference_and_controls_are_told_from_each_other_and_from_the_rest(results: Results) -> None:
    names = ["fp", "control_fp", "none", "control_qat", "qat"]
    cases = tuple(replace(results.cases[0], compression=name) for name in names)
    found = drawing.looks(replace(results, cases=cases, variants=()))
    assert found["none"] == Look(series="series-0", width=3.0, order=2)
    assert (found["control_fp"].series, found["control_qat"].series) == ("series-0", "series-0")
    assert len({found[name].dash for name in ("none", "control_fp", "control_qat")}) == 3
    assert (found["fp"].series, found["qat"].series) == ("series-1", "series-2")
    assert found["none"].width > found["control_fp"].width > found["fp"].width


def test_more_compressions_than_hues_differ_by_dashes(results: Results) -> None:
    names = ["none", "control", *(f"c{number:02}" for number in range(18))]
    cases = tuple(replace(results.cases[0], compression=name) for name in names)
    found = drawing.looks(replace(results, cases=cases, variants=()))
    assert len({(look.series, look.dash) for look in found.values()}) == 20


def test_a_compression_of_which_only_the_artifact_is_known_has_a_look(results: Results) -> None:
    assert drawing.looks(replace(results, cases=())).keys() == {record.compression for record in results.variants}
