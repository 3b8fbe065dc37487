"""Static quantization: what ships is small, as good as the float network, the same every time, and has a twin."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from quantized_files import (
    Normalizing,
    agreement,
    as_tensor,
    initializers,
    logits_of_file,
    logits_of_module,
    network_of,
    noisy_images,
    pruned,
    quantize,
    round_to_clusters,
    small_network,
    with_factors_of_either_sign,
)
from quantized_files import resnet20 as published
from torch import Tensor, nn

from robustgate.compression._fake_quantization import check_file
from robustgate.compression._onnx_export import silence
from robustgate.compression.static_quantization import StaticQuantization
from robustgate.core.components import Constraint, ConstraintKind, Network
from robustgate.core.errors import CompressionError
from robustgate.twin.graph import Twin
from robustgate.zoo.cifar_resnet import PaddedShortcut


def input_gradient(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of what the label's logit is above the mean of all."""
    images = images.clone().requires_grad_()
    logits = module(images)
    margins = logits.gather(1, labels[:, None])[:, 0] - logits.mean(1)
    (gradient,) = torch.autograd.grad(margins.sum(), images)
    return gradient.flatten(1)


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantize(small_network(), tmp_path_factory.mktemp("small"))


def test_the_file_takes_batches_of_any_size_and_gives_float_logits(small_file):
    model = onnx.load(small_file)
    onnx.checker.check_model(model, full_check=True)
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    assert images.type.tensor_type.elem_type == logits.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    x = as_tensor(noisy_images(17))
    together = logits_of_file(small_file, x)
    assert together.shape == (17, 5)
    for batch in (1, 2):
        np.testing.assert_allclose(logits_of_file(small_file, x, batch), together, atol=1e-5)


def weights_of(path: Path) -> dict[str, np.ndarray]:
    """The integers and scales that stand before each convolution."""
    model = onnx.load(path)
    values = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    return {
        node.name: [values[name] for name in made[node.input[1]].input]
        for node in model.graph.node
        if node.op_type == "Conv"
    }


def test_weights_are_int8_with_a_scale_for_each_filter(tmp_path, small_file):
    assert weights_of(small_file)
    for weight, scale, zero in weights_of(small_file).values():
        assert weight.dtype == np.int8
        assert scale.shape == zero.shape == weight.shape[:1]
        assert not zero.any()
        # A filter's largest weight uses the whole range, less the bit that keeps products exact everywhere.
        assert set(np.abs(weight.astype(int)).reshape(len(weight), -1).max(axis=1)) == {64}
    per_tensor = quantize(small_network(), tmp_path / "tensor", per_channel=False)
    assert {scale.size for _, scale, _ in weights_of(per_tensor).values()} == {1}
    whole = quantize(small_network(), tmp_path / "whole", reduce_range=False)
    for weight, *_ in weights_of(whole).values():
        assert set(np.abs(weight.astype(int)).reshape(len(weight), -1).max(axis=1)) <= {127, 128}


def activation_ranges(path: Path) -> tuple[set[Any], list[float]]:
    model = onnx.load(path)
    values = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return {values[node.input[2]].dtype for node in nodes}, [float(values[node.input[1]]) for node in nodes]


def test_activations_are_of_the_type_and_the_ranges_of_the_method_asked_for(tmp_path, small_file):
    kinds, extremes = activation_ranges(small_file)
    assert kinds == {np.dtype(np.uint8)}
    signed = quantize(small_network(), tmp_path / "int8", activations="int8")
    assert activation_ranges(signed)[0] == {np.dtype(np.int8)}
    for method in ("percentile", "entropy"):
        _, scales = activation_ranges(quantize(small_network(), tmp_path / method, calibration=method))
        assert scales != extremes
        # Histograms cut a range off; they never make it wider than a bin.
        assert all(scale <= 1.02 * extreme for scale, extreme in zip(scales, extremes, strict=True))


