"""Runs of the shipped suite in a process of its own, and what they wrote."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def suite(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--pyargs", "robustness_tests", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "robustgate-report" / "results.json").read_text())


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {case["name"]: case for case in results(folder)["cases"]}


def findings(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["subject"], one["rule"]): one for one in results(folder)["findings"]}
