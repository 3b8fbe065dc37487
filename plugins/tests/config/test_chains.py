"""Chains of steps: presets, rounds, files made elsewhere, and what a chain can keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustgate.config import Configuration, load
from robustgate.core.errors import ConfigurationError
from robustgate.training.supervised import Supervised

BASE = """
[domains.day]
kind = "npz"
files = { test = "day.npz" }
[models.small]
build = "robustgate.zoo:cifar_resnet"
normalize = "inside"
weights = { day = "small.safetensors" }
[models.big]
build = "robustgate.zoo:cifar_resnet"
normalize = "inside"
weights = { day = "big.safetensors" }
[policies.edge]
[[policies.edge.rules]]
name = "floor"
min = 0.4
"""
PRUNE = '{ method = "magnitude_pruning", sparsity = 0.5, finetune = { epochs = 2 } }'
CLUSTER = '{ method = "weight_clustering", clusters = 16 }'
TRAIN = '{ method = "quantization_aware_training", finetune = { epochs = 1 } }'
SIMULATE = '{ method = "quantization_aware_training", simulated = true, finetune = { epochs = 1 } }'
QUANTIZE = '{ method = "static_quantization" }'


@pytest.fixture
def read(tmp_path: Path):
    for name in ("small", "big"):
        (tmp_path / f"{name}.safetensors").touch()

    def configuration(compressions: str) -> Configuration:
        path = tmp_path / "robustgate.toml"
        path.write_text(compressions + BASE)
        return load(path)

    return configuration


def chain(*steps: str) -> str:
    return f"compressions.made.steps = [{', '.join(steps)}]\n"


def complaint(read, compressions: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(compressions)
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]


# What a chain keeps.


@pytest.mark.parametrize(
    "steps",
    [
        (PRUNE, CLUSTER, SIMULATE, QUANTIZE),
        (PRUNE, CLUSTER, TRAIN),
        (CLUSTER, QUANTIZE),
        (PRUNE, PRUNE.replace("0.5", "0.7"), CLUSTER),
        ('{ method = "low_rank", ratio = 0.5 }', PRUNE, QUANTIZE),
        (CLUSTER, '{ method = "filter_pruning", ratio = 0.5 }'),
    ],
)
def test_an_order_that_keeps_what_was_made_is_taken(read, steps: tuple[str, ...]) -> None:
    assert len(read(chain(*steps)).compressions["made"]) == len(steps)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ((PRUNE, '{ method = "low_rank", ratio = 0.5 }'), "low_rank cannot keep the zeros that magnitude_pruning made"),
        ((CLUSTER, PRUNE), "magnitude_pruning cannot keep the clusters that weight_clustering made"),
        (
            (PRUNE, CLUSTER.replace("16", "16, preserve_sparsity = false")),
            "weight_clustering cannot keep the zeros that magnitude_pruning made",
        ),
        ((SIMULATE, CLUSTER), "weight_clustering cannot keep the quantizers that quantization_aware_training made"),
        ((CLUSTER, '{ method = "dynamic_quantization" }'), "dynamic_quantization cannot keep the clusters"),
    ],
)
def test_a_chain_that_cannot_keep_what_was_made_is_an_error(read, steps: tuple[str, ...], told: str) -> None:
    found = complaint(read, chain(*steps))
    assert found.startswith(f"compressions.made.steps: {told}")
    assert "before it" in found


def test_a_constraint_is_kept_across_use_too(read) -> None:
    compressions = f"compressions.p.steps = [{PRUNE}]\n" + chain(
        '{ use = "p" }', '{ method = "low_rank", ratio = 0.5 }'
    )
    assert "compressions.made.steps: low_rank cannot keep the zeros" in complaint(read, compressions)


def test_nothing_follows_a_file(read) -> None:
    told = "compressions.made.steps: quantization_aware_training ends in a file, which no further step can change"
    with pytest.raises(ConfigurationError) as caught:
        read(chain(TRAIN, QUANTIZE))
    assert told in caught.value.problems


def test_training_aware_of_quantization_needs_a_training(read) -> None:
    told = complaint(read, chain('{ method = "quantization_aware_training" }'))
    assert told == (
        "compressions.made.steps[0]: quantization_aware_training is made by its fine-tuning: "
        "give finetune = { epochs = ... }"
    )


# Rounds.


def test_rounds_become_steps_each_with_its_fine_tuning(read) -> None:
    steps = read(chain('{ method = "filter_pruning", ratio = 0.488, rounds = 3, finetune = { epochs = 1 } }'))
    made = steps.compressions["made"]
    assert [step.component.rounds for step in made] == [3, 2, 1]
    assert [step.finetune for step in made] == [Supervised(epochs=1)] * 3
    # Each round removes 1 - (1 - 0.488)^(1/3) = 0.2 of what is left; the last one's own ratio is that.
    assert made[-1].component.ratio == pytest.approx(0.2)


# The preset.

SIXTEEN = {
    f"{name}{suffix}"
    for name in ("", "pruned", "clustered", "pruned_clustered", "qat", "pqat", "cqat", "pcqat")
    for suffix in ("", "_int8")
} - {"", "_int8"} | {"int8"}


def test_the_preset_is_the_sixteen_configurations_of_the_study(read) -> None:
    made = read('compressions = { preset = "clustered-pruned-quantized" }\n').compressions
    assert made.keys() == SIXTEEN  # the sixteenth is the reference
    assert [step.method for step in made["pcqat_int8"]] == [
        "magnitude_pruning",
        "weight_clustering",
        "quantization_aware_training",
        "static_quantization",
    ]
    assert made["pruned"][0].component.sparsity == 0.5
    assert made["clustered"][0].component.clusters == 16
    # A configuration and its 8-bit file share every step but the last.
    for name in SIXTEEN - {"int8"}:
        if not name.endswith("_int8"):
            assert made[f"{name}_int8"][:-1] == made[name]


def test_the_presets_fine_tuning_is_one_s_own_choice(read) -> None:
    preset = '{ name = "clustered-pruned-quantized", finetune = { epochs = 1, lr = 0.125 } }'
    made = read(f"compressions.preset = {preset}\n{chain(QUANTIZE)}").compressions
    recipes = {step.finetune for steps in made.values() for step in steps} - {None}
    assert recipes == {Supervised(epochs=1, lr=0.125)}
    assert made.keys() == SIXTEEN | {"made"}


@pytest.mark.parametrize(
    ("compressions", "told"),
    [
        (
            'compressions = { preset = "clustered-pruned" }\n',
            "compressions.preset: no preset 'clustered-pruned' (did you mean 'clustered-pruned-quantized'?); known: "
            "clustered-pruned-quantized",
        ),
        (
            'compressions.preset = { name = "clustered-pruned-quantized", finetuned = 1 }\n',
            "compressions.preset: unknown key 'finetuned' (did you mean 'finetune'?); known: finetune, name",
        ),
        (
            f'compressions.preset = "clustered-pruned-quantized"\ncompressions.pcqat_int8.steps = [{QUANTIZE}]\n',
            "compressions.pcqat_int8: the preset 'clustered-pruned-quantized' has a compression of that name too",
        ),
    ],
)
def test_a_mistake_about_a_preset_is_told(read, compressions: str, told: str) -> None:
    assert complaint(read, compressions) == told


# Files made elsewhere, and other models.


def test_a_file_made_elsewhere_is_a_step_of_its_own(read, tmp_path: Path) -> None:
    (tmp_path / "vendor.onnx").touch()
    made = read('[compressions.vendor]\nartifact = { small = { day = "vendor.onnx" } }\ninput = { layout = "nhwc" }\n')
    (step,) = made.compressions["vendor"]
    assert (step.method, step.finetune) == ("artifact", None)
    assert step.component.files == {"small": {"day": tmp_path / "vendor.onnx"}}
    assert step.component.input.layout == "nhwc"
    assert (step.component.serves("small", "day"), step.component.serves("big", "day")) == (True, False)


@pytest.mark.parametrize(
    ("compressions", "told"),
    [
        (
            'artifact = { smal = { day = "vendor.onnx" } }',
            "compressions.vendor.artifact: no model 'smal' (did you mean 'small'?); known: big, small",
        ),
        (
            'artifact = { small = { night = "vendor.onnx" } }',
            "compressions.vendor.artifact.small: no source domain 'night'; known: day",
        ),
        (
            'artifact = { small = { day = "gone.onnx" } }',
            "compressions.vendor.artifact.small.day: no such file: {folder}/gone.onnx",
        ),
        (
            'artifact = { small = { day = "vendor.onnx" } }\nsteps = []',
            "compressions.vendor: unknown key 'steps'; known: artifact, input",
        ),
    ],
)
def test_a_mistake_about_a_file_is_told_with_the_keys_of_the_table(read, tmp_path: Path, compressions, told) -> None:
    (tmp_path / "vendor.onnx").touch()
    assert complaint(read, f"[compressions.vendor]\n{compressions}\n") == told.format(folder=tmp_path)


def test_a_teacher_must_be_a_model_of_the_configuration(read) -> None:
    step = '{ method = "distillation", teacher = "huge", training = { epochs = 1 } }'
    assert complaint(read, chain(step)) == "compressions.made: no model 'huge'; known: big, small"
    (made,) = read(chain(step.replace("huge", "big"))).compressions["made"]
    assert made.component.models == ("big",)
