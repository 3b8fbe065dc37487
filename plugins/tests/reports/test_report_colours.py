"""The colours of report.css: every text that stands on one of them can be read, by day and by night."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from robustgate.reports import html
from robustgate.reports.view import STANDINGS

CSS = (Path(html.__file__).parent / "templates" / "report.css").read_text()
ENOUGH = 4.5  # WCAG 2.2, 1.4.3


def variables(scheme: str) -> dict[str, str]:
    """The colours of a scheme; the dark one changes some of the light one's."""
    light, dark = CSS.split("@media screen and (prefers-color-scheme: dark) {", 1)
    found = dict(re.findall(r"(--[\w-]+): ([^;]+);", light))
    if scheme == "dark":
        found |= re.findall(r"(--[\w-]+): ([^;]+);", dark.split("\n}", 1)[0])
    return found


def rgb(colour: str) -> tuple[float, ...]:
    assert re.fullmatch("#[0-9a-f]{6}", colour), colour
    return tuple(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))


def mixed(first: str, second: str, share: float) -> tuple[float, ...]:
    """What color-mix(in srgb, first share, second) gives."""
    return tuple(share * a + (1 - share) * b for a, b in zip(rgb(first), rgb(second), strict=True))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    def luminance(colour: tuple[float, ...]) -> float:
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast(rgb("#767676"), rgb("#ffffff")) == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_figure_can_be_read_on_every_colour_of_the_scale(scheme: str) -> None:
    found = variables(scheme)
    for percent in range(101):
        behind = mixed(found["--heat-100"], found["--heat-0"], percent / 100)
        assert contrast(rgb(found["--ink"]), behind) >= ENOUGH, percent


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_ends_of_the_scale_differ_to_the_eye(scheme: str) -> None:
    found = variables(scheme)
    assert contrast(rgb(found["--heat-100"]), rgb(found["--heat-0"])) > 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("standing", [standing.slug for standing in STANDINGS])
def test_a_badge_can_be_read(scheme: str, standing: str) -> None:
    found = variables(scheme)
    behind = found[f"--{standing}"]
    for place in ("--page", "--card"):
        ground = found[place] if behind == "transparent" else behind
        assert contrast(rgb(found[f"--{standing}-ink"]), rgb(ground)) >= ENOUGH


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("text", ["--ink", "--soft", "--link"])
@pytest.mark.parametrize("ground", ["--page", "--card"])
def test_text_can_be_read(scheme: str, text: str, ground: str) -> None:
    found = variables(scheme)
    assert contrast(rgb(found[text]), rgb(found[ground])) >= ENOUGH


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("standing", ["fail", "error", "undecided", "waived"])
def test_a_frame_stands_out_from_the_page_and_from_most_of_the_scale(scheme: str, standing: str) -> None:
    """WCAG 1.4.11 asks for 3 of what tells something; a verdict is told by its mark, so the frame may do with less."""
    found = variables(scheme)
    frame = rgb(found[f"--{standing}-bar"])
    assert contrast(frame, rgb(found["--page"])) >= 3
    assert contrast(frame, mixed(found["--heat-100"], found["--heat-0"], 0.6)) >= 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_line_of_a_chart_stands_out_from_the_page(scheme: str) -> None:
    found = variables(scheme)
    for name, colour in found.items():
        if name.startswith("--series-"):
            assert contrast(rgb(colour), rgb(found["--page"])) >= 3, name
