"""Chains through the engine: what a step made is there in the artifact that ships, after every training."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

from robustgate.config import load
from robustgate.core.components import Network
from robustgate.core.errors import CompressionError
from robustgate.core.records import Variant
from robustgate.engine.course import Course
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.training.supervised import Supervised
from robustgate.zoo import cifar_resnet

PRESET = """
[models.resnet]
build = "robustgate.zoo:cifar_resnet"
args = { depth = 8, num_classes = 2, width = 4 }
normalize = { mean = [0.4, 0.5, 0.6], std = [0.2, 0.3, 0.4] }
weights = { day = "resnet.safetensors" }
[compressions]
preset = { name = "clustered-pruned-quantized", finetune = { epochs = 2, lr = 0.02, batch_size = 16 } }
"""
FILES = [name for one in ("pruned", "clustered", "pruned_clustered") for name in (one, f"{one}_int8")]
TRAINED = [f"{name}{suffix}" for name in ("qat", "pqat", "cqat", "pcqat") for suffix in ("", "_int8")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests of this file: the same files give the same keys."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def gate(tiny, cache: Path) -> Gate:
    torch.manual_seed(0)
    module = cifar_resnet(depth=8, num_classes=2, width=4).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, -1.5, 1.5)  # negative factors too
            torch.nn.init.normal_(layer.bias)
    save_file(module.state_dict(), tiny.folder / "resnet.safetensors")
    path = tiny.configure(("[compressions.fp25]", PRESET + "[compressions.fp25]"), ('"cache"', f'"{cache}"'))
    return Gate(make_plan(load(path)), today=date(2026, 1, 1))


def variant(compression: str) -> Variant:
    return Variant(model="resnet", source="day", compression=compression)


def weights_of(gate: Gate, compression: str) -> dict[str, np.ndarray]:
    """Return the weights of an artifact by name, those of a file as its codes."""
    file: Path = gate.foundry.artifact(variant(compression)).file
    if file.suffix == ".safetensors":
        return {name: value.numpy() for name, value in load_file(file).items() if value.dim() >= 2}
    constants = {one.name: numpy_helper.to_array(one) for one in onnx.load(file).graph.initializer}
    codes = {name: value for name, value in constants.items() if value.ndim >= 2 and value.dtype == np.int8}
    return {name.removesuffix("_quantized"): value for name, value in codes.items()}


@pytest.mark.parametrize("compression", [*FILES, *TRAINED])
def test_pruned_weights_are_zero_and_clusters_are_clusters_in_what_ships(gate: Gate, compression: str) -> None:
    weights = weights_of(gate, compression)
    assert len(weights) == 8  # seven convolutions, one classifier
    for name, values in weights.items():
        if compression.startswith("p"):
            assert (values == 0).sum() >= values.size / 2, name
        if "clustered" in compression or "c" in compression.removesuffix("_int8"):
            assert len(np.unique(values)) <= 16, name


def test_the_promises_do_not_hold_by_themselves(gate: Gate) -> None:
    for compression in ("none", "int8", "qat_int8"):
        weights = weights_of(gate, compression)
        assert not any((values == 0).mean() >= 0.5 for values in weights.values())
        assert any(len(np.unique(values)) > 16 for values in weights.values())


@pytest.mark.parametrize("compression", ["qat", "pcqat"])
def test_a_simulated_network_computes_what_the_file_that_is_written_of_it_says(gate: Gate, compression: str) -> None:
    images = torch.from_numpy(gate.library.samples("day", "test").images[:]).permute(0, 3, 1, 2).float() / 255
    simulated = gate.subject(variant(compression)).logits(images)
    # Against the file's own graph: how near that is to what ONNX Runtime makes of it is the twin's matter.
    shipped = gate.subject(variant(f"{compression}_int8")).differentiable()(images)
    torch.testing.assert_close(simulated, shipped, rtol=0, atol=1e-5)


def test_a_reloaded_simulated_network_answers_to_the_last_bit(gate: Gate, tiny) -> None:
    images = gate.foundry.example("day")
    before = gate.subject(variant("pcqat")).logits(images)
    again = Gate(gate.plan, today=date(2026, 1, 1))
    assert torch.equal(again.subject(variant("pcqat")).logits(images), before)


def test_every_fine_tuning_of_the_chain_is_in_its_control(gate: Gate) -> None:
    controls = gate.plan.controls
    assert [len(gate.plan.chains[controls[name]]) for name in ("pruned", "qat", "pqat", "pcqat_int8")] == [1, 1, 2, 3]
    assert "int8" not in controls


def test_a_training_that_moves_a_pruned_weight_is_found_out(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: a recipe that puts the weights of a copy, trained without the masks, back."""

    def careless(recipe: Supervised, network: Network, course: Course) -> Network:
        with torch.no_grad():
            for parameter in network.module.parameters():
                parameter.add_(1.0)
        return network

    monkeypatch.setattr(Supervised, "train", careless)
    steps = '{ method = "magnitude_pruning", sparsity = 0.5, finetune = { epochs = 1 } }'
    path = tiny.configure(extra=f"[compressions.sparse]\nsteps = [{steps}]\n")
    gate = Gate(make_plan(load(path)), today=date(2026, 1, 1))
    made = Variant(model="tiny", source="day", compression="sparse")
    state = load_file(gate.foundry.artifact(made).file)
    # The masks hold although the recipe moved everything.
    assert sum(int((value == 0).sum()) for value in state.values() if value.dim() >= 2) == 10


def test_a_step_that_breaks_its_promise_is_an_error(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustgate.compression.filter_pruning import FilterPruning

    apply = FilterPruning.apply

    def broken(step, network, workshop):
        made = apply(step, network, workshop)
        with torch.no_grad():
            for parameter in made.module.parameters():
                parameter.add_(torch.rand(parameter.shape))
        return made

    monkeypatch.setattr(FilterPruning, "apply", broken)
    steps = '{ method = "weight_clustering", clusters = 2 }, { method = "filter_pruning", ratio = 0.25 }'
    path = tiny.configure(extra=f"[compressions.broken]\nsteps = [{steps}]\n")
    gate = Gate(make_plan(load(path)), today=date(2026, 1, 1))
    with pytest.raises(CompressionError, match=r"tiny-broken-day: filter_pruning: .* different values, and now has"):
        gate.record(Variant(model="tiny", source="day", compression="broken"))
