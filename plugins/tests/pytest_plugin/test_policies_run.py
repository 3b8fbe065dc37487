"""Real pytest runs judged by two policies: one red and one green on the same case, and what is said of each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from own_process import results, rows, suite

from robustgate.reports.results_json import load

FLOORS = """
[policies.cloud]
scope = "population"
confidence = 0.95
[[policies.cloud.rules]]
name = "floor"
min = 0.01
[[policies.cloud.rules]]
name = "fits"
rule = "size"
max = "1 MB"
[policies.lab]
extends = "cloud"
on_undecided = "pass"
[[policies.lab.rules]]
name = "floor"
where = { kind = "clean" }
min = 0.999
"""
RED = (("min = 0.3", 'min = 0.3\n[[policies.edge.rules]]\nname = "fits"\nrule = "size"\nmax = "10 B"'),)
CASES = ("-k", "tiny-fp25-day and (clean or cost)")
WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "n2"])


def harsh(tiny) -> None:
    """Edge asks for more than the pruned variant holds on clean images, and for ten bytes; cloud for little."""
    tiny.configure(*RED, ("max_drop = 0.3", "max_drop = 0.001"), extra=FLOORS)


@WORKERS
def test_a_case_that_one_policy_condemns_is_red_and_says_which(tiny, workers: tuple[str, ...]) -> None:
    harsh(tiny)
    done = suite(tiny.folder, *CASES, "--robustgate-policy", "edge,cloud", *workers)
    assert done.returncode == 1
    assert "2 failed" in done.stdout
    assert 'rule "holds" of policy edge: max_drop 0.1 points' in done.stdout
    assert 'rule "fits" of policy edge: max 10 B' in done.stdout
    assert "of policy cloud:" not in done.stdout, "what passes is not told"
    assert "robustgate: policies edge on this test set, cloud on new data =" in done.stdout
    assert "policy edge, on this test set: fail: 2 fail, 1 pass" in done.stdout
    assert "--robustgate-policy edge,cloud" in done.stdout, "the command that runs it again"
    row = rows(tiny.folder)["tiny-fp25-day"]
    assert row["verdict"] == "fail"
    assert [(one["policy"], one["rule"], one["verdict"]) for one in row["findings"]] == [
        ("edge", "floor", "pass"),
        ("edge", "holds", "fail"),
        ("cloud", "floor", "pass"),
    ]
    found = results(tiny.folder)
    assert [(one["policy"], one["verdict"]) for one in found["findings"]] == [("cloud", "pass"), ("edge", "fail")]
    run = found["run"]
    assert (run["policy"], run["confidence"], run["verdict"]) == ("edge, cloud", 0.99, "fail")
    assert [(one["name"], one["verdict"], one["findings"]) for one in run["policies"]] == [
        ("edge", "fail", {"pass": 1, "fail": 2}),
        ("cloud", "incomplete", {"pass": 2}),
    ]
    assert load(tiny.folder / "robustgate-report" / "results.json").run.policies[1].scope == "population"
    page = (tiny.folder / "robustgate-report" / "report.md").read_text()
    assert "| edge | ✗ fail | on this test set | 99 % | 2 fail, 1 pass |" in page
    assert "| cloud | … incomplete | on new data | 95 % | 2 pass |" in page


def test_the_other_policy_alone_is_green(tiny) -> None:
    harsh(tiny)
    done = suite(tiny.folder, *CASES, "--robustgate-policy", "cloud")
    assert done.returncode == 0, done.stdout
    assert "robustgate: policy cloud, on new data" in done.stdout


def test_a_finding_is_red_or_not_by_its_own_policy(tiny) -> None:
    tiny.configure(extra=FLOORS)
    words = ("-k", "test_clean[tiny-none-day]")
    done = suite(tiny.folder, *words, "--robustgate-policy", "edge,lab")
    assert done.returncode == 0, done.stdout
    row = rows(tiny.folder)["tiny-none-day"]
    assert [(one["policy"], one["rule"], one["verdict"]) for one in row["findings"]] == [
        ("edge", "floor", "pass"),
        ("lab", "floor", "undecided"),
    ]
    assert row["verdict"] == "undecided", "144 of 144 prove no 99.9 %, and lab lets that pass"
    strict = FLOORS.replace('on_undecided = "pass"\n', "")
    tiny.configure(extra=strict)
    assert suite(tiny.folder, *words, "--robustgate-policy", "edge,lab").returncode == 1


def test_several_policies_stand_in_the_files_too(tiny) -> None:
    tiny.configure(('cache = "cache"', 'cache = "cache"\npolicy = "edge, cloud"'), extra=FLOORS)
    (tiny.folder / "pytest.ini").write_text("[pytest]\nrobustgate_policy = lab,edge\n")
    done = suite(tiny.folder, "-k", "test_clean[tiny-fp25-day]")
    assert results(tiny.folder)["run"]["policy"] == "lab, edge"
    (tiny.folder / "pytest.ini").write_text("[pytest]\n")
    done = suite(tiny.folder, "-k", "test_clean[tiny-fp25-day]")
    assert done.returncode == 0, done.stdout
    assert results(tiny.folder)["run"]["policy"] == "edge, cloud"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("edge,clod", "no policy 'clod' (did you mean 'cloud'?); known: cloud, edge, lab"),
        ("edge,edge", "policy 'edge' is named twice"),
    ],
)
def test_names_that_cannot_be_are_a_usage_error(tiny, names: str, expected: str) -> None:
    tiny.configure(extra=FLOORS)
    done = suite(tiny.folder, "--robustgate-policy", names)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert expected in done.stderr


# Waivers.


@pytest.mark.parametrize(("days", "told"), [(5, "expires in 5 days"), (15, ""), (-1, "expired")])
def test_a_waiver_warns_before_it_expires(tiny, days: int, told: str) -> None:
    until = (datetime.now(UTC) + timedelta(days=days)).date()
    waiver = f'[[policies.edge.waivers]]\nwhere = {{ kind = "clean" }}\nuntil = {until}\nreason = "ticket 1"\n'
    tiny.configure(("min = 0.3", "min = 0.999"), extra=waiver)
    done = suite(tiny.folder, "-k", "test_clean[tiny-fp25-day]")
    assert done.returncode == (1 if days < 0 else 0), done.stdout
    line = f"waiver of policy edge {told}{' on' if days < 0 else ', on'} {until}: ticket 1"
    assert (line in done.stdout.splitlines()) == bool(told)
    assert ("waiver of policy" in done.stdout) == bool(told)
    (waived,) = results(tiny.folder)["waivers"]
    assert (waived["policy"], waived["index"], waived["days_left"]) == ("edge", 0, days)
    assert (waived["findings"], waived["expired"]) == (1, days < 0)
    folder: Path = tiny.folder / "robustgate-report"
    for report in ("report.md", "report.html"):
        text = (folder / report).read_text()
        assert (told or "in force") in text
        assert (f"Waiver of policy edge {told}, on {until}: ticket 1" in text) == (bool(told) and days >= 0)
