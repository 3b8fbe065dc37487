"""Where a run comes from, and what makes it again."""

from __future__ import annotations

import shlex
from dataclasses import replace

from robustgate.core.records import Results
from robustgate.reports import html, provenance, view


def test_the_versions_of_the_run_are_installed_by_one_command(results: Results) -> None:
    versions = {
        "python": "3.11.7", "robustgate": "0.1.0", "torch": "2.10.0+cpu", "executorch": "absent", "source": "ab" * 32,
    }  # fmt: skip
    run = replace(results, run=replace(results.run, versions=versions))
    assert provenance.install(run) == "python -m pip install robustgate==0.1.0 torch==2.10.0"


def test_a_hostile_version_is_one_word_of_the_shell(results: Results) -> None:
    run = replace(results, run=replace(results.run, versions={"torch": "2; rm -rf ~"}))
    assert shlex.split(provenance.install(run))[4:] == ["torch==2; rm -rf ~"]


def test_data_is_told_once_for_each_hash(results: Results) -> None:
    hashes = {"clean": "aa", "corruption": "aa", "adversarial": "aa", "domain_shift": "bb"}
    cases = [replace(case, data=f"{hashes[case.shift.kind]} {case.source[0]}") for case in results.cases]
    pairs = [replace(case, data="bb") if case.shift.target == "scene" else case for case in cases]
    told = provenance.data(replace(results, cases=tuple(pairs)))
    assert ("handwritten", "aa h") in told
    assert ("handwritten → scene, printed → scene", "bb") in told
    assert len(told) == len({digest for _, digest in told}) == 7
    assert "SHA-256 of the data" not in html.render(results)  # of which none is known
    assert "<dt>handwritten</dt><dd><code>aa h</code></dd>" in html.render(replace(results, cases=tuple(cases)))


def test_the_hash_of_the_source_is_no_version(results: Results) -> None:
    run = replace(results, run=replace(results.run, versions={"torch": "2.10.0", "source": "ab" * 32}))
    assert view.versions(run) == [("torch", "2.10.0")]
    assert ("robustgate's source SHA-256", "ab" * 32) in view.facts(run)
    assert not any("source" in name for name, _ in view.facts(results))
