"""Dynamic quantization: known codes, zeros that stay, an answer for each image alone, and a twin that agrees."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robustgate.compression.dynamic_quantization import DynamicQuantization, check_codes, check_zeros, filter_codes
from robustgate.core.components import Architecture, Constraint, Network
from robustgate.core.errors import CompressionError
from robustgate.twin.graph import Twin, images_at_once
from robustgate.zoo.cifar_resnet import cifar_resnet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalizing(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


@dataclass
class Bench:
    """As much of a workshop as this step needs: no data, but an example."""

    folder: Path
    example: Tensor


def network_of(module: nn.Module, *constraints: Constraint) -> Network:
    architecture = Architecture(build="a:b", args={}, mean=MEAN, std=STD)
    return Network(module=module.eval(), architecture=architecture, constraints=constraints)


def small_module(seed: int = 0) -> nn.Module:
    """Two convolutions, the second one depthwise, each with the statistics of random images; and a linear layer."""
    torch.manual_seed(seed)
    first = (nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
    second = (nn.Conv2d(32, 32, 3, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU())
    module = Normalizing(nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)))
    with torch.no_grad():
        module.train()(random_images(64))
    return module.eval()


def random_images(count: int, size: int = 16) -> Tensor:
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(3))


def quantize(network: Network | nn.Module, folder: Path, example: Tensor | None = None, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    network = network if isinstance(network, Network) else network_of(network)
    workshop = Bench(folder, random_images(2) if example is None else example)
    return DynamicQuantization(**options).apply(network, workshop).path


def answers(path: Path, images: Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": image.numpy()})[0] for image in images.split(1)])


def of_module(module: nn.Module, images: Tensor) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([module(part) for part in images.split(100)]).numpy()


def layers(path: Path) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """(operator, codes, zero point, scale) of each quantized layer: the scale is what its output is multiplied with."""
    graph = onnx.load(path).graph
    stored = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    return [
        (
            node.op_type,
            stored[node.input[1]],
            stored[node.input[3]],
            stored[node.input[1][: -len("quantized")] + "scale"],
        )
        for node in graph.node
        if node.op_type in ("ConvInteger", "MatMulInteger")
    ]


# --- known answers ---------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Four pixels of one channel to two classes."""

    def __init__(self, weight: list[list[float]], bias: list[float]) -> None:
        super().__init__()
        self.head = nn.Linear(len(weight[0]), len(weight))
        self.head.weight.data, self.head.bias.data = torch.tensor(weight), torch.tensor(bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images[:, 0].flatten(1))


def test_a_linear_layer_s_codes_and_answer_are_those_computed_by_hand(tmp_path):
    # Largest weights 1.27 and 2.54: steps of 0.01 and 0.02, codes up to 127.
    module = Linear([[1.27, -0.5, 0.0, 0.254], [-2.54, 1.0, 0.03, 0.0]], [0.5, -1.0])
    path = quantize(module, tmp_path, torch.zeros(2, 3, 2, 2), reduce_range=False)
    ((operator, codes, zero_point, scale),) = layers(path)
    assert (operator, codes.dtype) == ("MatMulInteger", np.int8)
    assert codes.T.tolist() == [[127, -50, 0, 25], [-127, 50, 2, 0]]
    assert not zero_point.any()
    assert scale.tolist() == pytest.approx([0.01, 0.02])
    # Pixels in steps of 1/255 of [0, 1]: the range has no part below zero, the zero point is 0.
    image = torch.zeros(1, 3, 2, 2)
    image[0, 0] = torch.tensor([[1.0, 0.2], [0.4, 0.6]])
    by_hand = [0.01 * (127 * 1 - 50 * 0.2 + 25 * 0.6) + 0.5, 0.02 * (-127 * 1 + 50 * 0.2 + 2 * 0.4) - 1.0]
    assert answers(path, image)[0].tolist() == pytest.approx(by_hand, rel=1e-5)


