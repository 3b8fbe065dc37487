"""Quantization-aware training: what is trained computes as the file does, keeps constraints, and is made again."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from quantized_files import (
    Bench,
    Normalizing,
    as_tensor,
    initializers,
    logits_of_file,
    logits_of_module,
    network_of,
    noisy_images,
    pruned,
    quantize,
    resnet20,
    round_to_clusters,
    small_network,
    weights_of,
    with_factors_of_either_sign,
)
from torch import Tensor, nn

from robustgate.compression.quantization_aware_training import QuantizationAwareTraining
from robustgate.compression.static_quantization import StaticQuantization
from robustgate.core.components import Architecture, Constraint, Network, Samples
from robustgate.core.errors import CompressionError
from robustgate.engine import course
from robustgate.engine.constraints import check_kept
from robustgate.training.supervised import Supervised
from robustgate.twin.graph import Twin

IMAGES = as_tensor(noisy_images(100))


def bench(folder: Path, images: np.ndarray | None = None) -> Bench:
    folder.mkdir(exist_ok=True)
    return Bench(noisy_images(24) if images is None else images, folder)


def simulate(network: Network, folder: Path, **options: Any) -> Network:
    return QuantizationAwareTraining(**options).apply(network, bench(folder))


def finish(network: Network, folder: Path, **options: Any) -> Path:
    return QuantizationAwareTraining(**options).finish(network, bench(folder)).path


def train(network: Network, lr: float = 0.01) -> None:
    """A few steps on noise, under the network's constraints, as the engine takes them."""
    images = noisy_images(64)
    labels = np.random.default_rng(0).integers(0, 5, len(images))
    samples = Samples(images=images, labels=labels, classes=tuple("abcde"), names=("drawn",) * len(images))
    course.train(network.module, Supervised(epochs=1, lr=lr, batch_size=16), samples, constraints=network.constraints)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Network]:
    """A float network with factors of either sign, and the network that simulates its file."""
    network = with_factors_of_either_sign(small_network())
    return network, simulate(network, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def constrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Network]:
    """The same of a network whose layers have five values, zero the most frequent of them, after training."""
    network = round_to_clusters(pruned(with_factors_of_either_sign(small_network()), 0.5), 5)
    simulated = simulate(network, tmp_path_factory.mktemp("constrained"))
    train(simulated)
    return network, simulated


# --- before training -------------------------------------------------------------------------------------------------


def test_its_weights_are_the_network_s_own_under_their_names(small):
    network, simulated = small
    before, after = weights_of(network.module), weights_of(simulated.module)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert simulated.constraints == (Constraint(kind="quantizers"),)
    assert not simulated.module.training


def test_it_begins_where_static_quantization_ends(tmp_path, small):
    network, simulated = small
    static, own = quantize(network, tmp_path / "static"), finish(simulated, tmp_path / "own")
    one, other = initializers(static), initializers(own)
    for name in weights_of(network.module):
        # The factor is rounded elsewhere: a code at a border may fall to the other side, a scale differs in a bit.
        difference = one[f"{name}_quantized"].astype(int) - other[f"{name}_quantized"]
        assert np.abs(difference).max() <= 1
        assert (difference != 0).mean() < 0.005
        np.testing.assert_allclose(one[f"{name}_scale"], other[f"{name}_scale"], rtol=1e-5)
    agree = logits_of_module(Twin.from_file(static), IMAGES) - logits_of_module(simulated.module, IMAGES)
    assert np.abs(agree).mean() < 0.02


def test_it_computes_exactly_what_the_twin_of_its_file_computes(tmp_path, small):
    simulated = replace(small[1], module=copy.deepcopy(small[1].module))
    for lr in (None, 0.01):
        if lr:
            train(simulated, lr)
        path = finish(simulated, tmp_path / f"lr {lr}")
        logits = logits_of_module(simulated.module, IMAGES)
        assert np.array_equal(logits, logits_of_module(Twin.from_file(path), IMAGES))
        assert (logits_of_file(path, IMAGES).argmax(1) == logits.argmax(1)).mean() >= 0.97


