"""What the reports show of attacks: curves, pictures, the three figures of a file, checks for masking."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from robustgate.core.records import CaseResult, Picture, Results, Shift
from robustgate.engine.reporting import write_reports
from robustgate.reports import curves, html, markdown, pictures, results_json, view
from robustgate.reports.details import details, notes
from robustgate.reports.matrix import matrices

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>$\\frac{$&amp;|`'{{ 7 * 7 }}"
PNG = base64.b64encode(b"\x89PNG 1").decode()
SEPARATE = {"figcaption", "li", "p", "span", "td", "th"}
CURVE = {"eps": [0.0, 0.002, 0.004, 0.006, 0.02], "accuracy": [0.9, 0.7, 0.5, 0.45, 0.1]}


class Page(HTMLParser):
    """What a page holds: its elements with their attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " " if tag in SEPARATE else ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def picture(**changes: Any) -> Picture:
    made = Picture(
        name="cat/7.png", label="cat", prediction="dog", norm=0.003921, original=PNG, perturbed=PNG + "p",
        difference=PNG + "d", magnification=64.0,
    )  # fmt: skip
    return replace(made, **changes)


def changed(results: Results, change: Any) -> Results:
    return replace(results, cases=tuple(change(case) for case in results.cases))


def attacked(case: CaseResult, attack: str = "") -> bool:
    return case.shift.kind == "adversarial" and case.shift.name.startswith(attack)


@pytest.fixture
def curved(results: Results) -> Results:
    """The run of the other tests, its PGD cases with curves: the reference's as it is, the others' ten points lower."""

    def change(case: CaseResult) -> CaseResult:
        if not attacked(case, "pgd"):
            return case
        lower = 0.0 if case.compression == "none" else 0.1
        curve = {**CURVE, "accuracy": [round(held - lower, 3) for held in CURVE["accuracy"]]}
        return replace(case, details={"curve": curve, "queries": 81_234, "fallen_by_norm": 12})

    return changed(results, change)


# Curves.


def lines_in(svg: str) -> dict[str, list[tuple[float, float]]]:
    """The lines that an SVG holds, by class, in the axes' own units as fractions."""
    width, height = (72 * inches for inches in curves.SIZE)
    left, bottom, across, up = curves.AXES
    found: dict[str, list[tuple[float, float]]] = {}
    for name, path in re.findall(r'<path class="(series-\d|budget)" d="([^"]*)"', svg):
        spots = re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path)
        found[name] = [((float(x) / width - left) / across, (1 - float(y) / height - bottom) / up) for x, y in spots]
    return found


def test_a_chart_for_each_model_source_and_attack_with_a_line_for_each_compression(curved: Results) -> None:
    found = curves.charts(curved)
    assert [(chart.source, chart.attack) for chart in found] == [
        (source, attack) for source in ("handwritten", "printed", "scene") for attack in ("pgd", "pgd_l2")
    ]
    assert [line.label for line in found[0].lines] == [
        "none", "control", "filter_pruning", "distillation", "static_quantization",
    ]  # fmt: skip
    looks = [(line.look.series, line.look.dash) for line in found[0].lines]
    assert looks == [("series-0", ""), ("series-0", "4 3"), ("series-1", ""), ("series-2", ""), ("series-3", "")]
    assert (found[0].norm, found[0].eps) == ("linf", 0.004)


def test_the_lines_that_are_drawn_are_the_data(curved: Results) -> None:
    chart = curves.charts(curved)[0]
    assert set(lines_in(chart.svg)) == {"budget", *(f"series-{number}" for number in range(4))}
    # The axis ends at the largest norm that was found. The reference and its control share a colour.
    for line, lower in zip(chart.lines[:3], (0.0, 0.1, 0.1), strict=True):
        drawn = lines_in(curves.draw([line], chart.eps))
        expected = [(eps / 0.02, held - lower) for eps, held in zip(*CURVE.values(), strict=True)]
        assert drawn[line.look.series][:-1] == [pytest.approx(spot, abs=1e-4) for spot in expected]
    assert drawn["budget"] == [pytest.approx((0.2, end), abs=1e-4) for end in (0, 1)]


def test_a_line_that_ends_early_goes_on_level(curved: Results) -> None:
    cases = [curves.charts(curved)[0].lines[place] for place in (0, 2)]
    short = replace(cases[1], curve=curves.Curve(eps=(0.0, 0.005), accuracy=(0.9, 0.6)))
    drawn = lines_in(curves.draw([cases[0], short], 0.004))
    assert drawn["series-1"] == [pytest.approx(spot, abs=1e-4) for spot in ((0, 0.9), (0.25, 0.6), (1, 0.6))]


