"""Real runs of the suite with a stability rule: the mildest change that breaks it is the closed form's."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
from own_process import rows, suite

RULE = """
[[policies.edge.rules]]
name = "steady"
rule = "stability"
max = {limit}
transformations = {{ brightness = 0.2, shift = 1 }}
"""
CASES = ("tiny-none-day-stability", "tiny-fp25-day-stability")


def changed(levels: np.ndarray, step: int) -> int:
    """Count the grey images that a brightness of so many hundredths takes across one half."""
    shown = np.clip(np.round(levels + 255 * step / 100), 0, 255)
    return int(((shown > 127.5) != (levels > 127.5)).sum())


def mildest(levels: np.ndarray, limit: float) -> int:
    """Return the smallest brightness, either way, that changes more than a share of the predictions."""
    steps = sorted(range(-20, 21), key=abs)
    return next(step for step in steps if changed(levels, step) > limit * len(levels))


def test_the_mildest_brightness_is_told_in_words_with_its_pictures(tiny) -> None:
    tiny.configure(extra=RULE.format(limit=0.1))
    done = suite(tiny.folder, "-m", "stability")
    assert done.returncode == 1, done.stdout + done.stderr
    row, n = rows(tiny.folder)[CASES[0]], len(tiny.day)
    finding, step = row["findings"][0], abs(mildest(tiny.day, 0.1))
    enough = {one: changed(tiny.day, one) for one in (-step, step) if changed(tiny.day, one) > 0.1 * n}
    told = {f"brightness {one / 100:+.2f} is enough: {100 * count / n:.1f} %": count for one, count in enough.items()}
    text = finding["message"].partition(" of the predictions change")[0]
    assert (row["verdict"], row["n"], finding["value"]) == ("fail", n, pytest.approx(told[text] / n))
    assert finding["message"] in done.stdout
    assert row["pictures"]
    assert {row["pictures"][0]["label"], row["pictures"][0]["prediction"]} == {"dark", "bright"}
    assert "shift" not in row["details"]["alone"]
    command = next(line.strip() for line in done.stdout.splitlines() if line.strip().startswith("pytest --pyargs"))
    again = suite(tiny.folder, *shlex.split(command)[3:])
    assert (again.returncode, "1 failed" in again.stdout) == (1, True)


def test_a_rule_that_holds_is_green_and_other_rules_leave_the_case_alone(tiny) -> None:
    tiny.configure(extra=RULE.format(limit=0.9))
    done = suite(tiny.folder, "-m", "stability", "--robustgate-report", "robustgate-report")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in CASES:
        row = rows(tiny.folder)[name]
        assert (row["verdict"], [finding["rule"] for finding in row["findings"]]) == ("pass", ["steady"])
        most = max(changed(tiny.day, step) for step in range(-20, 21)) / len(tiny.day)
        if name == CASES[0]:
            assert row["findings"][0]["value"] == pytest.approx(most)


def test_workers_and_another_cache_change_no_byte(tiny) -> None:
    kept = []
    for words, cache in (((), "one"), (("-n", "2"), "two")):
        tiny.configure(('cache = "cache"', f'cache = "{cache}"'), extra=RULE.format(limit=0.1))
        assert suite(tiny.folder, "-m", "stability", *words).returncode == 1
        found = [rows(tiny.folder)[name] for name in CASES]
        for row in found:
            del row["seconds"], row["cached"], row["reproduce"]
        kept.append(found)
    assert kept[0] == kept[1]


def test_a_waiver_excuses_it(tiny) -> None:
    waiver = '\n[[policies.edge.waivers]]\nwhere = { kind = "stability" }\nuntil = 2999-01-01\nreason = "ticket 1"\n'
    tiny.configure(extra=RULE.format(limit=0.1) + waiver)
    assert suite(tiny.folder, "-m", "stability").returncode == 0
    assert rows(tiny.folder)[CASES[0]]["verdict"] == "waived"


def test_two_rules_that_search_one_variant_are_refused(tiny) -> None:
    tiny.configure(extra=RULE.format(limit=0.1) + RULE.format(limit=0.2).replace("steady", "steadier"))
    done = suite(tiny.folder, "-m", "stability")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "rule 'steady' and rule 'steadier' both search the stability of 'tiny-none-day'" in done.stdout + done.stderr


def test_a_rule_that_selects_no_variant_is_refused(tiny) -> None:
    tiny.configure(extra=RULE.format(limit=0.1) + 'where = { compression = "fp26" }\n')
    done = suite(tiny.folder, "-m", "stability")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "fp26" in done.stdout + done.stderr


def test_the_report_shows_the_change_above_its_pictures(tiny) -> None:
    tiny.configure(extra=RULE.format(limit=0.1))
    assert suite(tiny.folder, "-m", "stability").returncode == 1
    text = (tiny.folder / "robustgate-report" / "report.html").read_text()
    change = rows(tiny.folder)[CASES[0]]["details"]["mildest"]
    assert change.startswith("brightness ")
    assert f"<p>{change}</p>" in text
