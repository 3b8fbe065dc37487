"""Artifacts: what is built is what was asked for, once, the same every time, and counted rightly."""

from __future__ import annotations

import hashlib
import random
import sys
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robustgate.config import load
from robustgate.core.components import Network
from robustgate.core.errors import CompressionError, DomainError, ModelError
from robustgate.core.records import Variant, VariantRecord
from robustgate.core.seeds import derive
from robustgate.engine import course
from robustgate.engine.artifacts import WEIGHTS
from robustgate.engine.bench import Bench
from robustgate.engine.course import Course
from robustgate.engine.facts import file_facts
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.training.supervised import Supervised
from robustgate.zoo import cifar_resnet

CHAINS = """
[compressions.tuned]
steps = [{ method = "filter_pruning", ratio = 0.25, finetune = { epochs = 2, lr = 0.01, batch_size = 16, shift = 1 } }]
[compressions.twice]
steps = [{ use = "tuned" }, { method = "filter_pruning", ratio = 0.3, finetune = { epochs = 1, lr = 0.01, batch_size = 32 } }]
[compressions.tuned_int8]
steps = [{ use = "tuned" }, { method = "static_quantization", calibration_images = 20 }]
[compressions.fp25_int8]
steps = [{ use = "fp25" }, { method = "static_quantization", calibration_images = 20 }]
"""


STUDENT = """
from torch import nn

def student():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, {width}), nn.ReLU(), nn.Linear({width}, 2))
"""
DISTILLED = """
[compressions.kd]
steps = [{ method = "distillation", build = "changing_student:student", args = {}, training = { epochs = 1 } }]
"""