def test_a_budget_beyond_every_norm_is_still_on_the_axis(curved: Results) -> None:
    lines = curves.charts(curved)[0].lines
    drawn = lines_in(curves.draw(lines, 0.1))
    assert drawn["budget"][0] == pytest.approx((0.1 / 0.105, 0), abs=1e-4)


def test_a_drawing_is_the_same_twice_and_whatever_the_users_style(curved: Results) -> None:
    import matplotlib

    first = html.render(curved)
    before = matplotlib.rcParams["lines.linewidth"]
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert html.render(curved) == first
        assert matplotlib.rcParams["lines.linewidth"] == 9
    assert matplotlib.rcParams["lines.linewidth"] == before


def test_a_drawing_has_words_as_text_no_id_no_link_and_only_colours_of_the_style_sheet(curved: Results) -> None:
    svg = curves.charts(curved)[0].svg
    assert re.findall(r">([^<>]+)</text>", svg)[-1] == "eps 0.004"
    assert "size of the perturbation</text>" in svg
    assert not re.search(r"\bid=|href|url\(|https?:|<style|<!--|xmlns|#[0-9a-f]{3}", svg)
    assert len(svg) < 10_000
    css = html.render(curved).split("<style>")[1].split("</style>")[0]
    dark = css.split("prefers-color-scheme: dark")[1].split("\n}")[0]
    for name in set(re.findall(r"var\((--[\w-]+)\)", svg)):
        assert css.count(f"{name}: ") == 2
        assert f"{name}: " in dark


def test_of_many_compressions_the_worst_and_those_that_break_a_rule_stand_out(curved: Results) -> None:
    first = next(case for case in curved.cases if attacked(case, "pgd"))
    broken = next(finding for case in curved.cases for finding in case.findings if finding.verdict == "fail")
    names = ["none", "control", *(f"c{number:02}" for number in range(18))]
    cases = [replace(first, compression=name, value=0.2 if name == "c07" else 0.4) for name in names]
    cases[11] = replace(cases[11], findings=(broken,))
    (chart,) = curves.charts(replace(curved, cases=tuple(cases)))
    assert [name for name, _ in chart.legend.names] == ["none", "control", "c07", "c09"]
    assert chart.svg.count('class="faint"') == 16
    assert chart.legend.remainder == "16 others"
    assert "16 others" in Page(html.render(replace(curved, cases=tuple(cases)))).text


def test_a_curve_of_a_part_of_the_samples_says_so(curved: Results) -> None:
    part = changed(curved, lambda case: replace(case, n=500) if attacked(case, "pgd") else case)
    assert curves.charts(part)[0].is_partial
    assert not curves.charts(curved)[0].is_partial
    text = Page(html.render(part)).text
    assert "is from a part of the samples" in text
    assert "none ≈ 90.0 %" in text


def test_an_attack_without_bound_has_no_budget_that_is_judged(curved: Results) -> None:
    endless = changed(curved, lambda case: replace(case, shift=replace(case.shift, eps=float("inf"))))
    (chart, *_) = curves.charts(endless)
    assert chart.eps is None
    assert "budget" not in lines_in(chart.svg)


def test_a_chart_is_told_in_words_and_figures(curved: Results) -> None:
    page = Page(html.render(curved))
    labels = [str(one["aria-label"]) for one in page.all("svg") if one.get("role") == "img"]
    label = next(text for text in labels if text.startswith("Accuracy over the budget"))
    reference = next(case for case in curved.cases if attacked(case, "pgd"))
    assert label.startswith(
        f"Accuracy over the budget. none: 90.0 % without attack, {100 * (reference.value or 0):.1f} % at 0.004, "
        "half fallen at 0.006; control: 80.0 % without attack"
    )
    assert "compression without attack at eps 0.004 half fallen at none 90.0 %" in page.text


@pytest.mark.parametrize(
    ("accuracy", "half"),
    [([0.9, 0.46, 0.45, 0.2], 0.02), ([0.9, 0.45, 0.4, 0.2], 0.01), ([0.9, 0.8, 0.7, 0.6], None), ([0.0] * 4, 0.0)],
)
def test_the_median_norm_is_the_first_budget_that_half_has_fallen_at(accuracy: list[float], half: float) -> None:
    assert curves.Curve(eps=(0.0, 0.01, 0.02, 0.03), accuracy=tuple(accuracy)).half == half