def test_the_range_and_the_type_of_codes_are_those_asked_for(tmp_path):
    simulated = simulate(small_network(), tmp_path / "reduced", reduce_range=True, activations="int8")
    stored = initializers(finish(simulated, tmp_path / "file"))
    codes = [stored[f"{name}_quantized"].astype(int) for name in weights_of(simulated.module)]
    assert {np.abs(layer).max() for layer in codes} == {64}
    assert {value.dtype for name, value in stored.items() if name.endswith("_zero_point") and not value.shape} == {
        np.dtype(np.int8)
    }


# --- training --------------------------------------------------------------------------------------------------------


def test_training_moves_weights_and_biases_and_leaves_factors_and_ranges(small):
    simulated = replace(small[1], module=copy.deepcopy(small[1].module))
    before = copy.deepcopy(simulated.module.state_dict())
    train(simulated)
    after = simulated.module.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {name for name, _ in simulated.module.named_parameters()}
    assert simulated.module.payload() == small[1].module.payload()


def test_constraints_hold_through_training_and_in_the_file(tmp_path, constrained):
    network, simulated = constrained
    check_kept(network, simulated, "test")
    assert simulated.constraints == (*network.constraints, Constraint(kind="quantizers"))
    stored = initializers(finish(simulated, tmp_path / "file"))
    weights = weights_of(network.module)
    for name, trained in weights_of(simulated.module).items():
        assert not torch.equal(trained, weights[name])
        codes = stored[f"{name}_quantized"]
        assert codes.dtype == np.int8
        assert len(np.unique(codes)) <= len(weights[name].unique()) == 5
        assert not codes[(weights[name] == 0).numpy()].any()
        # Over its channel's factor a code stands for the same value in all channels: values are as few as codes.
        steps = stored[f"{name}_scale"] / simulated.module.get_buffer(f"{name}_factor").numpy()
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    logits = logits_of_module(simulated.module, IMAGES)
    assert np.array_equal(logits, logits_of_module(Twin.from_file(tmp_path / "file" / "int8.onnx"), IMAGES))


# --- the product -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["small", "constrained"])
def test_a_simulated_product_gives_the_same_file_one_step_later(tmp_path, kind: str, request):
    simulated = request.getfixturevalue(kind)[1]
    direct = finish(simulated, tmp_path / "direct").read_bytes()
    before = copy.deepcopy(simulated.module.state_dict())
    method = QuantizationAwareTraining(simulated=True)
    product = method.finish(simulated, bench(tmp_path / "simulated"))
    assert all(torch.equal(value, before[name]) for name, value in simulated.module.state_dict().items())
    assert (product.architecture, product.constraints) == (simulated.architecture, simulated.constraints)
    # Settings of the later step are not used: the scales are there.
    later = StaticQuantization(calibration="entropy", activations="int8", per_channel=False)
    assert later.apply(product, bench(tmp_path / "later")).path.read_bytes() == direct
    check_kept(simulated, product, "test")
    again = method.finish(product, bench(tmp_path / "again"))
    first, second = product.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert np.array_equal(logits_of_module(product.module, IMAGES), logits_of_module(simulated.module, IMAGES))


@pytest.mark.parametrize("kind", ["small", "constrained"])
def test_it_is_made_again_from_its_edit_and_its_weights(kind: str, request):
    simulated = request.getfixturevalue(kind)[1]
    written = json.dumps(asdict(simulated.architecture))
    (edit,) = TypeAdapter(Architecture).validate_python(json.loads(written)).edits
    assert edit.method == "quantization_aware_training"
    again = QuantizationAwareTraining.redo(small_network().module, edit, IMAGES[:2])
    again.load_state_dict(simulated.module.state_dict())
    assert np.array_equal(logits_of_module(again, IMAGES), logits_of_module(simulated.module, IMAGES))
    assert again.to_onnx() == simulated.module.to_onnx()
    # Structure and scales of activations; a weight in it would be kept twice.
    assert len(written) < 150_000


