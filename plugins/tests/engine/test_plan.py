"""The plan: which cases, under which names, judged by which rules; and what cannot be planned."""

from __future__ import annotations

import re

import pytest

from robustgate.core.errors import ConfigurationError
from robustgate.engine.plan import Plan

RULE = '\n[[policies.edge.rules]]\nname = "more"\n'
WAIVER = '\n[[policies.edge.waivers]]\nuntil = 2026-12-31\nreason = "ticket"\n'
OTHER_TUNING = (
    '\n[compressions.fp40]\nsteps = [{ method = "filter_pruning", ratio = 0.4, finetune = { epochs = 1 } }]\n'
)


def problems(planned, *changes: tuple[str, str], extra: str = "", policy: str | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        planned(*changes, extra=extra, policy=policy)
    return caught.value.problems


def judged_by(plan: Plan, rule: str) -> list[str]:
    return [name for name, rules in plan.policies[0].case_rules.items() if rule in [one.name for one in rules]]


def test_cases_stand_in_the_order_of_the_file_under_the_names_of_the_test_ids(planned) -> None:
    names = [case.name for case in planned().cases]
    per_compression = [
        "resnet18-{}-amazon",
        "resnet18-{}-amazon_to_webcam",
        "resnet18-{}-amazon-fog_s3",
        "resnet18-{}-amazon-fog_s1",
        "resnet18-{}-amazon-pgd",
        "resnet18-{}-amazon-far",
    ]
    compressions = ["none", "control", "fp60", "fp60_ptsq", "fp25"]
    assert names == [name.format(compression) for compression in compressions for name in per_compression]


def test_variants_are_models_by_sources_by_compressions(planned) -> None:
    more = '\n[models.net]\nbuild = "a:b"\nnormalize = "inside"\nweights = { webcam = "webcam.safetensors" }\n'
    plan = planned(('{ amazon = "amazon', '{ webcam = "webcam.safetensors", amazon = "amazon'), extra=more)
    assert [variant.name for variant in plan.variants[::5]] == [
        "resnet18-none-webcam",
        "resnet18-none-amazon",
        "net-none-webcam",
    ]
    # The pair starts from amazon: variants trained on webcam are not measured on it.
    pairs = {case.variant.source for case in plan.cases if case.shift.kind == "domain_shift"}
    assert pairs == {"amazon"}
    assert len(plan.cases) == 5 * (6 + 5 + 5)


def test_all_pairs_are_those_that_some_model_serves(planned) -> None:
    plan = planned(('[["amazon", "webcam"]]', '"all"'))
    assert plan.configuration.pairs == (("amazon", "webcam"),)
    other = planned(('[["amazon", "webcam"]]', '"all"'), ("{ amazon = ", "{ webcam = "))
    assert other.configuration.pairs == (("webcam", "amazon"),)


def test_shifts_say_what_is_done(planned) -> None:
    pair, fog, _, pgd, far = [case.shift for case in planned().cases[1:6]]
    assert (pair.kind, pair.target, pair.phrase) == ("domain_shift", "webcam", "on webcam")
    assert (fog.kind, fog.corruption, fog.severity) == ("corruption", "fog", 3)
    assert (pgd.attack, pgd.norm, pgd.eps, pgd.detail) == ("pgd", "linf", 0.004, "linf, eps 0.004, 40 steps")
    assert far.detail == "l2, eps 0.25, 10 steps"


# Controls.


def test_one_control_serves_all_that_had_the_same_fine_tuning(planned) -> None:
    plan = planned()
    assert plan.controls == {"fp60": "control", "fp60_ptsq": "control"}
    (step,) = plan.chains["control"]
    assert (step.method, step.component) == (None, None)
    assert step.finetune == plan.chains["fp60"][0].finetune
    assert plan.chains["none"] == ()


def test_two_steps_that_fine_tune_make_a_control_that_had_both(planned) -> None:
    twice = '\n[compressions.twice]\nsteps = [{ use = "fp60" }, { use = "fp60" }]\n'
    plan = planned(extra=twice)
    assert plan.controls == {"fp60": "control_fp60", "fp60_ptsq": "control_fp60", "twice": "control_twice"}
    assert len(plan.chains["control_twice"]) == 2


def test_controls_are_named_apart_where_fine_tunings_differ(planned) -> None:
    plan = planned(extra=OTHER_TUNING)
    assert plan.controls == {"fp60": "control_fp60", "fp60_ptsq": "control_fp60", "fp40": "control_fp40"}
    assert [name for name in plan.chains if name.startswith("control")] == ["control_fp60", "control_fp40"]
    (step,) = plan.chains["control_fp40"]
    assert step.finetune.epochs == 1


def test_no_control_where_nothing_fine_tunes(planned) -> None:
    plan = planned((", finetune = { epochs = 5 }", ""))
    assert plan.controls == {}
    assert [variant.compression for variant in plan.variants] == ["none", "fp60", "fp60_ptsq", "fp25"]


def test_opponents_are_the_same_shift_of_other_compressions(planned) -> None:
    plan = planned()
    cases = {case.name: case for case in plan.cases}
    pruned = plan.opponents(cases["resnet18-fp60-amazon-fog_s3"])
    assert pruned == {
        "reference": cases["resnet18-none-amazon-fog_s3"],
        "control": cases["resnet18-control-amazon-fog_s3"],
    }
    assert plan.opponents(cases["resnet18-fp25-amazon"]) == {"reference": cases["resnet18-none-amazon"]}
    assert plan.opponents(cases["resnet18-control-amazon"]) == {"reference": cases["resnet18-none-amazon"]}
    assert plan.opponents(cases["resnet18-none-amazon"]) == {}


# Rules.


def test_a_floor_judges_every_case_that_its_where_selects(planned) -> None:
    assert len(judged_by(planned(), "floor")) == 30
    where = 'where = { attack = "*", compression = "fp60*" }\n'
    assert judged_by(planned(extra=f"{RULE}{where}min = 0.1"), "more") == [
        f"resnet18-{compression}-amazon-{attack}" for compression in ("fp60", "fp60_ptsq") for attack in ("pgd", "far")
    ]


def test_a_drop_never_judges_the_reference_itself(planned) -> None:
    plan = planned(extra=f"{RULE}max_drop = 0.1")
    judged = judged_by(plan, "more")
    assert len(judged) == 24
    assert not [name for name in judged if "-none-" in name]
    assert "resnet18-control-amazon" in judged


def test_a_drop_from_the_control_judges_only_what_has_one(planned) -> None:
    plan = planned(extra=f'{RULE}max_drop = 0.1\nmax_drop_from = "control"')
    assert {name.split("-")[1] for name in judged_by(plan, "more")} == {"fp60", "fp60_ptsq"}


def test_rules_keep_the_order_of_the_file(planned) -> None:
    plan = planned(extra=f"{RULE}max_drop = 0.1")
    assert [rule.name for rule in plan.policies[0].case_rules["resnet18-fp60-amazon"]] == ["floor", "more"]
    assert [rule.name for rule in plan.policies[0].case_rules["resnet18-none-amazon"]] == ["floor"]


def test_a_rule_on_variants_selects_variants(planned) -> None:
    plan = planned(extra=f'{RULE}rule = "size"\nmax = "3 MB"\nwhere = {{ compression = "*ptsq" }}')
    assert {name: [rule.name for rule in rules] for name, rules in plan.policies[0].run_rules.items()} == {
        "resnet18-fp60_ptsq-amazon": ["more"]
    }
    assert not judged_by(plan, "more")


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (
            RULE + 'min = 0.1\nwhere = { attack = "pdg" }',
            "policies.edge: rule 'more' selects no case: where.attack = 'pdg' (did you mean 'pgd'?); known: far, pgd",
        ),
        (
            RULE + 'rule = "size"\nmax = "3 MB"\nwhere = { compression = "fp6" }',
            "policies.edge: rule 'more' selects no case: where.compression = 'fp6' (did you mean 'fp60'?); "
            "known: control, fp25, fp60, fp60_ptsq, none",
        ),
        (
            WAIVER + 'where = { target = "web" }',
            "policies.edge: waiver selects no case: where.target = 'web' (did you mean 'webcam'?); known: webcam",
        ),
        (
            # Each alone selects something; together they do not.
            RULE + 'min = 0.1\nwhere = { attack = "pgd", kind = "corruption" }',
            "policies.edge: rule 'more' selects no case: no case has all of "
            "{'attack': 'pgd', 'kind': 'corruption'} (a drop is judged neither on the reference itself "
            "nor, from a control, on what does not fine-tune)",
        ),
        (
            RULE + 'max_drop = 0.1\nwhere = { compression = "none" }',
            "policies.edge: rule 'more' selects no case: no case has all of "
            "{'compression': 'none'} (a drop is judged neither on the reference itself "
            "nor, from a control, on what does not fine-tune)",
        ),
    ],
)
def test_a_rule_or_waiver_that_selects_nothing_is_told_with_the_nearest_name(planned, extra, expected) -> None:
    assert problems(planned, extra=extra) == (expected,)


