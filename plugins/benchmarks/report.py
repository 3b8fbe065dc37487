"""How large report.html gets, and how soon it can be used: 2,000 cases in a browser.

    python plugins/benchmarks/report.py [--results FILE] [--cases N] [--rounds N] [--json FILE]

The cases of a real run (by default the embedded gate's, which `make gate` writes to robustgate-report/results.json) are
repeated under other models' names until there are enough. The report is written as every run's is, with its assessment,
and opened in the system's Chromium, round by round in a fresh window: from the start of the navigation to the parsed
document, to the end of loading, and to the first frame that a script of the loaded page sees drawn, after which a click
is answered. Medians; exits 1 where one is missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from robustgate.core.records import Results
from robustgate.engine.reporting import supplement, write_reports
from robustgate.reports import html, results_json

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BYTES, SECONDS = 5_000_000, 2.0
# Two frames: what is asked for in the first is drawn by the second.
TIMES = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
  const entry = performance.getEntriesByType("navigation")[0];
  done({ parsed: entry.domInteractive / 1000, loaded: entry.loadEventEnd / 1000, drawn: performance.now() / 1000 });
})))"""


@dataclass(frozen=True)
class Row:
    """A figure, and what it may be; some have no limit."""

    what: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def met(self) -> bool:
        """Say whether the figure keeps to its limit."""
        return self.limit is None or self.value <= self.limit


def repeated(results: Results, count: int) -> Results:
    """Return a run of `count` cases: those of `results` again and again, each time of other models."""
    cases, variants, overall = [], [], []
    for number in range(-(-count // len(results.cases))):
        for record in results.variants:
            variants.append(replace(record, model=f"{record.model}_{number}", name=f"{record.name}_{number}"))
        for held in results.overall:
            overall.append(replace(held, model=f"{held.model}_{number}", name=f"{held.name}_{number}"))
        for case in results.cases:
            cases.append(replace(case, model=f"{case.model}_{number}", name=f"{case.name}_{number}"))
    run = replace(results.run, planned=count, selected=count, measured=count)
    return replace(results, run=run, cases=tuple(cases[:count]), variants=tuple(variants), overall=tuple(overall))


def opened(browser: Browser, report: Path) -> Mapping[str, float]:
    """Open the report in a fresh window and return when it was parsed, loaded, drawn, and how many elements it has."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(report.as_uri())
    found = {**page.evaluate(TIMES), "elements": page.evaluate("document.querySelectorAll('*').length")}
    context.close()
    return found


def main() -> int:
    """Measure, print, and say by the exit status whether the limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "robustgate-report" / "results.json")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    executable = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if executable is None:
        raise SystemExit(f"no browser on the path, expected one of {', '.join(BROWSERS)}")
    results = repeated(results_json.load(arguments.results), arguments.cases)
    with tempfile.TemporaryDirectory() as place:
        report = write_reports(results, Path(place), None)
        told = supplement(results, None)
        began = time.perf_counter()
        html.render(results_json.load(report.with_name("results.json")), told)
        rendered = time.perf_counter() - began
        size = report.stat().st_size
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            opened(browser, report)  # the browser's own start is none of the page's
            rounds = [opened(browser, report) for _ in range(arguments.rounds)]
            browser.close()
    middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    rows = [
        Row("report.html", size / 1e6, "MB", BYTES / 1e6),
        Row("elements", middle["elements"], ""),
        Row("rendering it", rendered, "s"),
        Row("navigation to the parsed document", middle["parsed"], "s", SECONDS),
        Row("navigation to the end of loading", middle["loaded"], "s", SECONDS),
        Row("navigation to the first frame after it", middle["drawn"], "s", SECONDS),
    ]
    print(f"{arguments.cases:,} cases")
    for row in rows:
        verdict = "" if row.limit is None else f"  <= {row.limit:g}  {'met' if row.met else 'MISSED'}"
        print(f"{row.what:<40} {row.value:>10,.{0 if row.unit == '' else 2}f} {row.unit:<2}{verdict}")
    if arguments.json:
        arguments.json.write_text(json.dumps([{**asdict(row), "met": row.met} for row in rows], indent=1))
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
