"""Recipes in a configuration: alone as a step, with components of their own, and what they look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from robustgate.config import Configuration, load
from robustgate.config.schema import json_schema
from robustgate.core.errors import ConfigurationError
from robustgate.engine.plan import Plan, make_plan

BASE = """
[domains.day]
kind = "npz"
files = { train = "day.npz", test = "day.npz" }
[domains.night]
kind = "npz"
files = { train = "night.npz", test = "night.npz" }
[domains.stored]
kind = "npz"
files = { test = "night.npz" }
[models.small]
build = "robustgate.zoo:cifar_resnet"
normalize = "inside"
weights = { day = "small.safetensors" }
[shifts]
pairs = [["day", "night"]]
[policies.edge]
[[policies.edge.rules]]
name = "floor"
min = 0.4
"""
ADASAP = '{ recipe = "adasap", epochs = 4, flattening = 1, pruning_phase = 2, pruning = { parameters = "1k", scope = "global" } }'


@pytest.fixture
def read(tmp_path: Path):
    (tmp_path / "small.safetensors").touch()

    def configuration(*steps: str) -> Configuration:
        path = tmp_path / "robustgate.toml"
        path.write_text(f"compressions.made.steps = [{', '.join(steps)}]\n{BASE}")
        return load(path)

    return configuration


def tuned(recipe: str) -> str:
    return f"{{ finetune = {recipe} }}"


def problems(read, *steps: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(*steps)
    return list(caught.value.problems)


def plan_of(read, *steps: str) -> Plan:
    return make_plan(read(*steps), None)


def test_a_training_may_be_a_step_of_its_own(read) -> None:
    first, second = read(
        '{ method = "filter_pruning", ratio = 0.5 }', tuned('{ recipe = "sam", epochs = 3 }')
    ).compressions["made"]
    assert (first.method, first.finetune) == ("filter_pruning", None)
    assert (second.method, second.component, second.finetune.epochs) == (None, None, 3)
    assert type(second.finetune).__name__ == "Sam"


def test_what_stands_beside_a_lone_training_is_taken_for_a_step_s(read) -> None:
    told = problems(read, "{ finetune = { epochs = 1 }, ratio = 0.5 }")
    assert [one for one in told if one.startswith("compressions.made.steps[0].method: missing")]


def test_a_recipe_s_attack_is_read_with_all_its_mistakes(read) -> None:
    step = read(tuned('{ recipe = "adcorda", epochs = 1, attack = { method = "pgd", eps = 0.1 } }')).compressions[
        "made"
    ][0]
    assert (type(step.finetune.attack).__name__, step.finetune.attack.eps) == ("Pgd", 0.1)
    place = "compressions.made.steps[0].finetune.attack"
    (told,) = problems(read, tuned('{ recipe = "adcorda", epochs = 1, attack = { method = "pdg", eps = 0.1 } }'))
    assert told.startswith(f"{place}.method: ")
    assert "did you mean 'pgd'" in told or "pgd" in told
    (told,) = problems(read, tuned('{ recipe = "adcorda", epochs = 1, attack = { method = "pgd", eps = -1 } }'))
    assert told.startswith(f"{place}: eps")
    (told,) = problems(read, tuned('{ recipe = "adcorda", epochs = 1, attack = "pgd" }'))
    assert told == f"{place}: expected a table, got the text 'pgd'"


def test_a_recipe_prunes_by_filters_only(read) -> None:
    recipe = read(tuned(ADASAP)).compressions["made"][0].finetune
    assert (type(recipe.pruning).__name__, recipe.pruning.parameters) == ("FilterPruning", "1k")
    (told,) = problems(
        read,
        tuned(
            ADASAP.replace("{ parameters", '{ method = "low_rank", parameters').replace(
                'parameters = "1k", scope = "global"', "ratio = 0.5"
            )
        ),
    )
    assert told == (
        "compressions.made.steps[0].finetune.pruning.method: no step that training can repeat; those that it can: "
        "filter_pruning"
    )


def test_the_control_of_a_training_that_prunes_keeps_the_network_s_size(read) -> None:
    plan = plan_of(read, tuned(ADASAP))
    (step,) = plan.chains[plan.controls["made"]]
    made = plan.chains["made"][0].finetune
    assert step.finetune.pruning is None
    assert (step.finetune.epochs, step.finetune.rho_max) == (made.epochs, made.rho_max)


def test_a_domain_that_a_training_looks_at_judges_by_its_test_split_alone(read) -> None:
    coral = tuned('{ recipe = "deep_coral", target = "night", epochs = 1 }')
    for steps, split in (((coral,), "test"), ((tuned("{ epochs = 1 }"),), "whole")):
        plan = plan_of(read, *steps)
        assert plan.configuration.judging_split("night") == split
        details = {case.shift.detail for case in plan.cases if case.shift.kind == "domain_shift"}
        assert details == {"its test split: a training looks at the others" if split == "test" else None}


def test_a_domain_that_a_training_looks_at_must_be_there(read) -> None:
    (told,) = problems(read, tuned('{ recipe = "deep_coral", target = "nigth", epochs = 1 }'))
    assert told.startswith("compressions.made: no domain 'nigth' (did you mean 'night'?)")


def test_a_teacher_must_be_a_model_that_is_there(read) -> None:
    assert read(tuned('{ recipe = "distillation", epochs = 1 }')).compressions["made"][0].models == ()
    (told,) = problems(read, tuned('{ recipe = "distillation", teacher = "smal", epochs = 1 }'))
    assert told.startswith("compressions.made: no model 'smal' (did you mean 'small'?)")


@pytest.mark.parametrize(
    ("step", "holds"),
    [
        ({"finetune": {"epochs": 1}}, True),
        ({"finetune": {"recipe": "sam", "epochs": 1, "rho": 0.1}}, True),
        ({"finetune": {"recipe": "sam", "epochs": 1, "roh": 0.1}}, False),
        ({"finetune": {"epochs": 1}, "ratio": 0.5}, False),
        ({"finetune": {"recipe": "adcorda", "epochs": 1, "attack": {"method": "pgd", "eps": 0.1}}}, True),
        ({"finetune": {"recipe": "adcorda", "epochs": 1, "attack": {"method": "pgd", "epsilon": 0.1}}}, False),
        (
            {
                "finetune": {
                    "recipe": "adasap",
                    "epochs": 4,
                    "flattening": 1,
                    "pruning_phase": 2,
                    "pruning": {"parameters": "1k"},
                }
            },
            True,
        ),
        (
            {
                "finetune": {
                    "recipe": "adasap",
                    "epochs": 4,
                    "flattening": 1,
                    "pruning_phase": 2,
                    "pruning": {"method": "low_rank", "ratio": 0.5},
                }
            },
            False,
        ),
    ],
)
def test_the_schema_takes_what_the_reader_takes(step, holds: bool) -> None:
    document = {
        "domains": {"day": {"kind": "npz", "files": {"test": "day.npz"}}},
        "models": {"small": {"build": "a:b", "normalize": "inside", "weights": {"day": "w.safetensors"}}},
        "policies": {"edge": {"rules": [{"name": "floor", "min": 0.4}]}},
        "compressions": {"made": {"steps": [step]}},
    }
    assert Draft202012Validator(json_schema()).is_valid(document) is holds


def test_the_schema_describes_what_a_recipe_has_from_the_shared_loop() -> None:
    text = str(json_schema())
    assert "`label_smoothing` is cross-entropy's." in text