def test_a_drop_from_a_control_that_nothing_has_says_so(planned) -> None:
    (problem,) = problems(
        planned, (", finetune = { epochs = 5 }", ""), extra=f'{RULE}max_drop = 0.1\nmax_drop_from = "control"'
    )
    assert "from a control, on what does not fine-tune" in problem


def test_a_long_list_of_names_is_cut(planned) -> None:
    (problem,) = problems(planned, extra=f'{RULE}min = 0.1\nwhere = {{ name = "resnet18-fp60-amzon" }}')
    assert "(did you mean 'resnet18-fp60-amazon'?); known: resnet18-control-amazon, " in problem
    assert problem.endswith(" and 10 more")


# What cannot be planned.


@pytest.mark.parametrize(
    ("change", "twice"),
    [
        (("[attacks.pgd]", "[attacks.fog_s3]"), "resnet18-none-amazon-fog_s3"),
        (('"webcam"]]', '"webcam"], ["amazon", "webcam"]]'), "resnet18-none-amazon_to_webcam"),
        (("[3, 1]", "[3, 3]"), "resnet18-none-amazon-fog_s3"),
    ],
    ids=["an attack called like a corruption", "a pair given twice", "a severity given twice"],
)
def test_two_cases_of_one_name_are_refused(planned, change, twice) -> None:
    found = problems(planned, change)
    assert found[0].startswith(f"two cases are called {twice!r}")
    assert len(found) == 5, "one for each compression"


