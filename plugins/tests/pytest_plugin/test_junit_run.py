"""The properties of test cases in --junitxml: what a CI reads without robustgate, with and without workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from own_process import results, rows, suite

SIZE_RULE = '\n[[policies.edge.rules]]\nname = "fits"\nrule = "size"\nmax = "10 B"\n'
MODES = pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["alone", "workers"])


def told(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Each test's properties, by the test's name: the values of each property."""
    found: dict[str, dict[str, list[str]]] = {}
    for test in ElementTree.parse(folder / "junit.xml").iter("testcase"):  # noqa: S314  pytest's own
        values = found.setdefault(str(test.get("name")), {})
        for one in test.iter("property"):
            values.setdefault(str(one.get("name")), []).append(str(one.get("value")))
    return found


@MODES
def test_every_case_carries_its_row(tiny, words: tuple[str, ...]) -> None:
    tiny.configure(("max_drop = 0.3", "max_drop = 0.001"))
    assert suite(tiny.folder, "--junitxml", "junit.xml", *words).returncode == 1
    found = {values["robustgate.case"][0]: values for values in told(tiny.folder).values()}
    expected = rows(tiny.folder)
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        values = {key.removeprefix("robustgate."): only for key, (only, *_) in found[name].items()}
        assert {key: float(values[key]) for key in ("value", "low", "high", "n", "n_total")} == {
            key: row[key] for key in ("value", "low", "high", "n", "n_total")
        }
        assert (values["verdict"], values["metric"]) == (row["verdict"], "accuracy")
        assert (values["measurement"], values["cached"]) == (row["measurement"], str(row["cached"]))
        for key, field in (("reference", "reference_value"), ("drop", "drop"), ("drop_low", "drop_low")):
            assert values.get(key) == (None if row[field] is None else str(row[field]))
    assert sum("robustgate.drop" in values for values in found.values()) == 6
    (failed,) = (name for name, row in expected.items() if row["verdict"] == "fail")
    assert found[failed]["robustgate.policy"] == ["edge"]
    judged = found[failed]["robustgate.finding"]
    assert [one for one in judged if one.startswith("fail: ")] == [
        f'fail: rule "holds" of policy edge: {finding["message"]}'
        for finding in expected[failed]["findings"]
        if finding["verdict"] == "fail"
    ]
    assert len(judged) == len(expected[failed]["findings"])


@MODES
def test_a_variant_carries_its_findings_and_its_artifact(tiny, words: tuple[str, ...]) -> None:
    tiny.configure(extra=SIZE_RULE)
    assert suite(tiny.folder, "-m", "cost", "--junitxml", "junit.xml", *words).returncode == 1
    found = told(tiny.folder)
    assert len(found) == 2
    by_name: dict[str, Any] = {record["name"]: record for record in results(tiny.folder)["variants"]}
    for values in found.values():
        record = by_name[values["robustgate.variant"][0]]
        assert values["robustgate.artifact_sha256"] == [record["artifact_sha256"]]
        assert values["robustgate.size_bytes"] == [str(record["size_bytes"])]
        assert values["robustgate.verdict"] == ["fail"]
        (finding,) = values["robustgate.finding"]
        assert finding.startswith('fail: rule "fits" of policy edge: max 10 B; it is ')
        assert "robustgate.latency_ms" not in values


def test_a_case_that_broke_says_so(tiny) -> None:
    (tiny.folder / "test_own.py").write_text("def test_it(case, gate):\n    raise ValueError('\\x00 <]]> broken')\n")
    done = suite(tiny.folder, "--pyargs", "test_own.py", "-k", "tiny-none-day-pgd", "--junitxml", "junit.xml")
    assert done.returncode == 1
    values = told(tiny.folder)["test_it[tiny-none-day-pgd]"]
    assert (values["robustgate.case"], values["robustgate.verdict"]) == (["tiny-none-day-pgd"], ["error"])
    assert "robustgate.value" not in values


def test_hostile_names_leave_the_file_sound(tiny) -> None:
    hostile = '\x1b<!--"&]]>'
    tiny.configure(('name = "holds"', f"name = {json.dumps(hostile)}"), ("max_drop = 0.3", "max_drop = 0.001"))
    assert suite(tiny.folder, "-k", "fp25-day", "--junitxml", "junit.xml").returncode == 1
    found = [one for values in told(tiny.folder).values() for one in values["robustgate.finding"]]
    assert any('<!--"&]]>" of policy edge' in one for one in found)