@pytest.mark.parametrize(
    "found",
    [
        "a text", {"eps": [0.0, 0.1]}, {"eps": [0.0], "accuracy": [0.5, 0.4]}, {"eps": [], "accuracy": []},
        {"eps": [0.2, 0.1], "accuracy": [0.5, 0.4]}, {"eps": ["0", HOSTILE], "accuracy": [0.5, 0.4]},
    ],
)  # fmt: skip
def test_what_is_no_curve_is_a_detail_like_any_other(single: Results, found: Any) -> None:
    case = replace(single.cases[0], details={"curve": found})
    results = replace(single, cases=(case,))
    assert curves.charts(results) == []
    assert "curve" in dict(details(case))
    assert 'id="curves"' not in html.render(results)


def test_markdown_names_the_median_norm_and_draws_nothing(curved: Results) -> None:
    text = markdown.render(curved)
    assert (
        "- resnet20 / none / handwritten under pgd (linf, eps 0.004, 40 steps): half of what was right without attack "
        "has fallen at linf 0.006\n"
    ) in text
    assert "<svg" not in text
    assert "0.002, 0.004" not in text + html.render(curved)


def test_queries_and_other_counts_stand_in_the_row(curved: Results) -> None:
    case = next(case for case in curved.cases if attacked(case, "pgd"))
    assert details(case)[:2] == [("queries", "81,234"), ("fallen by norm", "12")]
    assert "queries 81,234 · fallen by norm 12 · measurement" in Page(html.render(curved)).text


# Pictures.


def with_pictures(results: Results, *found: Picture) -> Results:
    return changed(results, lambda case: replace(case, pictures=found) if attacked(case) else case)


def test_a_strip_shows_original_perturbed_and_difference(single: Results) -> None:
    case = replace(
        single.cases[0], pictures=(picture(),), shift=Shift(kind="adversarial", name="pgd", attack="pgd", norm="linf")
    )
    page = Page(html.render(replace(single, cases=(case,))))
    assert page.all("img") == [
        {"src": f"data:image/png;base64,{PNG}", "alt": "original, cat"},
        {"src": f"data:image/png;base64,{PNG}p", "alt": "perturbed, taken for dog"},
        {"src": f"data:image/png;base64,{PNG}d", "alt": "difference"},
    ]
    assert "original perturbed difference \u00d7 64 cat → dog linf 0.00392, cat/7.png" in page.text
    assert "img-src data:" in next(str(one["content"]) for one in page.all("meta") if "default-src" in str(one))


def test_pictures_without_norm_and_of_a_small_factor(single: Results) -> None:
    case = replace(single.cases[0], pictures=(picture(norm=None, magnification=0.5),))
    text = Page(html.render(replace(single, cases=(case,)))).text
    assert "difference \u00d7 0.5" in text
    assert "cat → dog cat/7.png" in text