def test_what_it_gives_makes_and_keeps():
    assert (QuantizationAwareTraining().product, QuantizationAwareTraining(simulated=True).product) == (
        "file",
        "network",
    )
    assert QuantizationAwareTraining.makes == {"quantizers"}
    assert QuantizationAwareTraining.keeps == {"zeros", "clusters"}
    assert StaticQuantization.keeps == {"zeros", "clusters", "quantizers"}
    with pytest.raises(ValueError, match="calibration_images must be at least 1, got 0"):
        QuantizationAwareTraining(calibration_images=0)


def test_the_component_imports_nothing_heavy():
    script = (
        "import sys, robustgate.compression.quantization_aware_training;"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# --- refusals --------------------------------------------------------------------------------------------------------


class Rows(nn.Module):
    """A linear layer along an image's rows: the exporter transposes its weight, and names it anew."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 7)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images).mean((1, 2))


class Twice(nn.Module):
    """One convolution, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.conv(images).relu()).mean((2, 3))


def test_a_weight_that_the_file_does_not_show_under_its_name_is_refused(tmp_path):
    with pytest.raises(CompressionError) as caught:
        simulate(network_of(Normalizing(Rows())), tmp_path / "rows")
    assert str(caught.value) == (
        "quantization_aware_training: the quantized file does not show the weight 'network.linear.weight' under its "
        "name: the exporter has transposed or merged it"
    )


def test_a_weight_that_two_layers_share_is_refused(tmp_path):
    with pytest.raises(
        CompressionError, match=r"'network.conv.weight': expected one quantized layer .*, got 2 of them"
    ):
        simulate(network_of(Normalizing(Twice())), tmp_path / "twice")


def test_a_constraint_on_what_no_layer_uses_is_refused(tmp_path):
    network = replace(small_network(), constraints=(Constraint(kind="zeros", parameters=("network.linear.bias",)),))
    with pytest.raises(CompressionError, match=r"'network.linear.bias' is constrained, but no convolution"):
        simulate(network, tmp_path / "bias")


@pytest.mark.parametrize("simulated", [False, True])
def test_a_network_that_is_not_its_own_cannot_be_finished(tmp_path, simulated: bool):
    with pytest.raises(CompressionError, match="expected a network that quantization_aware_training made, got Normal"):
        QuantizationAwareTraining(simulated=simulated).finish(small_network(), bench(tmp_path / "other"))


# --- a published network on its published data -----------------------------------------------------------------------


def test_a_resnet20_computes_as_its_file_before_and_after_training(real_data, tmp_path, record_testsuite_property):
    with np.load(real_data / "cifar" / "cifar10_train_10000.npz") as arrays:
        train_images, train_labels = arrays["images"][::40], arrays["labels"][::40]
    with np.load(real_data / "cifar" / "cifar10_test_2000.npz") as arrays:
        images, labels = as_tensor(arrays["images"][::2]), arrays["labels"][::2]
    method, network = QuantizationAwareTraining(), resnet20(real_data)
    simulated = method.apply(network, bench(tmp_path / "resnet20", train_images))
    static = quantize(network, tmp_path / "static", train_images, calibration_images=200)
    twin = logits_of_module(Twin.from_file(static), images)
    exact = np.mean(logits_of_module(network.module, images).argmax(1) == labels)
    for when in ("before", "after"):
        if when == "after":
            samples = Samples(
                images=train_images,
                labels=train_labels,
                classes=tuple("abcdefghij"),
                names=("cifar10",) * len(train_images),
            )
            course.train(simulated.module, Supervised(epochs=1, lr=0.002, batch_size=64), samples)
        path = method.finish(simulated, bench(tmp_path / when, train_images)).path
        logits, found = logits_of_module(simulated.module, images), logits_of_file(path, images)
        agreement, accuracy = np.mean(logits.argmax(1) == found.argmax(1)), np.mean(found.argmax(1) == labels)
        record_testsuite_property(f"resnet20_fake_quantized_agreement_{when}", float(agreement))
        record_testsuite_property(f"resnet20_qat_accuracy_{when}", float(accuracy))
        assert agreement >= 0.995
        assert abs(accuracy - exact) <= 0.01
        if when == "before":
            assert np.mean(logits.argmax(1) == twin.argmax(1)) >= 0.995
