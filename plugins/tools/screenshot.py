"""Make the picture of a report that README.md shows: the top of the page, as a PNG of few colours.

    python plugins/tools/screenshot.py [REPORT] [PICTURE] [--height PIXELS]

REPORT is robustgate-report/report.html, which `make gate` writes, and PICTURE plugins/docs/report.png. It needs a
Chromium or Chrome on the path.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTH = 1280
LARGEST = 300_000


def shoot(report: Path, height: int) -> bytes:
    """Return the top of the page as a browser shows it by day, as a PNG."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"no browser on the path, expected one of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        picture = page.screenshot()
        opened.close()
    return picture


def main() -> None:
    """Write the picture and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", nargs="?", type=Path, default=ROOT / "robustgate-report" / "report.html")
    parser.add_argument("picture", nargs="?", type=Path, default=ROOT / "plugins" / "docs" / "report.png")
    parser.add_argument("--height", type=int, default=1340, help="pixels of the page, from its top")
    arguments = parser.parse_args()
    if not arguments.report.is_file():
        raise SystemExit(f"no report at {arguments.report}: make one with `make gate`")
    with Image.open(io.BytesIO(shoot(arguments.report, arguments.height))) as picture:
        few = picture.convert("RGB").quantize(256, kmeans=5, dither=Image.Dither.NONE)
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    few.save(arguments.picture, optimize=True)
    size = arguments.picture.stat().st_size
    print(f"{arguments.picture}: {few.width} x {few.height}, {size:,} bytes")
    if size > LARGEST:
        raise SystemExit(f"larger than {LARGEST:,} bytes: take less of the page (--height)")


if __name__ == "__main__":
    main()
