"""Policies whose rules or waivers say nothing, each with what is said of it; and policies of which nothing is said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from robustgate.engine import lint as module
from robustgate.engine.lint import lint
from robustgate.statistics.proportion import clopper_pearson

TODAY = date(2026, 6, 15)


def rule(name: str, text: str, policy: str = "edge") -> str:
    return f'\n[[policies.{policy}.rules]]\nname = "{name}"\n{text}\n'


def waiver(until: str, where: str) -> str:
    return f'\n[[policies.edge.waivers]]\nwhere = {{ {where} }}\nuntil = {until}\nreason = "ticket 1"\n'


def found(planned, extra: str = "", sizes: dict[str, int] | None = None, policy: str | None = None) -> list[str]:
    return lint(planned(extra=extra, policy=policy), TODAY, sizes)


def test_nothing_is_said_of_a_policy_that_means_what_it_says(planned) -> None:
    assert found(planned) == []
    sound = [
        rule("higher for the reference", 'where = { compression = "none" }\nmin = 0.9'),
        rule("drop", 'where = { compression = "fp*" }\nmax_drop = 0.05'),
        rule("drop from control", 'max_drop = 0.05\nmax_drop_from = "control"'),
        rule("size", 'rule = "size"\nmax = "3 MB"'),
        rule("corruption", 'rule = "worst_corruption"\nmin = 0.3'),
        rule("ratio", 'rule = "compression_ratio"\nmin = 2.0\nwhere = { compression = "fp25" }'),
        waiver("2026-06-15", 'attack = "pgd"'),
        waiver("2026-07-01", 'compression = "fp25"'),
    ]
    assert found(planned, "".join(sound)) == []


# Limits that nothing breaks.


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('where = { attack = "pgd" }\nmin = 0', "min 0 %"),
        ("max_drop = 1", "max_drop 100 points"),
        ('rule = "worst_corruption"\nmin = 0', "min 0 %"),
        ('rule = "agreement"\nmin = 0', "min 0 %"),
        ('rule = "relative_robustness"\nmin = -1', "min -100 points"),
        ('rule = "mean_corruption_accuracy"\nmax_drop = 1', "max_drop 100 points"),
        ('rule = "retention"\nmin = 0.5\nfloor = 0', "floor 0 %"),
    ],
)
def test_a_limit_that_nothing_can_break(planned, text: str, label: str) -> None:
    assert found(planned, rule("idle", text)) == [
        f"policy edge: rule 'idle': {label} cannot be broken: no figure is on the wrong side of it"
    ]


def test_each_limit_of_a_rule_is_looked_at_alone(planned) -> None:
    assert found(planned, rule("half", 'where = { kind = "clean" }\nmin = 0.5\nmax_drop = 1')) == [
        "policy edge: rule 'half': max_drop 100 points cannot be broken: no figure is on the wrong side of it"
    ]


def test_a_floor_that_others_exceed_on_every_case(planned) -> None:
    clean = rule("clean", 'where = { kind = "clean" }\nmin = 0.8')
    rest = rule("rest", 'where = { kind = "[!c]*" }\nmin = 0.4')  # as high as the first one, and after it
    fog = rule("fog", 'where = { corruption = "fog" }\nmin = 0.3')
    assert found(planned, clean + rest + fog) == [
        "policy edge: rule 'rest': min 40 % says nothing: rule 'floor' asks for more on all that it judges",
        "policy edge: rule 'fog': min 30 % says nothing: rule 'floor' asks for more on all that it judges",
    ]
    both = rule("clean", 'where = { kind = "clean" }\nmin = 0.8') + rule(
        "else", 'where = { kind = "[!c]*" }\nmin = 0.5'
    )
    corrupted = rule("corrupted", 'where = { corruption = "*" }\nmin = 0.6')
    assert found(planned, both + corrupted) == [
        "policy edge: rule 'floor': min 40 % says nothing: rule 'clean' and rule 'else' and rule 'corrupted' ask for "
        "more on all that it judges"
    ]


def test_drops_are_compared_where_they_are_from_the_same_variant(planned) -> None:
    weak = rule("weak", 'where = { compression = "fp60" }\nmax_drop = 0.1')
    assert found(planned, weak + rule("strong", "max_drop = 0.05\nmax_drop_from = 'control'")) == []
    assert found(planned, weak + rule("strong", "max_drop = 0.05")) == [
        "policy edge: rule 'weak': max_drop 10 points says nothing: rule 'strong' asks for more on all that it judges"
    ]


def test_limits_on_variants_are_compared_where_they_are_on_one_figure(planned) -> None:
    small, large = rule("3 MB", 'rule = "size"\nmax = "3 MB"'), rule("4 MB", 'rule = "size"\nmax = "4 MB"')
    assert found(planned, small + large) == [
        "policy edge: rule '4 MB': max 4 MB says nothing: rule '3 MB' asks for more on all that it judges"
    ]
    assert found(planned, small + large.replace("size", "memory")) == []
    on_clean = rule("on clean", 'rule = "worst_class"\nmin = 0.1')
    over_corruptions = rule("over corruptions", 'rule = "worst_class"\nmin = 0.3\nover = "corruptions"')
    assert found(planned, on_clean + over_corruptions) == []


# Limits that nothing holds.


def test_a_floor_of_one_hundred_percent_is_shown_by_no_sample(planned) -> None:
    perfect = rule("perfect", "min = 1.0")
    assert [line for line in found(planned, perfect) if "perfect': min" in line] == [], "a fact, if it is one"
    population = '\n[policies.new]\nscope = "population"\n' + rule("perfect", "min = 1.0", "new")
    assert found(planned, population, policy="new") == [
        "policy new: rule 'perfect': min 100 % cannot be satisfied: however many samples there are, they leave room "
        "below the highest figure of all"
    ]
    for lenient in ('prove = "bad"', 'on_undecided = "pass"'):
        named = population.replace('scope = "population"', f'scope = "population"\n{lenient}')
        assert found(planned, named, policy="new") == []


def test_a_floor_above_what_a_result_without_a_mistake_proves(planned) -> None:
    n, edge = 300, clopper_pearson(300, 300, 0.99).low
    assert 0.98 < edge < 0.983
    population = '\n[policies.new]\nscope = "population"\n'
    for limit, lines in ((edge - 1e-6, 0), (edge + 1e-6, 1)):
        extra = population + rule("high", f'where = {{ kind = "clean" }}\nmin = {limit!r}', "new")
        sizes = {f"resnet18-{one}-amazon": n for one in ("none", "control", "fp60", "fp60_ptsq", "fp25")}
        told = found(planned, extra, sizes, policy="new")
        assert len(told) == lines
        assert all("a result without a mistake shows no more than 98.2 %" in line for line in told)
        few = found(planned, extra, {**dict.fromkeys(sizes, 10_000), "resnet18-fp25-amazon": 10}, policy="new")
        assert len(few) == 1
        assert "cannot be satisfied on resnet18-fp25-amazon: a result without a mistake" in few[0]
        assert found(planned, extra, policy="new") == [], "how many samples there are is not known"


@dataclass(frozen=True, kw_only=True)
class Zeros:
    """A third party's rule: its limit is the least value or the largest, as one asks."""

    kind: str
    limit: float
    metric: str = "zeros"
    measures: None = None

    @property
    def limit_kind(self) -> str:
        return self.kind

    def show(self, value: float) -> str:
        return f"{value:g}"


