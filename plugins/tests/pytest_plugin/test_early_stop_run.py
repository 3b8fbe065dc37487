"""Real runs of the suite that stop early: the same bytes whoever runs them, and what a person reads of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from own_process import results, rows, suite

from robustgate.statistics.sequential import looks

N = 1000
FP25, WORSE = "tiny-fp25-day", "tiny-fp25-day_to_night"
SETTINGS = '[policies.edge]\nearly_stop = "{}"\n'


@pytest.fixture
def large(tiny) -> Any:
    """The tiny project with a thousand images by day and by night, nearly all of them far from the threshold."""
    random = np.random.default_rng(0)
    for name, wrong in (("day", 50), ("night", 300)):
        levels = random.permutation(np.resize([40, 220], N)).astype(np.uint8)
        labels = (levels > 127).astype(np.int64)
        labels[:wrong] = 1 - labels[:wrong]
        images = np.broadcast_to(levels[:, None, None, None], (N, 8, 8, 3)).copy()
        np.savez(tiny.folder / f"{name}.npz", images=images, labels=labels, classes=np.array(["dark", "bright"]))
    return tiny


def configure(project: Any, early_stop: str = "confident", cache: str = "cache", floor: str = "0.3") -> None:
    settings = "" if early_stop == "false" else SETTINGS.format(early_stop)
    project.configure(
        ('pairs = "all"\ncorruptions = { names = ["contrast"], severities = [1, 5] }', 'pairs = "all"'),
        ("[policies.edge]\n", settings or "[policies.edge]\n"),
        ('cache = "cache"', f'cache = "{cache}"'),
        ("min = 0.3", f"min = {floor}"),
    )


def told(project: Any) -> dict[str, dict[str, Any]]:
    """The rows but for their times, and whether they were measured now."""
    found = rows(project.folder)
    for row in found.values():
        del row["seconds"], row["cached"]
    return found


def test_workers_selection_and_a_kept_measurement_change_no_byte(large) -> None:
    configure(large, cache="one")
    assert suite(large.folder).returncode == 0
    alone = told(large)
    assert {row["n_total"] for row in alone.values()} == {N}
    assert all(row["n"] in looks(N) and row["n"] <= 300 for row in alone.values()), {
        k: r["n"] for k, r in alone.items()
    }
    configure(large, cache="two")
    assert suite(large.folder, "-n", "2").returncode == 0
    assert told(large) == alone
    # A run that measures everything keeps it; the next one that stops early says the same as without.
    configure(large, early_stop="false", cache="three")
    assert suite(large.folder, "-n", "2").returncode == 0
    assert {row["n"] for row in told(large).values()} == {N}
    configure(large, cache="three")
    assert suite(large.folder, "-k", FP25).returncode == 0
    chosen = {name: row for name, row in told(large).items() if row["selected"]}
    assert chosen
    assert all(row == alone[name] for name, row in chosen.items())


def test_a_person_reads_how_far_it_got(large) -> None:
    configure(large, floor="0.9")
    done = suite(large.folder, "-m", "clean or domain_shift")
    assert done.returncode == 1
    found = rows(large.folder)
    row = found[WORSE]
    assert (row["verdict"], found[FP25]["verdict"]) == ("fail", "pass")
    assert row["n"] < N == row["n_total"]
    finding = row["findings"][0]
    assert finding["high"] < 0.9
    lines = done.stdout.splitlines()
    at = lines.index("tiny / fp25 / day on night")
    share, low, high = (f"{100 * row[key]:.1f}" for key in ("value", "low", "high"))
    assert lines[at + 1].startswith(f"  accuracy {share} % [{low}, {high}] on {row['n']} of 1,000 images; ")
    ends = f"[{100 * finding['low']:.1f}, {100 * finding['high']:.1f}]"
    assert lines[at + 2] == f'  rule "floor" of policy edge: min 90.0 %; the accuracy is {share} {ends}'
    seen = sum(one["n"] for one in found.values())
    whole = sum(one["n_total"] for one in found.values())
    assert f"{seen:,} of the {whole:,} samples of these cases were enough for their verdicts" in lines
    for report in ("report.md", "report.html"):
        text = (large.folder / "robustgate-report" / report).read_text()
        assert f"{row['n']} of 1,000" in text
    assert f"≈ {share}" in text
    assert "≈ from a part of the samples" in text
    record = results(large.folder)["run"]["policies"][0]
    assert (record["early_stop"], record["scope"]) == ("confident", "test_set")


def test_certain_tells_the_verdicts_of_a_full_run(large) -> None:
    verdicts = {}
    for early_stop in ("false", "certain"):
        configure(large, early_stop=early_stop, cache=early_stop, floor="0.8")
        assert suite(large.folder, "-m", "clean or domain_shift").returncode == 1
        chosen = {name: row for name, row in rows(large.folder).items() if row["selected"]}
        verdicts[early_stop] = {name: row["verdict"] for name, row in chosen.items()}
        assert all((row["n"] < N) is (early_stop == "certain") for row in chosen.values())
    assert verdicts["certain"] == verdicts["false"]
    assert set(verdicts["false"].values()) == {"pass", "fail"}