def test_hostile_names_in_pictures_and_charts_stay_text(single: Results) -> None:
    shift = Shift(kind="adversarial", name=HOSTILE, attack=HOSTILE, norm=HOSTILE, eps=0.004, detail=HOSTILE)
    hostile = picture(
        name=HOSTILE, label=HOSTILE, prediction=HOSTILE, original=HOSTILE, perturbed=HOSTILE, difference=HOSTILE
    )
    figures = {"twin": 0.5, HOSTILE: 0.1}
    told = {"curve": CURVE, "figures": figures, "no_gradient": HOSTILE, "alone": {HOSTILE: 0.5}, "walks": {HOSTILE: {}}}
    case = replace(
        single.cases[0], shift=shift, compression=HOSTILE, model=HOSTILE, source=HOSTILE, details=told,
        pictures=(hostile,),
    )  # fmt: skip
    results = replace(single, cases=(case,))
    page = Page(html.render(results))
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert len(page.all("img")) == 3
    assert all(str(one["src"]) == f"data:image/png;base64,{HOSTILE}" for one in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert f"{HOSTILE} → {HOSTILE}" in page.text
    assert "<img" not in re.sub(r"```sh.*?```", "", markdown.render(results), flags=re.DOTALL)


def test_pictures_survive_results_json_and_its_schema(single: Results, tmp_path: Path) -> None:
    case = replace(single.cases[0], pictures=(picture(), picture(norm=None)))
    results = replace(single, cases=(case,))
    results_json.write(results, tmp_path / "results.json")
    assert results_json.load(tmp_path / "results.json") == results
    written = json.loads((tmp_path / "results.json").read_text())
    validator = jsonschema.Draft202012Validator(results_json.json_schema())
    validator.validate(written)
    written["cases"][0]["pictures"][0]["norm"] = "far"
    assert not validator.is_valid(written)


def test_a_large_run_keeps_the_pictures_of_40_cases_the_worst_first(results: Results, tmp_path: Path) -> None:
    many = with_pictures(results, picture())
    many = changed(many, lambda case: replace(case, details={"fallen": 7}) if attacked(case) else case)
    assert sum(bool(case.pictures) for case in many.cases) == 45
    page = Page(write_reports(many, tmp_path, None).read_text())
    written = results_json.load(tmp_path / "results.json")
    kept = [case for case in written.cases if case.pictures]
    lost = [case for case in written.cases if attacked(case) and not case.pictures]
    assert (len(kept), len(lost)) == (40, 5)
    worst = [view.STANDINGS.index(view.standing(case)) for case in kept]
    assert max(worst) <= min(view.STANDINGS.index(view.standing(case)) for case in lost)
    assert len(page.all("img")) == 3 * 40
    shown = [str(one["id"]) for one in page.all("article") if "fooled-" in str(one.get("id"))]
    order = [view.STANDINGS.index(view.standing(many.cases[int(name.split("-")[1])])) for name in shown]
    assert order == sorted(order)
    told = "Of 5 attacked cases there are none here: for its size a report shows 40, the worst verdicts first."
    assert told in page.text
    assert pictures.limited(written) == written


def test_pictures_of_large_images_are_kept_for_fewer_cases(results: Results) -> None:
    large = "A" * 100_000
    many = with_pictures(results, picture(original=large, perturbed=large, difference=large))
    limited = pictures.limited(many)
    assert sum(bool(case.pictures) for case in limited.cases) == 14  # of 300,000 characters each


def test_a_small_run_says_nothing_of_a_limit(results: Results, single: Results) -> None:
    case = replace(single.cases[0], pictures=(picture(),))
    assert "there are none here" not in html.render(replace(single, cases=(case,)))
    assert "What fooled them" not in html.render(results)


# What was left out of a pair's target.


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            {"dropped": {"lamp": 1200, "mug": 3}, "without_samples": ["car", "cup"]},
            "left out 1,203 images of classes that handwritten does not have: lamp (1,200), mug (3); "
            "there are no images of car, cup",
        ),
        ({"dropped": {"mug": 1}, "without_samples": []},
         "left out 1 image of classes that handwritten does not have: mug (1)"),
        ({"dropped": {}, "without_samples": [f"c{n}" for n in range(10)]},
         "there are no images of c0, c1, c2, c3, c4, c5, c6, c7 and 2 more"),
    ],
)  # fmt: skip
def test_classes_that_were_left_out_are_told_in_words(single: Results, found: Any, told: str) -> None:
    case = replace(single.cases[0], shift=Shift(kind="domain_shift", name="a_to_b", target="b"))
    case = replace(case, details={"classes": found})
    assert notes(case) == (told,)
    text = markdown.render(replace(single, cases=(case,)))
    assert told in text
    assert "## About the data" in text
    assert "## Under attack" not in text
    assert told in Page(html.render(replace(single, cases=(case,)))).text


@pytest.mark.parametrize("found", ["a text", {}, {"dropped": {"mug": "3"}}, {"dropped": ["mug"], "without_samples": 1}])
def test_what_is_no_list_of_classes_is_a_detail_like_any_other(single: Results, found: Any) -> None:
    case = replace(single.cases[0], details={"classes": found})
    assert notes(case) == ()
    assert "classes" in dict(details(case))


# The figures of an artifact without a gradient of its own, and the worst of several attacks.


def test_the_three_figures_stand_with_the_case_and_its_failure(single: Results) -> None:
    found = {"twin": 0.412, "transferred": 0.55, "gradient_free": 0.6}
    results = replace(single, cases=(replace(single.cases[0], details={"figures": found, "twin_agreement": 1.0}),))
    told = "attacked through its twin 41.2 %, by transfer 55.0 %, gradient-free 60.0 %; the case counts the worst per sample"
    assert Page(html.render(results)).text.count(told) == 2
    assert markdown.render(results).count(f"- {told}") == 1
    assert f": {told}" in markdown.render(results)
    assert not any("by transfer" in note for note in view.cautions(results))