def test_a_filter_s_codes_reach_the_limit_and_one_of_zeros_stays_zero():
    weight = np.float32([[[[1.0]], [[-0.25]]], [[[0.0]], [[0.0]]], [[[-8.0]], [[1.0]]]])
    codes, scales = filter_codes(weight, 64)
    assert codes.squeeze().tolist() == [[64, -16], [0, 0], [-64, 8]]
    assert scales.tolist() == [1 / 64, 1, 1 / 8]
    codes, _ = filter_codes(weight, 127)
    assert codes.squeeze().tolist() == [[127, -32], [0, 0], [-127, 16]]


def test_filters_of_different_size_are_told_apart(tmp_path):
    # One scale for both would leave the small filter no code but zero.
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module[0].weight.data[1] /= 1000
    module[0].bias.data.zero_()
    images, expected = random_images(20), of_module(module, random_images(20))
    found = answers(quantize(module, tmp_path / "channels"), images)
    assert np.abs(found - expected).max(axis=0).tolist() < (0.02 * np.abs(expected).max(axis=0)).tolist()
    lost = answers(quantize(module, tmp_path / "tensor", per_channel=False), images)
    assert not lost[:, 1].any()
    assert np.abs(lost - expected).max(axis=0)[0] < 0.02 * np.abs(expected).max(axis=0)[0]


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantize(small_module(), tmp_path_factory.mktemp("small"))


def test_the_file_takes_one_float_image_and_holds_int8_weights(small_file):
    model = onnx.load(small_file)
    onnx.checker.check_model(model, full_check=True)
    assert images_at_once(model.graph) == 1
    (images,), (logits,) = model.graph.input, model.graph.output
    assert images.type.tensor_type.elem_type == logits.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [size.dim_value for size in logits.type.tensor_type.shape.dim] == [1, 5]
    found = layers(small_file)
    assert [operator for operator, *_ in found] == ["ConvInteger", "ConvInteger", "MatMulInteger"]
    for operator, codes, zero_point, scale in found:
        assert codes.dtype == np.int8
        assert not zero_point.any()
        channels = codes.shape[0] if operator == "ConvInteger" else codes.shape[1]
        assert scale.size == channels
        # One bit of room, by default: no sum of two products exceeds 16 bits.
        assert np.abs(codes.astype(int)).max() == 64
    assert not small_file.with_name("prepared.onnx").exists()


def test_parameters_change_what_they_say(tmp_path):
    whole = layers(quantize(small_module(), tmp_path / "whole", per_channel=False, reduce_range=False))
    assert {scale.size for *_, scale in whole} == {1}
    assert all(np.abs(codes.astype(int)).max() in (127, 128) for _, codes, *_ in whole)
    linear = layers(quantize(small_module(), tmp_path / "linear", convolutions=False))
    assert [operator for operator, *_ in linear] == ["MatMulInteger"]


