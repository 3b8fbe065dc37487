"""report.html in a real browser: what it shows, what it asks for, how it is used without a mouse and on a phone.

Screenshots go to the folder that ROBUSTGATE_SCREENSHOTS names, or else to build/screenshots.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from robustgate.core.records import (
    MASKED_SHARE,
    CaseResult,
    ClassAccuracy,
    Finding,
    Picture,
    Results,
    Shift,
    Variant,
)
from robustgate.engine.overall import overall
from robustgate.engine.reporting import supplement
from robustgate.reports import folder, history, results_json
from robustgate.reports.troubles import troubles

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SCREENSHOTS = Path(os.environ.get("ROBUSTGATE_SCREENSHOTS") or Path(__file__).parents[3] / "build" / "screenshots")
WIDTHS = (1280, 390)
# A name that is markup; its number tells apart two that were different.
HOSTILE = '"><script>alert({number})</script><img src=x onerror=alert({number})>'
OUTSIDE = (
    "resnet20", "handwritten", "printed", "filter_pruning", "static_quantization", "pgd", "gaussian_noise", "eight",
    "holds under attack", "retraining", "fixtures/robustgate", "digit-7", "onnxruntime", "x86_64",
)  # fmt: skip
# The lowest contrast of text against what is behind it, and where: as it is computed, not as it is meant.
CONTRASTS = """() => {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const read = (colour) => {
    pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (at) => {
    for (; at; at = at.parentElement) {
      const colour = read(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const item of document.querySelectorAll("body *")) {
    const own = [...item.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !item.checkVisibility() || item.closest("script, title, .hidden")) continue;
    const style = getComputedStyle(item), drawn = item.closest("svg") ? style.fill : style.color;
    const pair = [drawn, ...behind(item)].join();
    const [a, b] = [luminance(read(drawn).slice(0, 3)), luminance(behind(item).slice(0, 3))].sort((x, y) => x - y);
    found.push([(b + 0.05) / (a + 0.05), `${item.tagName} .${item.getAttribute("class")} ${pair}: ${item.textContent.trim().slice(0, 40)}`]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 8);
}"""


@dataclass
class Seen:
    """A page in the browser, and what it did beside being shown."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._dismiss)

    def _dismiss(self, dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's own browser. Without one a test skips and says why; in CI it fails."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        reason = f"needs a browser: none of {', '.join(BROWSERS)} is on the path"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # Without a sandbox of its own: the page is ours, and a container of CI often allows none.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def see(browser: Browser) -> Iterator[Callable[..., Seen]]:
    """Open a file in a window of its own; what the arguments do not say is as on a large screen by day."""
    opened = []

    def open_page(path: Path, *, width: int = 1280, **context) -> Seen:
        opened.append(browser.new_context(viewport={"width": width, "height": 900}, **context))
        seen = Seen(opened[-1].new_page())
        seen.page.goto(path.as_uri())
        return seen

    yield open_page
    for context in opened:
        context.close()


def png(shade: int) -> str:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 90, 160)).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


def shown(case: CaseResult) -> CaseResult:
    """`case` with all that an attack leaves: a curve, pictures, the three figures of a file."""
    if case.shift.kind != "adversarial" or case.value is None:
        return replace(case, data="ab" * 32)
    held = [case.value + (0.97 - case.value) * share for share in (1.0, 0.6, 0.0, -0.1)]
    details = {"curve": {"eps": [0.0, 0.002, 0.004, 0.02], "accuracy": [max(0.0, value) for value in held]}}
    if case.compression == "static_quantization":
        details["figures"] = {"twin": case.value, "transferred": case.value + 0.1, "gradient_free": 0.9}
    picture = Picture(
        name="digit-7.png", label="eight", prediction="three", norm=0.0039, original=png(10), perturbed=png(90),
        difference=png(128), magnification=64.0,
    )  # fmt: skip
    return replace(case, details=details, pictures=(picture,) if case.shift.name == "pgd" else (), data="ab" * 32)


def checked(case: CaseResult, number: int) -> CaseResult:
    """The checks for masking of a variant, from its case on clean images; of the third, one fails."""
    name = f"{case.name}-linf"
    common = {"policy": "digits", "subject": name, "metric": MASKED_SHARE, "limit_kind": "max", "limit": 0.02}
    findings = tuple(
        Finding(
            **common, rule=f"masking: {check}", value=share, low=0.0, high=0.1, verdict="fail" if share else "pass",
            message=f"max 2.0 %; it is {100 * share:.1f} [0.0, 10.0]",
        )
        for check, share in (("more steps", 0.31 if number == 2 else 0.0), ("zero gradient", 0.0))
    )  # fmt: skip
    shift = Shift(kind="masking", name="linf", norm="linf", eps=0.004, detail="linf, eps 0.004")
    verdict = "fail" if number == 2 else "pass"
    return replace(
        case, name=name, shift=shift, value=0.4, findings=findings, verdict=verdict, details={}, data=None,
        reproduce=f'pytest -k "{name}"',
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(results: Results) -> Results:
    """The run of the other tests with all that a page can show: curves, pictures, checks, losses, an overall."""
    cases = [shown(case) for case in results.cases]
    cases = [replace(case, most_lost=tuple(map(renamed, case.most_lost))) for case in cases]
    clean = [case for case in cases if case.shift.kind == "clean"]
    cases += [checked(case, number) for number, case in enumerate(clean)]
    variants = [Variant(model=one.model, source=one.source, compression=one.compression) for one in results.variants]
    run = replace(results.run, planned=len(cases), selected=len(cases), measured=len(cases))
    return replace(results, run=run, cases=tuple(cases), overall=overall(variants, cases))


def renamed(lost: ClassAccuracy) -> ClassAccuracy:
    return replace(lost, name={"3": "three", "8": "eight"}[lost.name])


def hostile(results: Results, place: Path) -> Results:
    """`results` with markup in every name from outside."""
    results_json.write(results, place)
    text = place.read_text()
    for number, word in enumerate(OUTSIDE):
        assert word in text
        text = text.replace(word, word + json.dumps(HOSTILE.format(number=number))[1:-1])
    place.write_text(text)
    return results_json.load(place)


def written(results: Results, place: Path) -> Path:
    """The report of a run that has two others before it, some of whose cases held more."""
    for number in (1, 2):
        run = replace(results.run, id=f"before-{number}", started=f"2026-10-0{number}T00:00:00+00:00")
        cases = (replace(case, value=0.99) if index % 40 == 30 else case for index, case in enumerate(results.cases))
        history.append(replace(results, run=run, cases=tuple(cases)), place / "history.sqlite")
    history.append(results, place / "history.sqlite")
    return folder.rebuild(folder.write_results(results, place), place, supplement(results, place / "history.sqlite"))


@pytest.fixture(scope="module")
def report(whole: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(whole, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def hostile_report(whole: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hostile")
    return written(hostile(whole, place / "planted.json"), place)


def test_a_page_asks_for_nothing_and_complains_of_nothing(see, report: Path) -> None:
    seen = see(report)
    assert seen.requests == [report.as_uri()]
    assert seen.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_looks_as_on_the_pictures(see, report: Path, width: int, scheme: str) -> None:
    page = see(report, width=width, color_scheme=scheme).page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    # All of the page is in sight at once here: what waits for that gets its true height before the picture is taken.
    page.add_style_tag(content=".heat { content-visibility: visible !important; }")
    file = SCREENSHOTS / f"report-{width}-{scheme}.png"
    page.screenshot(path=file, full_page=True, timeout=120_000)
    # The whole page, no more than a window wide, and not blank.
    with Image.open(file) as picture:
        assert (picture.width, picture.height) == (width, page.evaluate("document.documentElement.scrollHeight"))
        assert len(picture.crop((0, 0, width, 900)).convert("RGB").getcolors(900 * width) or []) > 100


def test_sections_come_in_the_order_in_which_a_reader_asks(see, report: Path) -> None:
    page = see(report).page
    sections = page.eval_on_selector_all(
        "main > section", "all => all.map((one) => one.getAttribute('aria-labelledby'))"
    )
    links = page.eval_on_selector_all("nav a", "all => all.map((one) => one.getAttribute('href').slice(1))")
    assert links == sections
    known = ["troubles", "accuracy", "losses", "costs", "masking", "waivers", "cases", "provenance"]
    assert [name for name in sections if name in known] == known


def test_the_heat_map_is_seen_and_its_colour_follows_the_figure(see, report: Path, whole: Results) -> None:
    page = see(report).page
    box = page.locator(".matrix").first.bounding_box()
    assert box is not None
    assert box["width"] > 600
    assert 0 <= box["x"] < box["x"] + box["width"] <= 1280
    cells = page.eval_on_selector_all(
        ".matrix .cell:not(.words)",
        """all => all.map((one) => [parseFloat(one.innerText.replace("≈", "")),
                                    getComputedStyle(one).backgroundColor.match(/[\\d.]+/g).map(Number)])""",
    )
    assert len(cells) == sum(case.value is not None and case.shift.kind != "masking" for case in whole.cases)
    red = [colour[0] for _, colour in sorted(cells)]
    assert red == sorted(red)
    assert red[0] < red[-1] - 0.1  # of 1: the less is right, the bluer


def test_every_curve_is_seen(see, report: Path) -> None:
    page = see(report).page
    charts = page.locator("svg.drawn")
    assert charts.count() >= 6
    for chart in charts.all():
        if chart.evaluate("one => !one.checkVisibility()"):  # in a fold
            continue
        box = chart.bounding_box()
        assert box is not None
        assert box["width"] > 100
        assert box["height"] > 60
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 1280
    strokes = page.eval_on_selector_all(
        "svg.drawn path[class^=series-]", "all => [...new Set(all.map((one) => getComputedStyle(one).stroke))]"
    )
    assert len(strokes) >= 4
    assert all(re.fullmatch(r"rgb\(\d+, \d+, \d+\)", stroke) for stroke in strokes)


FOCUS = """() => {
  const at = document.activeElement, trouble = at.closest(".trouble"), style = getComputedStyle(at);
  return {
    kind: at.tagName, inside: at.closest("section")?.getAttribute("aria-labelledby") ?? "",
    trouble: trouble ? [...document.querySelectorAll(".trouble")].indexOf(trouble) : -1,
    shown: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    folded: at.tagName === "SUMMARY" && !at.parentElement.open,
  };
}"""


def test_the_keyboard_reaches_every_failure_and_its_reproduce_line(see, report: Path, whole: Results) -> None:
    page = see(report).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#troubles"  # past the navigation
    page.keyboard.press("Enter")
    reached = Counter()
    for _ in range(2000):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus["inside"] != "troubles":
            break
        assert focus["shown"], focus
        reached[focus["trouble"], focus["kind"]] += 1
        if focus["folded"]:
            page.keyboard.press("Enter")
    found = troubles(whole)
    assert len(found) > 20  # some are in a fold
    for number, trouble in enumerate(found):
        links = 1 if trouble.index is not None else 0
        lines = 1 if trouble.reproduce else 0
        assert [reached[number, kind] for kind in ("A", "PRE", "BUTTON")] == [links, lines, lines]


@pytest.mark.parametrize("script", [True, False])
def test_a_failure_leads_to_its_case_which_is_then_seen(see, report: Path, whole: Results, script: bool) -> None:
    page = see(report, java_script_enabled=script).page
    indices = [trouble.index for trouble in troubles(whole) if trouble.index is not None]
    for index in (indices[0], indices[10]):
        page.locator(f'.trouble h3 a[href="#case-{index}"]').press("Enter")
        page.wait_for_url(f"**#case-{index}")
        row = page.locator(f"#case-{index}")
        row.wait_for(state="visible")
        box = row.bounding_box()
        assert box is not None
        assert -1 <= box["y"] < 900
        assert box["height"] > 10


def test_the_same_link_opens_again_what_was_closed_since(see, report: Path, whole: Results) -> None:
    page = see(report).page
    index = next(trouble.index for trouble in troubles(whole) if trouble.index is not None)
    link, row = page.locator(f'.trouble h3 a[href="#case-{index}"]'), page.locator(f"#case-{index}")
    link.press("Enter")
    row.wait_for(state="visible")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = false; })")
    row.wait_for(state="hidden")
    link.press("Enter")
    row.wait_for(state="visible")


def test_a_reproduce_line_is_copied_as_it_is(see, report: Path, whole: Results) -> None:
    page = see(report, permissions=["clipboard-read", "clipboard-write"]).page
    page.locator(".trouble .copy").first.press("Enter")
    page.locator(".trouble .copy", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == troubles(whole)[0].reproduce


def test_what_may_not_be_copied_is_selected(see, report: Path, whole: Results) -> None:
    page = see(report).page
    page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error('refused')))")
    page.locator(".trouble .copy").first.press("Enter")
    page.locator(".trouble .copy", has_text="Selected").wait_for()
    assert page.evaluate("getSelection().toString()") == troubles(whole)[0].reproduce


OPEN = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
# What is drawn in a chart is matplotlib's; names there wrap and are cut, and so count differently.
TAGS = """[...document.querySelectorAll("*")].filter((one) => !one.closest("svg") && one.tagName !== "WBR")
          .map((one) => [one.tagName, ...one.getAttributeNames().sort()].join(" "))"""


def test_hostile_names_stay_text(see, report: Path, hostile_report: Path) -> None:
    seen, plain = see(hostile_report), see(report)
    assert seen.dialogs == seen.complaints == []
    assert seen.requests == [hostile_report.as_uri()]
    assert Counter(seen.page.evaluate(TAGS)) == Counter(plain.page.evaluate(TAGS))
    assert seen.page.locator("script").count() == 1
    assert seen.page.locator("svg :is(img, image, script, foreignObject, a)").count() == 0
    text = seen.page.evaluate("document.body.textContent")
    for number, word in enumerate(OUTSIDE):
        assert word + HOSTILE.format(number=number) in text, word


@pytest.mark.parametrize("name", ["report", "hostile_report"])
def test_a_phone_scrolls_down_only(see, name: str, request: pytest.FixtureRequest) -> None:
    page = see(request.getfixturevalue(name), width=390, has_touch=True, is_mobile=True).page
    page.evaluate(OPEN)
    wide = """[...document.querySelectorAll("body *")].filter((one) => !one.closest(".scroll, .hidden, script")
              && one.getBoundingClientRect().right > 390.5).map((one) => one.outerHTML.slice(0, 200)).slice(0, 5)"""
    assert page.evaluate(wide) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(see, report: Path, scheme: str) -> None:
    page = see(report, color_scheme=scheme).page
    page.evaluate(OPEN)
    brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(brightness) < 60) if scheme == "dark" else (min(brightness) > 240)
    lowest = page.evaluate(CONTRASTS)
    assert lowest[0][0] >= 4.5, lowest


def test_print_opens_what_is_folded_and_is_light(see, report: Path) -> None:
    page = see(report, color_scheme="dark").page
    assert page.locator("#cases ~ details tr").first.is_hidden()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    assert page.locator(".copy").first.is_hidden()
    hidden = """[...document.querySelectorAll("details tr, details article, details dd")]
                .filter((one) => !(one.getBoundingClientRect().height > 0)).length"""
    assert page.evaluate(hidden) == 0


def test_a_browser_opens_folds_to_print_and_closes_them_again(see, report: Path) -> None:
    page = see(report).page
    closed = "document.querySelectorAll('details:not([open])').length"
    before = page.evaluate(closed)
    assert before > 10
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(closed) == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(closed) == before


def test_2000_cases_are_no_burden(see, whole: Results, tmp_path: Path) -> None:
    copies = [
        replace(case, name=case.name.replace("resnet20", f"net{number}"), model=f"net{number}")
        for number in range(6)
        for case in whole.cases
    ]
    many = replace(whole, cases=tuple(copies[:2000]))
    file = folder.rebuild(folder.write_results(many, tmp_path), tmp_path, supplement(many, None))
    assert file.stat().st_size < 5_000_000
    assert see(file).page.evaluate("document.querySelectorAll('*').length") < 100_000
