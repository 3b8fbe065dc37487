from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from robustgate.core.records import Results, Shift
from robustgate.reports import figures, html

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>&amp;|`'--><!--{{ 7 * 7 }}</style>"
VOID = {"meta", "link", "br", "wbr"}


class Page(HTMLParser):
    """A parsed page: tags must balance. `text` is what a reader sees, `cells` the matrix's, with class and link."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.cells: list[tuple[str, str]] = []
        self.rows: dict[str, str] = {}
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))
        if "cell" in self.classes():
            self.cells.append((" ".join(self.classes()), ""))

    def classes(self) -> list[str]:
        return (self.open[-1][1].get("class") or "").split() if self.open else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self.open]
        if "script" in tags or "style" in tags:
            return
        self.text += data
        if any("cell" in (attributes.get("class") or "").split() for _, attributes in self.open):
            kind, text = self.cells.pop()
            self.cells.append((kind, text + data))
        for _, attributes in self.open:
            name = attributes.get("id") or ""
            if name.startswith("case-"):
                self.rows[name] = self.rows.get(name, "") + data

    def values(self, attribute: str) -> list[str]:
        return [found for _, attributes in self.elements if (found := attributes.get(attribute)) is not None]


@pytest.fixture
def page(results: Results) -> Page:
    return Page(html.render(results))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_verdict_comes_first_then_failures_then_the_rest(page: Page) -> None:
    text = flat(page.text)
    order = [
        "robustgate report · policy digits",
        "✗ fail A rule of the policy is broken. 360 of 360 planned cases measured, on new data, intervals at 99 %",
        "What did not pass, and why ✗ fail resnet20 / filter_pruning / handwritten under gaussian_noise, severity 5",
        "? undecided resnet20",
        "Accuracy Percent",
        "Per class What each compression lost",
        "Costs variant",
        "Gradient masking was not looked for: whether",
        "Waivers policy",
        "All cases Intervals",
        "Provenance run",
        "Versions robustgate 0.1.0",
        "Hashes SHA-256 of every artifact",
        "Run it again With the versions of this run (Python 3.11.7)",
        "pytest --pyargs robustness_tests --robustgate-config fixtures/robustgate.toml --robustgate-policy digits",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_every_failure_gives_its_reasons_and_its_reproduce_line(results: Results) -> None:
    text = flat(Page(html.render(results)).text)
    bad = [case for case in results.cases if case.verdict in ("fail", "undecided")]
    assert len(bad) > 20
    for case in bad:
        assert case.reproduce in text
        assert case.findings[0].message in text


def test_a_failure_tells_what_the_terminal_tells(single: Results) -> None:
    text = flat(Page(html.render(single)).text)
    assert "accuracy 41.2 % [39.6, 42.8] on 2,000 images; the reference holds 50.3 %" in text
    assert "most lost: 3: 50.0 → 21.0 %, 8: 54.5 → 24.0 %" in text


def test_nothing_is_asked_of_anybody(results: Results) -> None:
    source = html.render(results)
    page = Page(source)
    assert {tag for tag, _ in page.elements} & {"img", "iframe", "object", "base", "form", "video", "audio"} == set()
    assert page.values("src") == []
    assert all(link.startswith("#") or link == "data:," for link in page.values("href"))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", source)
    policy = next(found for found in page.values("content") if "default-src" in found)
    assert policy.startswith("default-src 'none'")


def test_costs_are_told_with_their_units_and_without_inventing_any(results: Results) -> None:
    tables = re.findall(r'aria-label="Costs of the variants">.*?</table>', html.render(results), re.DOTALL)
    heads, *lines = [
        [flat(Page(cell).text) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall("<tr>.*?</tr>", tables[0])
    ]
    told = {line[0]: dict(zip(heads, line, strict=True)) for line in lines}
    quantized = told["resnet20 / static_quantization / handwritten"]
    assert quantized["latency"] == "0.412 ms, 0.666 [0.65, 0.68] of reference"
    assert (quantized["compression (deflated)"], quantized["bits a parameter (deflated)"]) == ("3.6x", "8.32")
    assert (quantized["peak memory"], quantized["MACs"]) == ("1.25 MB", "not measured")
    reference = told["resnet20 / none / handwritten"]
    assert (reference["latency"], reference["peak memory"], reference["MACs"]) == ("not measured",) * 2 + ("40.6 M",)


@pytest.mark.parametrize("name", ["results", "selection", "single"])
def test_links_lead_to_ids_that_exist_once(name: str, request: pytest.FixtureRequest) -> None:
    results: Results = request.getfixturevalue(name)
    page = Page(html.render(results))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = [link[1:] for link in page.values("href") if link.startswith("#")]
    assert set(links) <= set(ids)
    assert {f"case-{index}" for index in range(len(results.cases))} <= set(links)
    assert set(page.values("aria-labelledby")) <= set(ids)


def test_every_case_has_one_cell_and_one_row(results: Results, page: Page) -> None:
    assert len(page.cells) == len(page.rows) == len(results.cases) == 360


def test_a_cell_leads_to_the_row_of_its_own_case(results: Results) -> None:
    source = html.render(results)
    cells = re.findall(r'<td class="cell [^>]*><a href="#case-(\d+)" title="([^:]*): ([^,]*),', source)
    assert len(cells) == 360
    for index, name, shown in cells:
        case = results.cases[int(index)]
        assert name == case.name
        assert case.value is not None
        assert shown == figures.percent(case.value)


def test_cells_say_verdicts_in_words_and_class(results: Results, page: Page) -> None:
    words = [(re.sub("^cell ", "", kind).replace("-", " "), flat(text)) for kind, text in page.cells]
    assert all(text.endswith(kind) for kind, text in words)
    found = [kind for kind, _ in words]
    assert {kind: found.count(kind) for kind in set(found)} == {
        "no rule": sum(not case.findings for case in results.cases),
        **{
            verdict: sum(case.verdict == verdict for case in results.cases if case.findings)
            for verdict in ("pass", "fail", "undecided", "waived")
        },
    }


def test_a_row_has_every_figure(single: Results) -> None:
    row = flat(Page(html.render(single)).rows["case-0"])
    assert row.startswith("gaussian_noise, severity 5 41.2 % [39.6, 42.8] 2,000 50.3 % 9.2 points [7.4, 10.9] ✗ fail")
    assert "measurement 5f2a9c0e7b1d" in row


def test_the_reference_is_not_compared_with_itself(results: Results, page: Page) -> None:
    assert results.cases[0].compression == "none"
    assert flat(page.rows["case-0"]).startswith("clean 98.5 % [96.9, 100.0] 2,000 — — ∅ no rule")


def test_a_rule_on_variants_that_is_broken_stands_with_the_failures(results: Results) -> None:
    broken = replace(results.findings[0], verdict="fail", message="max 100 kB; it is 163.8 kB")
    text = flat(Page(html.render(replace(results, findings=(broken,)))).text)
    failures = text[text.index("What did not pass, and why") : text.index("? undecided resnet20")]
    told = 'fail resnet20 / filter_pruning / handwritten rule "fits the device" of policy digits: max 100 kB; it is 163.8 kB'
    assert told in failures


def test_a_case_measured_in_part_says_so(single: Results) -> None:
    early = replace(single, cases=(replace(single.cases[0], n=500),))
    assert "500 of 2,000" in Page(html.render(early)).rows["case-0"]
    assert "· not in the plan ≈ from a part of the samples" in Page(html.render(early)).text
    assert "from a part" not in Page(html.render(single)).text


def test_details_of_a_case_stand_in_its_row(results: Results, page: Page) -> None:
    index = next(index for index, case in enumerate(results.cases) if case.details)
    assert "twin agreement 0.9985" in flat(page.rows[f"case-{index}"])


def test_no_rule_is_no_pass(results: Results, page: Page) -> None:
    for index, case in enumerate(results.cases):
        row = page.rows[f"case-{index}"]
        assert ("no rule" in row) is (not case.findings)
        assert ("✓" in row) is (bool(case.findings) and case.verdict == "pass")


def test_a_selection_certifies_nothing(selection: Results) -> None:
    page = Page(html.render(selection))
    assert "315 of 360 planned cases were not selected: this run certifies nothing as a whole." in flat(page.text)
    left_out = [text for kind, text in page.cells if kind == "cell not-selected words"]
    assert left_out == ["not selected"] * 315
    rows = [row for row in page.rows.values() if "not selected" in row]
    assert len(rows) == 315
    assert not any("%" in row for row in rows)


def test_a_case_that_was_not_measured_says_so_and_why(single: Results) -> None:
    nothing = {"value": None, "low": None, "high": None, "drop": None, "drop_low": None, "drop_high": None}
    case = replace(single.cases[0], **nothing, n=0, findings=(), most_lost=(), verdict="error", message="NaN logits")
    run = replace(single.run, verdict="error", measured=0, complete=False)
    page = Page(html.render(replace(single, run=run, cases=(case,))))
    assert page.cells[0][0] == "cell error words"
    assert page.cells[0][1].startswith("not measured")
    assert "NaN logits" in page.rows["case-0"]
    assert "1 selected case was not measured." in page.text
    assert "0.0" not in page.rows["case-0"]
    assert page.values("style") == ["flex:1", "--lines:1"]


def test_an_empty_run_is_no_pass(single: Results) -> None:
    run = replace(single.run, planned=0, selected=0, measured=0, complete=False, verdict="incomplete")
    text = flat(Page(html.render(replace(single, run=run, cases=(), variants=()))).text)
    assert "… incomplete" in text
    assert "certifies nothing as a whole" in text
    assert "No variant was built." in text


def test_hostile_text_stays_text(single: Results) -> None:
    case = single.cases[0]
    finding = replace(case.findings[0], message=HOSTILE, rule=HOSTILE, subject=HOSTILE, waiver=HOSTILE)
    hostile = replace(
        single,
        run=replace(single.run, policy=HOSTILE, config=HOSTILE, versions={HOSTILE: HOSTILE}, device=HOSTILE),
        variants=(replace(single.variants[0], model=HOSTILE, artifact_sha256=HOSTILE),),
        cases=(
            replace(
                case,
                name=HOSTILE,
                model=HOSTILE,
                source=HOSTILE,
                compression=HOSTILE,
                metric=HOSTILE,
                reproduce=HOSTILE,
                shift=Shift(kind="adversarial", name=HOSTILE, attack=HOSTILE, detail=HOSTILE),
                findings=(finding, replace(finding, verdict="waived")),
                most_lost=(replace(case.most_lost[0], name=HOSTILE),),
                details={HOSTILE: HOSTILE},
            ),
        ),
        findings=(finding,),
    )
    known = {tag for tag, _ in Page(html.render(single)).elements} | {"small"}
    page = Page(html.render(hostile))
    assert {tag for tag, _ in page.elements} <= known
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count(HOSTILE) > 15
    assert any(HOSTILE in title for title in page.values("title"))


def test_headings_step_down_one_at_a_time(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_2000_cases_stay_small(results: Results) -> None:
    many = replace(results, cases=(results.cases * 6)[:2000])
    assert len(html.render(many).encode()) < 5_000_000


def test_every_colour_of_a_standing_is_defined_in_light_and_dark(results: Results) -> None:
    css = html.render(results).split("<style>")[1].split("</style>")[0]
    defined = set(re.findall(r"(--[\w-]+):", css))
    assert set(re.findall(r"var\((--[\w-]+)", css)) <= defined | {"--value", "--lines"}
    assert "prefers-color-scheme: dark" in css