def write_student(tiny: Any, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    (tiny.folder / "changing_student.py").write_text(STUDENT.format(width=width))
    monkeypatch.delitem(sys.modules, "changing_student", raising=False)


def gate_of(tiny: Any, *changes: tuple[str, str], extra: str = CHAINS) -> Gate:
    return Gate(make_plan(load(tiny.configure(*changes, extra=extra))), today=date(2026, 1, 1))


def variant(compression: str, model: str = "tiny") -> Variant:
    return Variant(model=model, source="day", compression=compression)


def record(gate: Gate, compression: str) -> VariantRecord:
    return gate.record(variant(compression))


def file_of(gate: Gate, compression: str) -> Path:
    folder = gate.foundry.artifact(variant(compression)).folder
    return next(folder.glob("model.*"), folder / WEIGHTS)


def entries(tiny: Any, cache: str = "cache") -> list[str]:
    """Every folder of the artifacts' store, hidden ones too."""
    return sorted(path.name for path in (tiny.folder / cache / "artifacts").iterdir() if path.is_dir())


class Trainings:
    """Watches every training: its seed, the images and labels of each of its batches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[int, list[bytes]]] = []
        train = Supervised.train

        def watched(recipe: Supervised, network: Network, course: Course) -> Network:
            batches: list[bytes] = []
            hook = network.module.register_forward_pre_hook(
                lambda _, inputs: batches.append(inputs[0].numpy().tobytes())
            )
            train(recipe, network, course)
            hook.remove()
            self.seen.append((course.seed, batches))
            return network

        monkeypatch.setattr(Supervised, "train", watched)

    def of(self, gate: Gate, compression: str) -> list[tuple[int, list[bytes]]]:
        """Return the trainings that building a compression took."""
        before = len(self.seen)
        record(gate, compression)
        return self.seen[before:]


def test_a_control_sees_the_very_batches_of_its_sibling(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, trainings = gate_of(tiny), Trainings(monkeypatch)
    assert gate.plan.controls["twice"] == "control_twice"
    controls = {name: gate.plan.controls[name] for name in ("tuned", "twice")}
    once, again = trainings.of(gate, "tuned"), trainings.of(gate, controls["tuned"])
    assert len(once) == len(again) == 1
    assert len(once[0][1]) == 2 * (144 // 16)
    assert once == again
    # The second fine-tuning of the chain has other batches than the first, and again those of its control.
    second, second_again = trainings.of(gate, "twice"), trainings.of(gate, controls["twice"])
    assert len(second) == len(second_again) == 1
    assert second == second_again
    assert second[0][0] != once[0][0]


def test_a_control_is_the_reference_with_the_fine_tuning_alone(tiny) -> None:
    gate = gate_of(tiny)
    control = load_file(file_of(gate, gate.plan.controls["tuned"]))
    reference = gate.foundry._network(gate.foundry.artifact(variant("none")).folder, variant("none"))
    recipe = gate.plan.chains["tuned"][0].finetune
    seed = derive(0, "finetune", "tiny", "day", 0)
    course.train(reference.module, recipe, gate.library.samples("day", "train"), seed=seed)
    expected = reference.module.state_dict()
    assert control.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in control.items())


def test_use_shares_the_artifact_of_its_prefix(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, trainings = gate_of(tiny), Trainings(monkeypatch)
    assert len(trainings.of(gate, "tuned_int8")) == 1
    kept = entries(tiny)
    assert len(kept) == 3  # the reference, the pruned network, the file
    assert trainings.of(gate, "tuned") == []
    assert trainings.of(gate_of(tiny), "tuned") == []
    assert entries(tiny) == kept


def test_a_reloaded_variant_answers_to_the_last_bit_as_it_did_when_it_was_built(tiny, monkeypatch) -> None:
    gate = gate_of(tiny)
    images = torch.rand(16, 3, 8, 8)
    built: list[Tensor] = []
    train = Bench.train

    def watched(bench: Bench, network: Any, *options: Any) -> Network:
        trained = train(bench, network, *options)
        built.append(trained.module(images).detach())
        return trained

    monkeypatch.setattr(Bench, "train", watched)
    assert torch.equal(gate.subject(variant("twice")).logits(images), built[-1])
    assert len(built) == 2
    again = gate_of(tiny)
    assert torch.equal(again.subject(variant("twice")).logits(images), built[-1])
    assert torch.equal(again.subject(variant("tuned")).logits(images), built[0])
    assert len(built) == 2


def test_the_record_of_a_network_counts_its_parameters_and_bytes(tiny) -> None:
    gate = gate_of(tiny)
    # Four filters of three weights, a head of 2 x 4 and two biases; its first row and first bias are zero.
    none, pruned = record(gate, "none"), record(gate, "fp25")
    assert (none.parameters, none.nonzero_parameters) == (12 + 8 + 2, 12 + 4 + 1)
    assert (pruned.parameters, pruned.nonzero_parameters) == (9 + 6 + 2, 9 + 3 + 1)
    for compression, found in (("none", none), ("fp25", pruned)):
        content = file_of(gate, compression).read_bytes()
        assert found.format == "torch"
        assert found.artifact_sha256 == hashlib.sha256(content).hexdigest()
        assert found.size_bytes == len(content)
        assert len(zlib.decompress(zlib.compress(content))) == len(content) > found.deflated_bytes > 0


def test_the_record_of_a_quantized_file_counts_its_weights(tiny) -> None:
    gate = gate_of(tiny)
    found = record(gate, "fp25_int8")
    # Those of the network and the six of its normalisation, here 0 and 1; scales, zero points and shapes are no weights.
    assert (found.format, found.parameters, found.nonzero_parameters) == ("onnx", 17 + 6, 13 + 3)
    content = file_of(gate, "fp25_int8").read_bytes()
    assert found.artifact_sha256 == hashlib.sha256(content).hexdigest()
    assert (found.size_bytes, found.deflated_bytes) == (len(content), len(zlib.compress(content, 6)))


def test_a_quantized_weight_is_zero_at_its_zero_point(tmp_path: Path) -> None:
    # As vendors' tools write them: unsigned, one scale and zero point a tensor.
    constants = {"w_q": np.array([[128, 0, 5, 128]], np.uint8), "w_scale": np.float32(0.1), "w_zero": np.uint8(128)}
    initializers = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    nodes = [
        onnx.helper.make_node("DequantizeLinear", list(constants), ["w"]),
        onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [1, size]) for name, size in (("x", 4), ("y", 1)))
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", [x], [y], initializers)), tmp_path / "model.onnx"
    )
    facts = file_facts(tmp_path / "model.onnx", "onnx", None, torch.empty(0))
    assert (facts["parameters"], facts["nonzero_parameters"]) == (4, 2)


RESNET = """
[models.resnet]
build = "robustgate.zoo:cifar_resnet"
args = { depth = 8, num_classes = 2, width = 4 }
normalize = { mean = [0.4, 0.5, 0.6], std = [0.2, 0.3, 0.4] }
weights = { day = "resnet.safetensors" }
[compressions.int8]
steps = [{ method = "static_quantization", calibration_images = 20 }]
"""


def test_a_quantized_resnet_has_the_weights_of_its_folded_convolutions(tiny) -> None:
    torch.manual_seed(0)
    module = cifar_resnet(depth=8, num_classes=2, width=4).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    # Planted: a filter less, and weights too small for eight bits.
    with torch.no_grad():
        module.conv1.weight[0] = 0.0
        module.layer1[0].conv1.weight[1, 1:] *= 1e-4
    save_file(module.state_dict(), tiny.folder / "resnet.safetensors")
    gate = gate_of(tiny, extra=RESNET)
    found = gate.record(variant("int8", "resnet"))
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    total = sum(layer.weight.numel() + layer.out_channels for layer in convolutions) + 2 * 16 + 2 + 6
    assert found.parameters == total
    zeros = 0
    for weight in [*(layer.weight for layer in convolutions), module.linear.weight]:
        rows = weight.detach().flatten(1).abs()
        # One scale a filter, of its largest weight and seven bits; batch normalisation scales a filter as a whole.
        zeros += int((rows < 0.5 * rows.amax(dim=1, keepdim=True) / 64).sum()) + 27 * int(not rows[0].any())
    assert found.nonzero_parameters == total - zeros


def test_divergence_is_an_error_that_leaves_nothing_behind(tiny, tmp_path_factory) -> None:
    gate = gate_of(tiny, extra=CHAINS.replace("lr = 0.01", "lr = 1e30"))
    with pytest.raises(
        CompressionError, match=r"tiny-tuned-day: training diverged: the loss of epoch 1 holds NaN or inf.*; lower lr"
    ):
        record(gate, "tuned")
    assert len(entries(tiny)) == 1  # the reference, which is whole
    assert record(gate_of(tiny), "tuned").parameters == 17


def test_every_input_of_a_variant_decides_which_artifact_it_is(tiny) -> None:
    def shas(gate: Gate) -> list[str]:
        return [record(gate, name).artifact_sha256 for name in ("none", "tuned", "tuned_int8")]

    first = shas(gate_of(tiny))
    assert shas(gate_of(tiny)) == first
    assert shas(gate_of(tiny, ('cache = "cache"', 'cache = "cache"\nseed = 1')))[0] == first[0]
    assert shas(gate_of(tiny, ('cache = "cache"', 'cache = "cache"\nseed = 1')))[1] != first[1]
    assert shas(gate_of(tiny, extra=CHAINS.replace("epochs = 2", "epochs = 3")))[1] != first[1]
    # Another training set with the same test set.
    with np.load(tiny.folder / "day.npz") as arrays:
        np.savez(tiny.folder / "dawn.npz", **{**arrays, "images": 255 - arrays["images"]})
    dawn = shas(gate_of(tiny, ('train = "day.npz"', 'train = "dawn.npz"')))
    assert dawn[0] == first[0]
    assert dawn[1] != first[1]
    tiny.write_weights(torch.tensor([1.0, 0.9, 1.0, 0.1]))
    changed = shas(gate_of(tiny))
    assert not set(changed) & set(first)


def test_a_damaged_artifact_is_built_again(tiny) -> None:
    gate = gate_of(tiny)
    file = file_of(gate, "fp25_int8")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again = gate_of(tiny)
    assert file_of(again, "fp25_int8") == file
    assert record(again, "fp25_int8").artifact_sha256 == hashlib.sha256(whole).hexdigest()
    assert file.read_bytes() == whole


def test_two_builds_are_the_same_to_the_last_byte(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    write_student(tiny, monkeypatch, width=3)
    found = []
    for cache in ("one", "other"):
        gate = gate_of(tiny, ('cache = "cache"', f'cache = "{cache}"'), extra=CHAINS + DISTILLED)
        torch.manual_seed(len(cache))
        found.append({name: record(gate, name).artifact_sha256 for name in sorted(gate.plan.chains)})
        assert len(entries(tiny, cache)) == len(gate.plan.chains)
    assert found[0] == found[1]
    assert len(set(found[0].values())) == len(found[0])


def test_building_leaves_the_global_streams_as_they_were(tiny) -> None:
    gate = gate_of(tiny)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    for name in gate.plan.chains:
        record(gate, name)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), str(np.random.get_state())) == before[1:]


def test_a_student_whose_factory_changed_is_trained_again(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (3, 14):  # another size: bytecode is kept by the source's second and size
        write_student(tiny, monkeypatch, width)
        assert record(gate_of(tiny, extra=DISTILLED), "kd").parameters == 192 * width + width + 2 * width + 2
        gate_of(tiny, extra=DISTILLED).subject(variant("kd"))


def test_what_cannot_be_built_names_the_variant(tiny) -> None:
    gate = gate_of(tiny, ('build = "tiny_network:net"', 'build = "tiny_network:net"\nargs = { classes = "two" }'))
    with pytest.raises(ModelError, match=r"tiny-none-day: factory 'tiny_network:net' with \{'classes': 'two'\} failed"):
        record(gate, "none")
    greedy = gate_of(tiny, ("ratio = 0.25", "parameters = 1"))
    with pytest.raises(CompressionError, match=r"tiny-fp25-day: filter_pruning: even ratio 0\.99 leaves more than 1"):
        record(greedy, "fp25")
    assert len(entries(tiny)) == 1


def test_a_step_that_needs_no_calibration_images_is_built_without_them(tiny) -> None:
    files = ('calibration = "day.npz", test = "day.npz"', 'test = "day.npz"')
    assert record(gate_of(tiny, files), "fp25").parameters < record(gate_of(tiny, files), "none").parameters
    with pytest.raises(
        DomainError, match=r"tiny-fp25_int8-day: domains\.day: no calibration split: files names test, train"
    ):
        record(gate_of(tiny, files), "fp25_int8")


def test_other_test_images_build_nothing_anew(tiny) -> None:
    before = record(gate_of(tiny), "fp25")
    kept = entries(tiny)
    with np.load(tiny.folder / "day.npz") as arrays:
        np.savez(
            tiny.folder / "new.npz",
            **{name: array[:60] if name != "classes" else array for name, array in arrays.items()},
        )
    assert record(gate_of(tiny, ('test = "day.npz"', 'test = "new.npz"')), "fp25") == before
    assert entries(tiny) == kept