def test_domains_whose_pairs_join_to_one_name_are_refused(planned) -> None:
    both = [
        ("domains.webcam", "domains.b_to_c"),
        ('[["amazon", "webcam"]]', '[["amazon", "b_to_c"], ["amazon_to_b", "c"]]'),
        ("[models.", '[domains.c]\nkind = "npz"\nfiles = { test = "a" }\n[models.'),
        ("[models.", '[domains.amazon_to_b]\nkind = "npz"\nfiles = { test = "a" }\n[models.'),
        ("{ amazon = ", '{ amazon_to_b = "webcam.safetensors", amazon = '),
    ]
    assert problems(planned, *both)[0].startswith("two cases are called 'resnet18-none-amazon_to_b_to_c'")


def test_a_pair_that_no_model_serves_is_told(planned) -> None:
    assert problems(planned, ('["amazon", "webcam"]', '["webcam", "amazon"]')) == (
        "shifts.pairs: webcam → amazon: no model has weights for 'webcam'; sources: amazon",
    )


def test_everything_that_is_wrong_is_told_at_once_with_the_file(planned, tmp_path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned(
            ('"webcam"]]', '"webcam"], ["webcam", "amazon"]]'),
            ("min = 0.4", 'min = 0.4\nwhere = { model = "vgg" }'),
            extra=WAIVER + 'where = { compression = "fp61" }',
        )
    assert len(caught.value.problems) == 3
    assert str(caught.value).startswith(f"{tmp_path / 'robustgate.toml'}: 3 mistakes\n  ")


# The choice of a policy.

LAB = '\n[policies.lab]\n[[policies.lab.rules]]\nname = "low"\nmin = 0.1\n'


def test_an_only_policy_needs_no_choice(planned) -> None:
    assert planned().policy_names == ("edge",)


def test_a_policy_is_chosen_by_the_file_and_the_caller_overrides_it(planned) -> None:
    gate = '\n[gate]\npolicy = "lab"\n'
    assert planned(extra=LAB + gate).policy_names == ("lab",)
    chosen = planned(extra=LAB + gate, policy="edge")
    assert chosen.policy_names == ("edge",)
    assert {rule.name for rules in chosen.policies[0].case_rules.values() for rule in rules} == {"floor"}


def test_several_policies_and_no_choice_is_an_error(planned) -> None:
    (problem,) = problems(planned, extra=LAB)
    assert re.fullmatch(r"several policies and none chosen: set gate\.policy or .*; known: edge, lab", problem)


def test_an_unknown_policy_is_told_with_the_nearest_name(planned) -> None:
    assert problems(planned, extra=LAB, policy="egde") == ("no policy 'egde' (did you mean 'edge'?); known: edge, lab",)


def test_a_policy_that_was_not_chosen_may_select_nothing_here(planned) -> None:
    idle = LAB.replace("min = 0.1", 'min = 0.1\nwhere = { attack = "pdg" }')
    assert planned(extra=idle, policy="edge").policy_names == ("edge",)


def test_ten_thousand_cases(planned) -> None:
    attacks = "".join(f'\n[attacks.a{index}]\nmethod = "fgsm"\neps = 0.{index:04}\n' for index in range(1, 1995))
    plan = planned(extra=attacks)
    assert len(plan.cases) == len(plan.policies[0].case_rules) == 5 * (6 + 1994) == 10_000