def test_rules_that_no_variant_can_keep_together(planned, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = rule("most", 'rule = "size"\nmax = "3 MB"\nwhere = { compression = "fp25" }') + rule(
        "least", 'rule = "size"\nmax = "5 MB"\nwhere = { compression = "fp*" }'
    )
    plan = planned(extra=limits)
    components: dict[str, Any] = {"most": Zeros(kind="max", limit=3), "least": Zeros(kind="min", limit=5)}
    for rules in plan.policies[0].run_rules.values():
        for one in rules:
            object.__setattr__(one, "component", components[one.name])
    assert lint(plan, TODAY) == [
        "policy edge: rule 'least': min 5 and rule 'most': max 3 contradict each other on 'resnet18-fp25-amazon'"
    ]
    monkeypatch.setitem(components, "least", Zeros(kind="min", limit=3))
    for rules in plan.policies[0].run_rules.values():
        for one in rules:
            object.__setattr__(one, "component", components[one.name])
    assert lint(plan, TODAY) == []


def test_a_figure_that_is_never_so_high_cannot_hold() -> None:
    common = {"rule": "r", "label": "l", "subject": "s", "figure": ("f",), "provable": 1.0}
    for kind, limit, can_break, can_hold in (
        ("min", -0.1, False, True),
        ("min", 0.0, False, True),
        ("min", 0.5, True, True),
        ("min", 1.0, True, True),
        ("min", 1.1, True, False),
        ("max", -0.1, True, False),
        ("max", 0.0, True, True),
        ("max", 1.0, False, True),
        ("max_drop", 1.0, False, True),
    ):
        one = module.Limit(**common, kind=kind, limit=limit, least=0.0, most=1.0)
        assert (one.can_break, one.can_hold) == (can_break, can_hold), (kind, limit)


# Waivers.


def test_a_waiver_that_has_expired(planned) -> None:
    assert found(planned, waiver("2026-06-15", 'attack = "pgd"')) == [], "it holds on its last day"
    assert found(planned, waiver("2026-06-14", 'attack = "pgd"')) == [
        "policy edge: waiver of {'attack': 'pgd'} until 2026-06-14 has expired: renew it or take it out"
    ]


def test_a_waiver_of_what_no_rule_can_turn_red(planned) -> None:
    lab = '\n[policies.lab]\n[[policies.lab.rules]]\nname = "clean"\nmin = 0.1\nwhere = { kind = "clean" }\n'
    lab += rule("idle", 'min = 0\nwhere = { attack = "far" }', "lab")
    covers = waiver("2026-07-01", 'attack = "*"').replace("edge", "lab")
    assert found(planned, lab + covers, policy="lab")[1:] == [
        "policy lab: waiver of {'attack': '*'} until 2026-07-01 covers nothing: no rule that can be broken judges what "
        "it selects"
    ]
    assert found(planned, lab + covers.replace('attack = "*"', 'compression = "fp25"'), policy="lab")[1:] == []


def test_a_waiver_of_the_checks_for_masking_covers_something(planned) -> None:
    text = '\n[policies.lab]\n[[policies.lab.rules]]\nname = "clean"\nmin = 0.1\nwhere = { kind = "clean" }\n'
    text += waiver("2026-07-01", 'kind = "masking"').replace("edge", "lab")
    plan = planned(("enabled = false", "enabled = true"), extra=text, policy="lab")
    assert lint(plan, TODAY) == []


def test_a_waiver_of_a_rule_on_variants_covers_something(planned) -> None:
    text = '\n[policies.lab]\n[[policies.lab.rules]]\nname = "fits"\nrule = "size"\nmax = "3 MB"\n'
    assert (
        found(planned, text + waiver("2026-07-01", 'compression = "fp25"').replace("edge", "lab"), policy="lab") == []
    )


def test_a_waiver_that_a_later_one_covers(planned) -> None:
    late, early = waiver("2026-12-31", 'compression = "fp*"'), waiver("2026-07-01", 'compression = "fp25"')
    shadowed = (
        "policy edge: waiver of {'compression': 'fp25'} until 2026-07-01 covers nothing: the one until 2026-12-31 "
        "covers all that it does"
    )
    assert found(planned, late + early) == found(planned, early + late) == [shadowed]
    assert found(planned, waiver("2026-07-01", 'compression = "fp*"') + early.replace("07-01", "12-31")) == []
    assert len(found(planned, early + early)) == 1, "of two that are alike, one says nothing"


def test_the_policies_of_this_repository_are_sound(pytestconfig: pytest.Config) -> None:
    from robustgate.config import load
    from robustgate.engine.plan import make_plan

    plan = make_plan(load(pytestconfig.rootpath / "fixtures" / "robustgate.toml"))
    assert lint(plan, TODAY) == []
