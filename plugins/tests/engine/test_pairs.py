"""A pair whose domains call their classes otherwise, from image files to the reports."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustgate.config import load
from robustgate.core.errors import DomainError
from robustgate.core.records import CaseResult
from robustgate.engine import decoding
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan

PAIRS = 'pairs = [{ source = "day", target = "dusk", classes = { gloomy = "dark", shiny = "bright" }%s }]'
DUSK = '[domains.dusk]\nkind = "image_folder"\nroot = "dusk"\nimage_size = 4\n'
# Each class of dusk with the brightness of its images; lamps are no class of day.
LEVELS = {"gloomy": (10, 50, 120, 140), "lamp": (200, 90, 10), "shiny": (130, 250, 100)}


@pytest.fixture
def dusk(tiny: Any) -> Any:
    """The tiny project with a third domain, of image files."""
    for name, levels in LEVELS.items():
        folder = tiny.folder / "dusk" / name
        folder.mkdir(parents=True)
        for number, level in enumerate(levels):
            Image.new("RGB", (6, 4), (level, level, level)).save(folder / f"{number}.png")
    return tiny


def configured(dusk: Any, more: str) -> Path:
    path: Path = dusk.configure(('pairs = "all"', PAIRS % more), extra=DUSK)
    return path


def measured(path: Path) -> CaseResult:
    gate = Gate(make_plan(load(path)), today=date(2026, 1, 1))
    (case,) = (case for case in gate.plan.cases if case.name == "tiny-none-day_to_dusk")
    return gate.result(case)


def test_dropped_classes_are_no_samples_and_are_told(dusk: Any) -> None:
    path = configured(dusk, ', missing = "drop"')
    found = measured(path)
    right = sum(level < 127.5 for level in LEVELS["gloomy"]) + sum(level > 127.5 for level in LEVELS["shiny"])
    assert (found.n, found.correct) == (7, right)
    assert found.details["classes"] == {"dropped": {"lamp": 3}, "without_samples": []}
    # In a second run nothing is decoded, and nothing measured.
    again = measured(path)
    assert (again.cached, again.correct, again.details) == (True, found.correct, found.details)


def test_the_store_holds_each_split_once(dusk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = configured(dusk, ', missing = "drop"')
    measured(path)
    (file,) = (dusk.folder / "cache" / "images").glob(f"*/{decoding.FILE}")
    pixels = np.load(file)
    assert pixels[:, 0, 0, 0].tolist() == [level for levels in LEVELS.values() for level in levels]
    monkeypatch.setattr(decoding, "_one", None)  # no image could be decoded
    assert measured(path).cached


def test_without_drop_it_is_an_error(dusk: Any) -> None:
    with pytest.raises(DomainError, match=r"pair day → dusk: .* only in day: \(none\); only in dusk: lamp"):
        measured(configured(dusk, ""))


def test_the_reports_name_what_was_dropped(dusk: Any) -> None:
    configured(dusk, ', missing = "drop"')
    words = ("--pyargs", "robustness_tests", "-k", "tiny-none-day_to_dusk", "-p", "no:cacheprovider")
    subprocess.run([sys.executable, "-m", "pytest", *words], cwd=dusk.folder, capture_output=True, check=False)
    told = "left out 3 images of classes that day does not have: lamp (3)"
    folder = dusk.folder / "robustgate-report"
    text = (folder / "report.md").read_text()
    assert "## About the data" in text
    assert told in text
    assert told in (folder / "report.html").read_text()
    cases = json.loads((folder / "results.json").read_text())["cases"]
    (case,) = (case for case in cases if case["name"] == "tiny-none-day_to_dusk")
    assert case["details"]["classes"] == {"dropped": {"lamp": 3}, "without_samples": []}