def test_a_file_without_any_gradient_is_a_caution_and_says_why(single: Results) -> None:
    told = {"figures": {"twin": None, "transferred": 0.55, "gradient_free": 0.6}, "no_gradient": "operator Foo"}
    case = replace(single.cases[0], details=told)
    results = replace(single, cases=(case,))
    assert notes(case) == (
        "attacked by transfer 55.0 %, gradient-free 60.0 %; the case counts the worst per sample",
        "it has no gradient, so that no attack through one was run: operator Foo",
    )
    caution = "1 case had no gradient and was attacked by transfer and gradient-free only."
    assert caution in view.cautions(results)
    assert f'role="note">{caution}</p>' in html.render(results)
    assert f"> **{caution}**" in markdown.render(results)
    twice = replace(results, cases=(case, case))
    assert "2 cases had no gradient and were attacked by transfer and gradient-free only." in view.cautions(twice)


def test_the_worst_of_several_attacks_tells_each(single: Results) -> None:
    case = replace(single.cases[0], details={"alone": {"pgd": 0.5, "square": 0.412}, "together": 0.4})
    assert notes(case) == ("the worst of pgd 50.0 %, square 41.2 %, sample by sample",)
    assert "together" not in dict(details(case))


# Checks for masking.


@pytest.fixture
def checked(results: Results) -> Results:
    """The run of the other tests, with checks for masking of each variant; the first fails."""
    rows = []
    for case in results.cases:
        if case.shift.kind == "clean":
            shift = Shift(kind="masking", name="linf", norm="linf", eps=0.004)  # type: ignore[arg-type]
            message = "masking: more steps: max 2.0 %; it is 31.0 % [20.2, 43.6]"
            finding = replace(
                next(one for row in results.cases for one in row.findings), rule="masking: more steps", message=message,
                verdict="fail" if not rows else "pass",
            )  # fmt: skip
            walks = {"1 eps": {"attacked": 100, "stood": 41}, "more steps": {"attacked": 59, "stood": 3}}
            checks = {"more steps": {"n": 100, "lost": 3, "gained": 1}}
            told = {"findings": (finding,), "verdict": finding.verdict, "details": {"walks": walks, "checks": checks}}
            rows.append(replace(case, name=f"{case.name}-linf", shift=shift, value=0.41, **told))
    return replace(results, cases=(*results.cases, *rows))


def test_checks_for_masking_are_columns_that_show_verdicts(checked: Results) -> None:
    matrix = matrices(checked)[0]
    assert matrix.spans[-1] == ("Gradient masking", 1)
    assert (matrix.columns[-1].label, matrix.columns[-1].kind) == ("linf", "masking")
    assert [row.cells[-1][0].text for row in matrix.rows] == ["fail", "pass", "pass", "pass", "pass"]
    cells = re.findall(r'<td class="cell (\w+) words"[^>]*><a href="#case-\d+" title="([^"]*)"', html.render(checked))
    assert cells[0] == ("fail", "resnet20-none-handwritten-linf: 41.0 %, fail")
    assert len(cells) == 15
    table = markdown.render(checked).split("## Accuracy")[1].split("###")[1]
    assert "| linf |" in table
    assert "| **fail ✗** |" in table
    assert "| pass ✓ |" in table
    assert "Gradient masking: the verdict of its checks." in markdown.render(checked)


def test_a_failed_check_stands_with_what_did_not_pass(checked: Results) -> None:
    text = Page(html.render(checked)).text
    failures = text[text.index("What did not pass, and why") : text.index("Accuracy Percent")]
    assert 'rule "masking: more steps" of policy digits: masking: more steps: max 2.0 %; it is 31.0 %' in failures
    assert "walks 1 eps: 41 of 100 stand; more steps: 3 of 59 stand" in text
    assert "checks more steps: 3 speak of masking, 1 against it, of 100" in text


def test_attacks_without_checks_for_masking_are_a_caution(results: Results, checked: Results) -> None:
    caution = "Gradient masking was not looked for."
    assert caution in view.cautions(results)
    assert caution not in view.cautions(checked)
    unattacked = replace(results, cases=tuple(case for case in results.cases if not attacked(case)))
    assert caution not in view.cautions(unattacked)
    unmeasured = changed(checked, lambda case: replace(case, value=None) if case.shift.kind == "masking" else case)
    assert caution in view.cautions(unmeasured)
