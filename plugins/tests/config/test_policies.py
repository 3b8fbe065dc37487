"""What a policy may say beside its rules, what it inherits, and how several are asked for."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from robustgate.config import Policy, load
from robustgate.config.policies import choose
from robustgate.core.errors import ConfigurationError

REST = """
[domains.day]
kind = "npz"
files = { test = "day.npz" }
[models.net]
build = "a:b"
normalize = "inside"
weights = { day = "net.safetensors" }
"""
BASE = """
[policies.base]
confidence = 0.95
scope = "population"
[[policies.base.rules]]
name = "floor"
min = 0.4
[[policies.base.rules]]
name = "fits"
rule = "size"
max = "3 MB"
[[policies.base.rules]]
name = "crosses"
where = { kind = "domain_shift" }
min = 0.2
[[policies.base.waivers]]
where = { compression = "fp60" }
until = 2026-12-31
reason = "ticket 1"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.safetensors").touch()
    return tmp_path


def policies(folder: Path, text: str) -> dict[str, Policy]:
    path = folder / "robustgate.toml"
    path.write_text(REST + text)
    return dict(load(path).policies)


def problems(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        policies(folder, text)
    return caught.value.problems


def names(policy: Policy) -> list[str]:
    return [rule.name for rule in (*policy.case_rules, *policy.run_rules)]


# Its keys.


def test_a_policy_that_says_nothing_asks_about_the_test_set_measured_in_full(folder: Path) -> None:
    policy = policies(folder, '[[policies.edge.rules]]\nname = "floor"\nmin = 0.4\n')["edge"]
    assert (policy.scope, policy.early_stop, policy.familywise) == ("test_set", False, "holm")
    assert (policy.prove, policy.on_undecided, policy.interval, policy.extends) == (
        None, "fail", "clopper_pearson", None,
    )  # fmt: skip


@pytest.mark.parametrize("early_stop", ['"certain"', '"confident"', "false"])
def test_every_key_is_read(folder: Path, early_stop: str) -> None:
    keys = f'early_stop = {early_stop}\nfamilywise = "none"\nprove = "bad"\ninterval = "stratified_wilson"\n'
    policy = policies(folder, BASE.replace("confidence = 0.95\n", keys))["base"]
    assert (policy.scope, policy.familywise, policy.prove, policy.interval) == (
        "population", "none", "bad", "stratified_wilson",
    )  # fmt: skip
    assert policy.early_stop == (early_stop != "false" and early_stop.strip('"'))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ('scope = "populaton"', "policies.base.scope: expected one of 'test_set', 'population', got the text"),
        ("early_stop = true", "early_stop: expected one of 'certain', 'confident', false, got the truth value True"),
        ('early_stop = "certan"', "got the text 'certan' (did you mean 'certain'?)"),
        ('familywise = "bonferroni"', "policies.base.familywise: expected one of 'holm', 'none'"),
        ('prove = "all"', "policies.base.prove: expected one of 'good', 'bad'"),
        (
            'prove = "good"\non_undecided = "fail"',
            "policies.base.on_undecided: says nothing beside prove, with which no verdict is undecided",
        ),
        ('interval = "wilson"', 'policies.base: interval = "wilson" needs scope = "population"'),
        ('interval = "wilsn"', "interval: expected one of 'clopper_pearson', 'wilson', 'stratified_wilson'"),
        ("extend = 3", "policies.base: unknown key 'extend' (did you mean 'extends'?)"),
        ("waivers = 3", "policies.base.waivers: expected [[policies.base.waivers]], each a table"),
    ],
)
def test_a_mistake_is_named_with_its_place(folder: Path, keys: str, expected: str) -> None:
    text = BASE.replace('scope = "population"\n', "").replace("confidence = 0.95", keys)
    if "waivers = 3" in keys:
        text = text[: text.index("[[policies.base.waivers]]")]
    (problem,) = problems(folder, text)
    assert expected in problem


# What it inherits.


def test_a_policy_inherits_keys_rules_and_waivers(folder: Path) -> None:
    found = policies(folder, BASE + '[policies.edge]\nextends = "base"\n')
    base, edge = found["base"], found["edge"]
    assert (edge.name, edge.extends) == ("edge", "base")
    assert (edge.confidence, edge.scope) == (0.95, "population")
    assert (edge.case_rules, edge.run_rules, edge.waivers) == (base.case_rules, base.run_rules, base.waivers)


def test_a_rule_of_the_same_name_takes_the_place_of_the_other(folder: Path) -> None:
    own = """
[policies.edge]
extends = "base"
confidence = 0.9
[[policies.edge.rules]]
name = "more"
max_drop = 0.1
[[policies.edge.rules]]
name = "floor"
min = 0.6
[[policies.edge.rules]]
name = "fits"
rule = "size"
max = "1 MB"
[[policies.edge.waivers]]
where = { kind = "clean" }
until = 2026-06-30
reason = "ticket 2"
"""
    found = policies(folder, BASE + own)
    edge = found["edge"]
    assert [(rule.name, rule.min) for rule in edge.case_rules] == [("floor", 0.6), ("crosses", 0.2), ("more", None)]
    assert [rule.component.max for rule in edge.run_rules] == ["1 MB"]
    assert [waiver.until for waiver in edge.waivers] == [date(2026, 12, 31), date(2026, 6, 30)]
    assert (edge.confidence, edge.scope) == (0.9, "population")
    assert found["base"].case_rules[0].min == 0.4, "what is inherited is left as it was"


