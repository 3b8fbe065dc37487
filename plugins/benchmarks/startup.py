"""What robustgate costs before it measures anything: an unrelated project's start, and collecting 10,000 cases.

    python plugins/benchmarks/startup.py [--json FILE] [--rounds N]

Each pair of commands runs in turn, round by round; the medians and the median of the paired differences are printed.
Exits 1 where a figure that is asked for is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

CASES = 10_000
PLAIN = "def test_nothing():\n    pass\n"
PARAMETRIZED = f"""import pytest

@pytest.mark.parametrize("number", range({CASES}))
def test_number(number):
    pass
"""


@dataclass(frozen=True)
class Row:
    """One comparison: medians in seconds, the median paired difference, and the limit for it."""

    what: str
    bare_s: float
    ours_s: float
    difference_s: float
    limit_s: float

    @property
    def met(self) -> bool:
        """Say whether the difference keeps to the limit."""
        return self.difference_s <= self.limit_s


def seconds(folder: Path, *words: str) -> float:
    """Run pytest in `folder` and return how long the whole process took."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 5):
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - began


def compare(what: str, limit: float, rounds: int, bare: tuple[Path, list[str]], ours: tuple[Path, list[str]]) -> Row:
    """Run two commands in turn, after a warm-up of each."""
    seconds(bare[0], *bare[1]), seconds(ours[0], *ours[1])
    pairs = [(seconds(bare[0], *bare[1]), seconds(ours[0], *ours[1])) for _ in range(rounds)]
    difference = statistics.median(b - a for a, b in pairs)
    return Row(what, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), difference, limit)


def write_matrix(folder: Path) -> None:
    """Write a project of 20 models x 5 sources x 5 compressions x 20 shifts = 10,000 cases."""
    np.savez(
        folder / "day.npz",
        images=np.zeros((2, 8, 8, 3), dtype=np.uint8),
        labels=np.zeros(2, dtype=np.int64),
        classes=np.array(["a", "b"]),
    )
    save_file({"w": torch.zeros(1)}, folder / "w.safetensors")
    sources = [f"s{number}" for number in range(5)]
    text = [f'[domains.{source}]\nkind = "npz"\nfiles = {{ test = "day.npz" }}' for source in sources]
    weights = ", ".join(f'{source} = "w.safetensors"' for source in sources)
    for number in range(20):
        text.append(f'[models.m{number}]\nbuild = "torch.nn:Linear"\nnormalize = "inside"\nweights = {{ {weights} }}')
    for number in range(4):
        text.append(f'[compressions.c{number}]\nsteps = [{{ method = "filter_pruning", ratio = 0.{number + 1} }}]')
    text.append('[shifts]\npairs = "all"')
    text.append('corruptions = { names = ["contrast", "fog"], severities = [1, 2, 3, 4, 5] }')
    for number in range(5):
        text.append(f'[attacks.a{number}]\nmethod = "pgd"\neps = 0.01')
    text.append('[policies.p]\n[[policies.p.rules]]\nname = "floor"\nmin = 0.5')
    (folder / "robustgate.toml").write_text("\n".join(text))


def main() -> int:
    """Measure, print, and say by the exit status whether the limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    plugin = ["-p", "robustgate.pytest_plugin"]
    with tempfile.TemporaryDirectory() as place:
        unrelated, numbers, matrix = (Path(place) / name for name in ("unrelated", "numbers", "matrix"))
        for folder in (unrelated, numbers, matrix):
            folder.mkdir()
        (unrelated / "test_nothing.py").write_text(PLAIN)
        (numbers / "test_numbers.py").write_text(PARAMETRIZED)
        write_matrix(matrix)
        gate = [*plugin, "--pyargs", "robustness_tests", "--collect-only"]
        rows = [
            compare("an unrelated project's start", 0.020, 3 * arguments.rounds, (unrelated, []), (unrelated, plugin)),
            compare(
                f"collecting {CASES:,} cases, against as many plain items",
                2.0,
                arguments.rounds // 2,
                (numbers, ["--collect-only"]),
                (matrix, gate),
            ),
            compare(
                f"collecting {CASES:,} cases, against one plain test",
                2.0,
                arguments.rounds // 2,
                (unrelated, ["--collect-only"]),
                (matrix, gate),
            ),
        ]
    print(f"{'':<52} {'bare':>8} {'ours':>8} {'more':>8} {'limit':>8}")
    for row in rows:
        print(
            f"{row.what:<52} {row.bare_s:>7.3f}s {row.ours_s:>7.3f}s {row.difference_s:>+7.3f}s {row.limit_s:>7.3f}s"
            f"  {'met' if row.met else 'MISSED'}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([{**asdict(row), "met": row.met} for row in rows], indent=1))
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