def test_the_same_network_gives_the_same_bytes_in_another_process_too(tmp_path, small_file):
    script = (
        "import sys; sys.path[:0] = [sys.argv[1]]; import test_dynamic_quantization as t;"
        "t.quantize(t.small_module(), t.Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "other")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "other" / small_file.name).read_bytes() == small_file.read_bytes()


def test_weights_of_zero_are_codes_of_zero_and_one_that_is_lost_is_refused(tmp_path):
    module = small_module()
    names = [name for name, value in module.named_parameters() if value.dim() > 1]
    generator = torch.Generator().manual_seed(1)
    for name in names:
        weight = module.get_parameter(name)
        weight.data[torch.rand(weight.shape, generator=generator) < 0.6] = 0
    with torch.no_grad():
        module.train()(random_images(64))
    network = network_of(module, Constraint(kind="zeros", parameters=tuple(names)))
    path = quantize(network, tmp_path)
    found = layers(path)
    assert len(found) == len(names)
    for name, (operator, codes, *_) in zip(names, found, strict=True):
        zero = (module.get_parameter(name) == 0).numpy()
        assert zero.mean() > 0.5
        assert not (codes if operator == "ConvInteger" else codes.T)[zero].any()
    for name in names:
        graph = onnx.load(path).graph
        check_zeros(graph, network)
        value = next(value for value in graph.initializer if value.name == f"{name}_quantized")
        codes = onnx.numpy_helper.to_array(value).copy()
        lost = np.argwhere((module.get_parameter(name) == 0).numpy())[0]
        # A matrix lies transposed in the file.
        codes[tuple(lost if codes.ndim > 2 else lost[::-1])] = 1
        value.CopyFrom(onnx.numpy_helper.from_array(codes, value.name))
        with pytest.raises(CompressionError, match=f"'{name}' is zero in places where its values in the file are not"):
            check_zeros(graph, network)


def test_a_zero_point_that_is_not_zero_is_refused(small_file):
    graph = onnx.load(small_file).graph
    check_codes(graph)
    name = next(node.input[3] for node in graph.node if node.op_type == "ConvInteger")
    value = next(value for value in graph.initializer if value.name == name)
    value.CopyFrom(onnx.numpy_helper.from_array(np.array(3, np.int8), name))
    with pytest.raises(CompressionError, match="a weight of zero is not stored as zero"):
        check_codes(graph)


def test_zeros_stay_zero_in_layers_that_stay_float(tmp_path):
    module = small_module()
    name, weight = next((name, value) for name, value in module.named_parameters() if value.dim() > 2)
    weight.data[:, 0] = 0
    network = network_of(module, Constraint(kind="zeros", parameters=(name, "network.8.weight")))
    module.get_parameter("network.8.weight").data[0] = 0
    path = quantize(network, tmp_path, convolutions=False)
    stored = {value.name: onnx.numpy_helper.to_array(value) for value in onnx.load(path).graph.initializer}
    assert not stored[name][:, 0].any()


def test_a_network_without_such_layers_is_refused(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(CompressionError, match="nothing to quantize: the network has no layer of the kinds asked for"):
        quantize(module, tmp_path, convolutions=False)


def test_what_has_no_form_in_onnx_is_named(tmp_path):
    class Odd(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.linalg.svdvals(images.flatten(2)).sum(-1)

    with pytest.raises(CompressionError, match=r"^dynamic_quantization: .*no form of the operator aten._linalg_svd"):
        quantize(Odd(), tmp_path)


def test_the_component_imports_nothing_heavy():
    script = (
        "import sys, robustgate.compression.dynamic_quantization;"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# --- the file and its twin -------------------------------------------------------------------------------------------


def test_the_twin_answers_as_the_file_does_for_each_image_alone(small_file):
    # Images of very different brightness: in one batch they would share a range.
    images = random_images(40) * torch.linspace(0.05, 1, 40)[:, None, None, None]
    found, twin = answers(small_file, images), of_module(Twin.from_file(small_file), images)
    np.testing.assert_allclose(twin, found, atol=1e-5)
    error = np.abs(found - of_module(small_module(), images))
    assert 1e-4 < error.max() < 0.1 * np.ptp(found)


def test_a_published_network_keeps_its_accuracy(real_data, tmp_path, record_testsuite_property):
    network = cifar_resnet(depth=20, num_classes=10)
    network.load_state_dict(load_file(real_data / "weights" / "cifar10_resnet20.safetensors"), strict=False)
    data = np.load(real_data / "cifar" / "cifar10_test_2000.npz")
    images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2).float().div(255)
    path = quantize(Normalizing(network), tmp_path, images[:2])
    found = answers(path, images)
    accuracy = np.mean(found.argmax(1) == data["labels"])
    ratio = path.stat().st_size / path.with_name("float.onnx").stat().st_size
    record_testsuite_property("resnet20_dynamic_accuracy", float(accuracy))
    record_testsuite_property("resnet20_dynamic_size_ratio", ratio)
    assert abs(accuracy - 0.918) <= 0.01
    assert ratio < 0.3
    twin = of_module(Twin.from_file(path), images[::5])
    assert np.mean(twin.argmax(1) == found[::5].argmax(1)) >= 0.995
    # A code on an edge now and then; nearly all answers are equal to the last digits.
    assert np.quantile(np.abs(twin - found[::5]).max(axis=1), 0.95) < 1e-3