def test_a_rule_on_cases_may_take_the_place_of_one_on_variants(folder: Path) -> None:
    own = '[policies.edge]\nextends = "base"\n[[policies.edge.rules]]\nname = "fits"\nmin = 0.1\n'
    edge = policies(folder, BASE + own)["edge"]
    assert ([rule.name for rule in edge.case_rules], edge.run_rules) == (["floor", "fits", "crosses"], ())


def test_chains_are_followed_whatever_their_order_in_the_file(folder: Path) -> None:
    chain = '[policies.c]\nextends = "b"\n[policies.b]\nextends = "base"\nprove = "good"\n'
    found = policies(folder, chain + BASE)
    assert names(found["c"]) == names(found["base"])
    assert (found["c"].prove, found["c"].confidence) == ("good", 0.95)


def test_what_is_said_of_the_proof_takes_the_place_of_what_would_be_inherited(folder: Path) -> None:
    lenient = BASE.replace("confidence = 0.95", 'on_undecided = "pass"')
    strict = '[policies.edge]\nextends = "base"\nprove = "good"\n'
    again = '[policies.lab]\nextends = "edge"\non_undecided = "pass"\n'
    found = policies(folder, lenient + strict + again)
    assert (found["edge"].prove, found["edge"].on_undecided) == ("good", "fail")
    assert (found["lab"].prove, found["lab"].on_undecided) == (None, "pass")


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (
            '[policies.edge]\nextends = "bse"\n',
            ("policies.edge.extends: no policy 'bse' (did you mean 'base'?); known: base, edge",),
        ),
        ("[policies.edge]\nextends = 3\n", ("policies.edge.extends: expected a text, got the number 3",)),
        (
            '[policies.edge]\nextends = "edge"\n',
            ("policies.edge.extends: 'extends' goes round in a circle: edge → edge",),
        ),
        (
            '[policies.a]\nextends = "b"\n[policies.b]\nextends = "c"\n[policies.c]\nextends = "b"\n',
            ("policies.b.extends: 'extends' goes round in a circle: b → c → b",),
        ),
        (
            '[policies.edge]\nextends = "base"\nscope = "test_set"\ninterval = "wilson"\n',
            (
                'policies.edge: interval = "wilson" needs scope = "population": an accuracy on the test set itself is '
                "a fact",
            ),
        ),
        (
            '[policies.edge]\nextends = "base"\nrules = []\n',
            ("policies.edge: has no [[policies.edge.rules]]: it would pass everything",),
        ),
    ],
)
def test_what_cannot_be_inherited_is_told(folder: Path, own: str, expected: tuple[str, ...]) -> None:
    assert problems(folder, BASE + own) == expected


def test_a_mistake_in_what_is_inherited_is_told_once_where_it_stands(folder: Path) -> None:
    broken = BASE.replace("min = 0.4", "min = 4").replace('reason = "ticket 1"', 'reason = ""')
    heirs = '[policies.edge]\nextends = "base"\n[policies.lab]\nextends = "edge"\nconfidence = 95\n'
    assert problems(folder, broken + heirs) == (
        "policies.base.rules[0]: min must be a fraction in [0, 1], got 4",
        "policies.base.waivers[0]: reason must say why",
        "policies.lab: confidence must be a fraction above 0.5 and below 1, got 95",
    )


# Several of them.


def test_names_stand_with_commas_between() -> None:
    known = ("edge", "cloud", "lab")
    assert choose("edge", known) == (["edge"], [])
    assert choose("lab, edge", known) == (["lab", "edge"], [])
    assert choose("edge,clod,edge", known)[1] == [
        "policy 'edge' is named twice",
        "no policy 'clod' (did you mean 'cloud'?); known: cloud, edge, lab",
    ]
    assert choose("edge,", known)[1] == ["no policy ''; known: cloud, edge, lab"]


def test_the_file_may_choose_several(folder: Path) -> None:
    heir = '[policies.edge]\nextends = "base"\n'
    path = folder / "robustgate.toml"
    path.write_text(REST + BASE + heir + '[gate]\npolicy = "edge, base"\n')
    assert load(path).gate.policy == "edge, base"
    assert problems(folder, BASE + heir + '[gate]\npolicy = "edge,bas"\n') == (
        "gate.policy: no policy 'bas' (did you mean 'base'?); known: base, edge",
    )


def test_the_baseline_stands_beside_the_file_where_nothing_else_is_said(folder: Path) -> None:
    path = folder / "robustgate.toml"
    path.write_text(REST + BASE)
    assert load(path).gate.baseline == folder / "robustgate-baseline.json"
    path.write_text(REST + BASE + '[gate]\nbaseline = "kept/accepted.json"\n')
    assert load(path).gate.baseline == folder / "kept" / "accepted.json"