@pytest.mark.parametrize(("count", "brightest"), [(3, 160), (4, 180), (30, 232), (1000, 232)])
def test_ranges_come_from_images_spread_over_the_split(tmp_path, count: int, brightest: int):
    # The network is the mean brightness, and the images grow brighter: the greatest one taken sets the scale.
    class Mean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.conv2d(images, torch.ones(2, 3, 1, 1)).mean((2, 3))

    levels = np.arange(0, 240, 8, dtype=np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (30, 8, 8, 3)).copy()
    path = quantize(network_of(Mean()), tmp_path / "mean", images, calibration_images=count)
    _, scales = activation_ranges(path)
    assert scales[0] == pytest.approx(levels[30 * (min(count, 30) - 1) // min(count, 30)] / 255 / 255, rel=1e-5)
    assert levels[30 * (min(count, 30) - 1) // min(count, 30)] == pytest.approx(brightest, abs=8)


def test_the_same_network_and_images_give_the_same_bytes_in_another_process_too(tmp_path, small_file):
    again = quantize(small_network(), tmp_path / "again")
    assert again.read_bytes() == small_file.read_bytes()
    script = (
        "import logging, sys; sys.path[:0] = [sys.argv[1]]; import test_static_quantization as t;"
        "t.quantize(t.small_network(), t.Path(sys.argv[2])); print(logging.getLogger().handlers)"
    )
    other = tmp_path / "other"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(other)]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert (other / small_file.name).read_bytes() == small_file.read_bytes()


def test_the_file_tells_nothing_of_the_machine_that_made_it(small_file):
    content = small_file.read_bytes()
    for trace in (b"/work", b"/home", b"/tmp", b".py", b"site-packages", os.getcwd().encode(), b"Normalizing"):
        assert trace not in content, trace
    assert not re.search(rb"(/[\w.-]+){3,}", content)
    model = onnx.load(small_file)
    assert {entry.domain for entry in model.opset_import} == {""}


def test_it_is_quiet_and_leaves_nothing_changed(tmp_path, capfd):
    network = small_network()
    network.module.train()
    before = {key: value.clone() for key, value in network.module.state_dict().items()}
    random_state, level = torch.get_rng_state(), logging.root.manager.disable
    handlers, filters = list(logging.getLogger().handlers), list(warnings.filters)
    for method in ("minmax", "percentile", "entropy"):
        quantize(network, tmp_path / method, calibration=method)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert logging.root.manager.disable == level
    assert list(warnings.filters) == filters
    assert torch.equal(torch.get_rng_state(), random_state)
    assert network.module.training
    assert all(torch.equal(value, before[key]) for key, value in network.module.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "minmax").iterdir()) == ["float.onnx", "int8.onnx"]


def test_silence_installs_no_log_handler_and_lifts_what_it_laid(monkeypatch, capfd):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with contextlib.suppress(ZeroDivisionError), silence():
        # Without a handler on the root, logging would install one for good.
        logging.warning("chatter")
        warnings.warn("chatter", stacklevel=1)
        sys.stderr.write("chatter")
        raise ZeroDivisionError
    assert root.handlers == []
    assert root.isEnabledFor(logging.WARNING)
    assert capfd.readouterr() == ("", "")


def test_the_component_imports_nothing_heavy():
    script = (
        "import sys, robustgate.compression.static_quantization;"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# --- refusals --------------------------------------------------------------------------------------------------------


def test_an_impossible_count_is_refused():
    with pytest.raises(ValueError, match="calibration_images must be at least 1, got 0"):
        StaticQuantization(calibration_images=0)


def test_an_operator_that_onnx_does_not_have_is_named(tmp_path, capfd):
    class Odd(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.linalg.svdvals(images.flatten(2)).sum(-1)

    with pytest.raises(CompressionError) as caught:
        quantize(network_of(Odd()), tmp_path / "odd")
    assert str(caught.value) == (
        "static_quantization: the network cannot be exported to ONNX: it has no form of the operator aten._linalg_svd"
    )
    assert capfd.readouterr() == ("", "")


def test_control_flow_that_depends_on_the_image_is_refused_in_one_line(tmp_path, capfd):
    class Branching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    with pytest.raises(CompressionError, match=r"cannot be exported to ONNX: .*data-dependent") as caught:
        quantize(network_of(Branching()), tmp_path / "branching")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


# --- the file and its twin -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"activations": "int8"}, {"per_channel": False}, {"calibration": "percentile"}], ids=str
)
def test_the_twin_of_a_small_network_computes_what_its_file_computes(tmp_path, options):
    path = quantize(small_network(), tmp_path / "file", **options)
    images = as_tensor(noisy_images(100))
    reference = logits_of_module(small_network().module, images)
    found, twin = logits_of_file(path, images), logits_of_module(Twin.from_file(path), images)
    error = np.abs(found - reference).mean()
    # Of the difference that quantization makes, the twin explains nearly all.
    assert np.abs(found - twin).mean() < 0.2 * error
    exact = logits_of_module(Twin.from_file(path.with_name("float.onnx")), images)
    np.testing.assert_allclose(exact, reference, atol=1e-4)


def test_a_shortcut_that_was_pruned_is_exported_and_has_a_twin(tmp_path):
    network = small_network()
    shortcut = next(module for module in network.module.modules() if isinstance(module, PaddedShortcut))
    # The channels behind it stay as many, in another order: no plain padding any more.
    shortcut.source = shortcut.source[1:] + shortcut.source[:1]
    shortcut.source[3], shortcut.source[7] = shortcut.source[7], shortcut.source[3]
    path = quantize(network, tmp_path / "pruned")
    assert {"Pad", "Gather"} <= {node.op_type for node in onnx.load(path).graph.node}
    images = as_tensor(noisy_images(50))
    exact = logits_of_module(Twin.from_file(path.with_name("float.onnx")), images)
    np.testing.assert_allclose(exact, logits_of_module(network.module, images), atol=1e-4)
    assert agreement(path, images)[0] >= 0.9


def test_a_torchvision_resnet18_agrees_with_its_twin(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network = network_of(Normalizing(resnet18(num_classes=10)))
    path = quantize(network, tmp_path / "resnet18", noisy_images(20, 64))
    # Drawn smooth: noise of one mean gives a random network no reason to tell images apart.
    coarse = np.random.default_rng(1).integers(0, 256, (24, 4, 4, 3), dtype=np.uint8)
    images = as_tensor(coarse.repeat(16, axis=1).repeat(16, axis=2))
    # The example's channels lie last in memory; no trace of that is in the graph.
    assert not {"Range", "Gather", "Shape"} & {node.op_type for node in onnx.load(path).graph.node}
    share, difference = agreement(path, images)
    assert share >= 0.95
    assert difference < 0.1 * np.ptp(logits_of_module(network.module, images))


# --- constraints ------------------------------------------------------------------------------------------------------


def constrained(network: Network, kind: ConstraintKind, *names: str) -> Network:
    return replace(network, constraints=(*network.constraints, Constraint(kind=kind, parameters=names)))


def test_zeros_are_zero_codes(tmp_path):
    network = pruned(small_network(), 0.5)
    stored = initializers(quantize(network, tmp_path / "pruned"))
    for name in network.constrained("zeros"):
        weight = network.module.state_dict()[name].numpy()
        assert (weight == 0).mean() >= 0.5
        assert not stored[f"{name}_quantized"][weight == 0].any()
        assert stored[f"{name}_quantized"][weight != 0].any()


def test_zeros_of_a_matrix_that_the_exporter_transposes_are_found(tmp_path):
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 7)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(images).mean((1, 2))

    torch.manual_seed(0)
    path = quantize(pruned(network_of(Normalizing(Rows())), 0.5), tmp_path / "rows")
    assert "network.linear.weight_quantized" not in initializers(path)


def test_a_file_that_lost_a_zero_or_has_more_codes_than_clusters_is_refused(tmp_path):
    path = quantize(small_network(), tmp_path / "file")
    name = "network.layer1.0.conv1.weight"
    network = small_network()
    with torch.no_grad():
        network.module.get_parameter(name)[0, 0, 0, 0] = 0
    with pytest.raises(CompressionError, match=f"mine: '{name}' is zero in places where the codes in the file are not"):
        check_file(path, constrained(network, "zeros", name), method="mine")
    clustered = round_to_clusters(small_network(), 4)
    with pytest.raises(CompressionError, match="has 4 different values, its codes in the file have more"):
        check_file(path, clustered, method="mine")


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Path]:
    """A network of six values a layer, whose batch normalisations have factors of either sign, and its file."""
    network = round_to_clusters(with_factors_of_either_sign(small_network()), 6)
    return network, quantize(network, tmp_path_factory.mktemp("clusters"))


def test_clusters_are_clusters_of_codes_and_of_what_the_codes_stand_for(clusters):
    network, path = clusters
    stored, state = initializers(path), network.module.state_dict()
    negative = 0
    for name in network.constrained("clusters"):
        weight, codes, scales = state[name].numpy(), stored[f"{name}_quantized"], stored[f"{name}_scale"]
        assert len(np.unique(weight)) == len(np.unique(codes)) == 6
        # The scales hold a batch normalisation's factors: without them one step is left.
        norm = name.replace("conv", "bn").removesuffix(".weight")
        factor = np.ones(len(weight), np.float32)
        if norm != name.removesuffix(".weight"):
            gamma, variance = state[f"{norm}.weight"], state[f"{norm}.running_var"]
            factor = (gamma / (variance + 1e-5).sqrt()).numpy()
        negative += (scales < 0).sum()
        step = np.abs(weight).max() / 64
        np.testing.assert_allclose(scales, factor * step, rtol=1e-5)
        np.testing.assert_array_equal(codes, np.round(weight / step))
    assert negative


def test_a_file_with_clusters_computes_what_its_network_computes(clusters):
    network, path = clusters
    images = as_tensor(noisy_images(100))
    reference, found = logits_of_module(network.module, images), logits_of_file(path, images)
    assert np.abs(found - reference).mean() < 0.1 * reference.std()
    assert agreement(path, images)[1] < 0.1 * np.ptp(reference)


def test_clusters_need_a_scale_for_each_channel(tmp_path, clusters):
    with pytest.raises(CompressionError, match="a network with clusters needs per_channel = true, got false"):
        quantize(clusters[0], tmp_path / "tensor", per_channel=False)


def test_quantizers_that_another_step_made_are_refused(tmp_path):
    with pytest.raises(CompressionError, match="expected a network that quantization_aware_training made, got Normal"):
        quantize(constrained(small_network(), "quantizers"), tmp_path / "other")


# --- a published network on its published data -----------------------------------------------------------------------

BUILT: dict[str, Any] = {}


@pytest.fixture
def resnet20(real_data, tmp_path_factory) -> Mapping[str, Any]:
    """The published CIFAR-10 ResNet-20, its int8 file, and the 2,000 test images; built once."""
    if not BUILT:
        network = published(real_data)
        calibration = np.load(real_data / "cifar" / "cifar10_train_10000.npz")["images"]
        path = quantize(network, tmp_path_factory.mktemp("cifar"), calibration, calibration_images=200)
        test = np.load(real_data / "cifar" / "cifar10_test_2000.npz")
        images = as_tensor(test["images"])
        BUILT.update(network=network, path=path, images=images, labels=test["labels"])
        BUILT["logits"] = logits_of_file(path, images)
    return MappingProxyType(BUILT)


def test_int8_accuracy_is_within_a_point_of_float_and_the_file_a_third_of_its_size(resnet20, record_testsuite_property):
    accuracy = np.mean(resnet20["logits"].argmax(1) == resnet20["labels"])
    ratio = resnet20["path"].stat().st_size / resnet20["path"].with_name("float.onnx").stat().st_size
    record_testsuite_property("resnet20_int8_accuracy", float(accuracy))
    record_testsuite_property("resnet20_int8_size_ratio", ratio)
    assert abs(accuracy - 0.918) <= 0.01
    # Weights alone would be a quarter; a network of 270,000 of them has 115 quantize nodes besides.
    assert ratio < 0.33


def test_the_twin_agrees_with_the_published_network_s_file(resnet20, record_testsuite_property):
    twin = logits_of_module(Twin.from_file(resnet20["path"]), resnet20["images"][::4])
    found = resnet20["logits"][::4]
    share = np.mean(twin.argmax(1) == found.argmax(1))
    difference = np.abs(twin - found)
    record_testsuite_property("resnet20_twin_agreement", float(share))
    record_testsuite_property("resnet20_twin_largest_difference", float(difference.max()))
    assert share >= 0.99
    assert difference.max() < 1
    # A rounding mode that is off by half a step shows here long before it shows in the argmax.
    assert difference.mean() < 0.03


def test_the_twin_s_gradient_points_where_the_float_network_s_does(resnet20, record_testsuite_property):
    images, labels = resnet20["images"][:50], torch.from_numpy(resnet20["labels"][:50])
    reference = input_gradient(resnet20["network"].module, images, labels)
    exact = input_gradient(Twin.from_file(resnet20["path"].with_name("float.onnx")), images, labels)
    quantized = input_gradient(Twin.from_file(resnet20["path"]), images, labels)
    assert torch.cosine_similarity(reference, exact).min() > 0.999
    cosines = torch.cosine_similarity(reference, quantized)
    record_testsuite_property("resnet20_gradient_cosine", float(cosines.mean()))
    assert cosines.mean() > 0.8
    assert cosines.min() > 0.5
