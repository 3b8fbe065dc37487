"""Accuracy over severity: what is drawn are the results' own values."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from robustgate.core.records import CaseResult, Results
from robustgate.reports import html, severities

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>$\\frac{$&amp;|`'{{ 7 * 7 }}"


def changed(results: Results, change: Any) -> Results:
    return replace(results, cases=tuple(change(case) for case in results.cases))


def of_one_model(results: Results) -> Results:
    """The cases of the first source, and no severity 3 of fog."""
    cases = [case for case in results.cases if case.source == "handwritten" and case.shift.name != "fog_s3"]
    return replace(results, cases=tuple(cases))


def unmeasured(case: CaseResult) -> CaseResult:
    return replace(case, value=None, n=0, correct=0, verdict="incomplete", findings=())


def spots(path: str) -> list[tuple[float, float]]:
    """The points of a path, as severity and fraction, on axes from 0 to 5."""
    width, height = (72 * inches for inches in severities.SIZE)
    left, bottom, across, up = severities.AXES
    found = re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path)
    return [((float(x) / width - left) / across * 5, (1 - float(y) / height - bottom) / up) for x, y in found]


def drawn(results: Results, corruption: str | None) -> dict[str, list[tuple[float, float]]]:
    """The lines of a chart by colour and dashes."""
    (group,) = severities.groups(results)
    svg = next(text for panel, text in group.drawn if panel.corruption == corruption)
    paths = re.findall(r'<path class="(series-\d)" d="([^"]*)" style="(?:stroke-dasharray:([\d,]+))?', svg)
    return {f"{series} {dash}".strip(): spots(path) for series, path, dash in paths}


def close_to(expected: list[tuple[float, float]]) -> list[Any]:
    return [pytest.approx(spot, abs=2e-3) for spot in expected]


def value(results: Results, compression: str, name: str) -> float:
    (found,) = [c.value for c in results.cases if c.compression == compression and c.shift.name == name]
    assert found is not None
    return found


def test_a_chart_for_each_corruption_and_first_one_of_the_mean(results: Results) -> None:
    found = severities.groups(results)
    assert [group.title for group in found] == [
        f"resnet20 trained on {source}" for source in ("handwritten", "printed", "scene")
    ]
    assert [panel.corruption for panel in found[0].panels] == [
        None, "gaussian_noise", "defocus_blur", "fog", "contrast", "pixelate", "jpeg_compression",
    ]  # fmt: skip
    assert found[0].severities == (0, 1, 3, 5)
    assert [name for name, _ in found[0].legend.names] == [
        "none", "control", "filter_pruning", "distillation", "static_quantization",
    ]  # fmt: skip


def test_the_points_drawn_are_the_values_of_the_results(results: Results) -> None:
    one = of_one_model(results)
    lines = drawn(one, "contrast")
    keys = ["series-0", "series-0 4,3", "series-1", "series-2", "series-3"]
    assert set(lines) == set(keys)
    for key, compression in zip(keys, dict.fromkeys(case.compression for case in one.cases), strict=True):
        at = [(0, "clean"), (1, "contrast_s1"), (3, "contrast_s3"), (5, "contrast_s5")]
        assert lines[key] == close_to([(severity, value(one, compression, name)) for severity, name in at])


def test_the_mean_is_over_the_severities_that_all_have(results: Results) -> None:
    one = of_one_model(results)
    names = ("gaussian_noise", "defocus_blur", "fog", "contrast", "pixelate", "jpeg_compression")
    expected = [(0.0, value(one, "distillation", "clean"))]
    for severity in (1, 5):
        held = [value(one, "distillation", f"{name}_s{severity}") for name in names]
        expected.append((severity, sum(held) / len(held)))
    assert drawn(one, None)["series-2"] == close_to(expected)
    (group,) = severities.groups(one)
    (line,) = [line for line in group.panels[0].lines if line.compression == "distillation"]
    assert group.panels[0].cells(line, group.severities)[2] == "—"


def test_what_was_not_measured_is_a_gap_there_and_in_the_mean(results: Results) -> None:
    one = changed(
        of_one_model(results),
        lambda case: unmeasured(case) if (case.compression, case.shift.name) == ("none", "fog_s1") else case,
    )
    (group,) = severities.groups(one)
    svg = {panel.corruption: text for panel, text in group.drawn}
    (fog,) = re.findall(r'<path class="series-0" d="([^"]*)" style="stroke:', svg["fog"])
    assert re.sub(r"[\d. ]", "", fog) == "MM"  # two points, and no line between them
    (mean,) = re.findall(r'<path class="series-0" d="([^"]*)" style="stroke:', svg[None])
    assert re.sub(r"[\d. ]", "", mean) == "MM"
    texts = [spot.text for line in group.panels[0].lines[:1] for spot in line.spots]
    assert texts[1] == "not measured (1 of 6)"
    assert "none: 98.5 % at first" in group.panels[0].text


def test_a_gap_in_the_middle_leaves_the_rest_joined(results: Results) -> None:
    one = changed(
        of_one_model(results),
        lambda case: unmeasured(case) if (case.compression, case.shift.name) == ("none", "contrast_s1") else case,
    )
    (group,) = severities.groups(one)
    svg = next(text for panel, text in group.drawn if panel.corruption == "contrast")
    (path,) = re.findall(r'<path class="series-0" d="([^"]*)" style="stroke:', svg)
    assert re.sub(r"[\d. ]", "", path) == "MML"
    assert [round(x) for x, _ in spots(path)] == [0, 3, 5]


def test_points_from_a_part_are_hollow_and_said_so(results: Results) -> None:
    one = changed(
        of_one_model(results),
        lambda case: replace(case, n=500) if (case.compression, case.shift.name) == ("none", "contrast_s3") else case,
    )
    (group,) = severities.groups(one)
    svgs = {panel.corruption: text for panel, text in group.drawn}
    (hollow,) = re.findall(r'class="hollow page" d="M([\d.]+) ([\d.]+)h0"', svgs["contrast"])
    (at, held) = spots(f"M{hollow[0]} {hollow[1]}")[0]
    assert (at, held) == pytest.approx((3, value(one, "none", "contrast_s3")), abs=2e-3)
    assert "hollow" not in svgs["fog"]
    assert "≈ 83.5" in html.render(one)
    assert "A hollow mark, and ≈ before a figure, is from a part of the samples." in html.render(one)
    assert "hollow" not in html.render(of_one_model(results)).split("</style>")[1]


def test_a_part_makes_the_mean_a_part(results: Results) -> None:
    one = changed(
        of_one_model(results),
        lambda case: replace(case, n=500) if (case.compression, case.shift.name) == ("none", "contrast_s5") else case,
    )
    (group,) = severities.groups(one)
    spot = group.panels[0].lines[0].spots[-1]
    assert spot.partial
    assert spot.text.startswith("≈ ")


def test_corruptions_at_one_severity_are_no_charts(results: Results) -> None:
    cases = tuple(case for case in results.cases if case.shift.severity in (None, 5))
    assert severities.groups(replace(results, cases=cases)) == []
    assert 'id="curves"' not in html.render(replace(results, cases=cases))


def test_one_corruption_has_no_mean_and_no_clean_case_no_severity_0(results: Results) -> None:
    cases = tuple(case for case in of_one_model(results).cases if case.shift.corruption == "contrast")
    (group,) = severities.groups(replace(results, cases=cases))
    assert [panel.corruption for panel in group.panels] == ["contrast"]
    assert group.heads == ["severity 1", "severity 3", "severity 5"]
    assert "The mean is over" not in html.render(replace(results, cases=cases))


def test_a_stored_benchmark_is_named(results: Results) -> None:
    stored = changed(
        results,
        lambda case: (
            replace(case, shift=replace(case.shift, detail="stored benchmark cifar10_c"))
            if case.shift.kind == "corruption"
            else case
        ),
    )
    assert severities.groups(stored)[0].title == "resnet20 trained on handwritten; stored benchmark cifar10_c"


def test_charts_are_told_in_words_and_in_figures(results: Results) -> None:
    one = of_one_model(results)
    page = html.render(one)
    label = re.findall(r'role="img" aria-label="(Accuracy under contrast[^"]*)"', page)[0]
    assert label.startswith(
        "Accuracy under contrast, from clean to severity 5. none: 98.5 % at first, 73.5 % at severity 5; control: 98.9 %"
    )
    table = page.split('aria-label="Accuracy over severity of resnet20 trained on handwritten"')[1].split("</table>")[0]
    first = table.split("contrast</th>")[1].split("</tr>")[0]
    row = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[dh][^>]*>.*?</t[dh]>", first)]
    held = [value(one, "none", name) for name in ("clean", "contrast_s1", "contrast_s3", "contrast_s5")]
    assert row == ["none", *(f"{100 * accuracy:.1f}" for accuracy in held)]


def test_hostile_names_stay_text(results: Results) -> None:
    def hostile(case: CaseResult) -> CaseResult:
        corruption = HOSTILE if case.shift.corruption == "fog" else case.shift.corruption
        shift = replace(case.shift, corruption=corruption)
        compression = HOSTILE if case.compression == "distillation" else case.compression
        return replace(case, shift=shift, compression=compression, model=HOSTILE, source=HOSTILE)

    page = html.render(changed(of_one_model(results), hostile))
    assert page.count("<script>") == 1
    assert "<img" not in page
    (group,) = severities.groups(changed(of_one_model(results), hostile))
    assert not any("script" in svg or "img" in svg for _, svg in group.drawn)


def test_the_same_input_gives_the_same_bytes_and_charts_without_ids(results: Results) -> None:
    first, again = ([svg for _, svg in group.drawn] for group in (severities.groups(results)[0],) * 2)
    assert first == again
    for svg in first:
        assert not re.search(r"\bid=|href|url\(|#[0-9a-f]{3}|font", svg)
        assert len(svg) < 3000


def test_many_groups_are_folded(results: Results) -> None:
    cases = [
        replace(case, model=f"net{number}", name=f"net{number}-{case.name}")
        for number in range(3)
        for case in results.cases
    ]
    page = html.render(replace(results, cases=tuple(cases)))
    assert page.count('<figure class="severities">') == 9
    assert page.count('<details class="more">') == 9 - severities.OPEN


def test_compressions_have_one_colour_in_all_charts(results: Results) -> None:
    cases = tuple(case for case in results.cases if case.source != "printed" or case.compression != "filter_pruning")
    found = severities.groups(replace(results, cases=cases))
    looks = [dict(group.legend.names) for group in found]
    assert looks[1]["distillation"] == looks[0]["distillation"]
    assert "filter_pruning" not in looks[1]
