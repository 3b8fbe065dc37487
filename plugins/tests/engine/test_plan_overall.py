"""Rules on outcomes in a plan: whom they judge, and what is refused before anything runs."""

from __future__ import annotations

import pytest

from robustgate.core.errors import ConfigurationError
from robustgate.engine.results import rules_of


def rule(name: str, settings: str, where: str = "") -> str:
    chosen = f"where = {{ {where} }}\n" if where else ""
    return f'\n[[policies.edge.rules]]\nname = "{name}"\n{chosen}rule = {settings}\n'


def refused(planned, extra: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        planned(extra=extra)
    return str(caught.value)


def test_what_compares_with_the_reference_judges_all_but_it(planned) -> None:
    plan = planned(
        extra=rule("mean", '"mean_corruption_accuracy"\nmin = 0.5')
        + rule("kept", '"agreement"\nmin = 0.9', 'compression = "fp*"')
        + rule("mce", '"mce"\nmax = 1.1\npartial = true')
    )
    assert {name: [one.name for one in rules] for name, rules in plan.policies[0].run_rules.items()} == {
        "resnet18-none-amazon": ["mean"],
        "resnet18-control-amazon": ["mean", "mce"],
        "resnet18-fp60-amazon": ["mean", "kept", "mce"],
        "resnet18-fp60_ptsq-amazon": ["mean", "kept", "mce"],
        "resnet18-fp25-amazon": ["mean", "kept", "mce"],
    }
    rules = plan.policies[0].run_rules["resnet18-fp60-amazon"]
    assert rules_of("overall", rules) == rules
    assert rules_of("cost", rules) == rules_of("latency", rules) == ()


def test_a_rule_that_compares_the_reference_with_itself_selects_nothing(planned) -> None:
    told = refused(planned, rule("mce", '"mce"\nmax = 1.1\npartial = true', 'compression = "none"'))
    assert "rule 'mce' selects no case" in told


def test_a_part_of_the_benchmark_is_refused_with_what_is_missing(planned) -> None:
    told = refused(planned, rule("mce", '"mce"\nmax = 1.1', 'compression = "fp*"'))
    assert "policies.edge: rule 'mce' on resnet18-fp25-amazon, resnet18-fp60-amazon" in told
    assert "mce is defined over the 15 corruptions of the benchmark at severities 1 to 5; the plan lacks" in told
    assert "the severities 2, 4, 5; partial = true" in told


def test_a_pair_that_does_not_start_here_is_missed(planned) -> None:
    extra = rule("far", '"worst_domain"\nmin = 0.5')
    changes = ('weights = { amazon = "amazon.safetensors" }', (
        'weights = { amazon = "amazon.safetensors", webcam = "webcam.safetensors" }'
    ))  # fmt: skip
    with pytest.raises(ConfigurationError) as caught:
        planned(changes, extra=extra)
    assert "rule 'far' on resnet18-control-webcam, " in str(caught.value)
    assert "it needs a domain pair from this source, and shifts.pairs has none" in str(caught.value)
    assert (
        planned(changes, extra=extra.replace("rule = ", 'where = { source = "amazon" }\nrule = ')).policies[0].run_rules
    )


def test_a_line_needs_three_models_or_to_be_given(planned) -> None:
    told = refused(planned, rule("rho", '"effective_robustness"\nmin = -0.02'))
    assert "it needs at least 3 uncompressed models of the source domain, and there is 1" in told
    given = rule("rho", '"effective_robustness"\nmin = -0.02\nslope = 0.7\nintercept = -0.9')
    assert planned(extra=given).policies[0].run_rules["resnet18-none-amazon"]


@pytest.mark.parametrize("settings", ['"relative_mce"\nmax = 1.0', '"retention"\nmin = 0.7'])
def test_what_rewards_collapse_never_stands_without_its_floor(planned, settings: str) -> None:
    assert "missing key 'floor', expected a number" in refused(planned, rule("relative", settings))
