"""A trainable quantized graph: codes worked out by hand, gradients in closed form, and the file it writes."""

from __future__ import annotations

import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from robustgate.twin.fake_quantized import FakeQuantized, Layer
from robustgate.twin.graph import Twin

INPUT_SCALE = 1 / 128


def stripped_file(channels: int) -> onnx.ModelProto:
    """A 1x1 convolution of quantized images and their mean, without the codes and scales of its weight and bias."""
    zeros = {"net.conv.weight_zero_point": np.zeros(channels, np.int8), "bias_zero_point": np.zeros(channels, np.int32)}
    constants = {"x_scale": np.float32(INPUT_SCALE), "x_zero_point": np.uint8(0), **zeros}
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "x_scale", "x_zero_point"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "x_scale", "x_zero_point"], ["values"]),
        helper.make_node(
            "DequantizeLinear",
            ["net.conv.weight_quantized", "net.conv.weight_scale", "net.conv.weight_zero_point"],
            ["weight"],
            axis=0,
        ),
        helper.make_node(
            "DequantizeLinear",
            ["net.conv.bias_quantized", "net.conv.bias_quantized_scale", "bias_zero_point"],
            ["bias"],
            axis=0,
        ),
        helper.make_node("Conv", ["values", "weight", "bias"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", channels])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def layer_of(channels: int, *, shared: bool) -> Layer:
    return Layer(
        weight="net.conv.weight",
        shape=(channels, 3, 1, 1),
        axis=0,
        shared=shared,
        bias="net.conv.bias",
        input_scale=INPUT_SCALE,
    )


def conv_of(
    weights: list[list[float]],
    factors: list[float],
    biases: list[float],
    *,
    shared: bool = False,
    limit: int = 127,
) -> FakeQuantized:
    count = len(weights)
    module = FakeQuantized(stripped_file(count), [layer_of(count, shared=shared)], limit)
    state = {
        "net.conv.weight": torch.tensor(weights)[:, :, None, None],
        "net.conv.weight_factor": torch.tensor(factors),
        "net.conv.bias": torch.tensor(biases),
    }
    module.load_state_dict(state)
    return module


def random_conv(seed: int, *, shared: bool) -> FakeQuantized:
    draws = np.random.default_rng(seed)
    weights = (draws.normal(size=(8, 3)) * draws.lognormal(size=(8, 1))).tolist()
    return conv_of(weights, draws.normal(size=8).tolist(), draws.normal(size=8).tolist(), shared=shared)


def stored(module: FakeQuantized) -> dict[str, np.ndarray]:
    return {value.name: numpy_helper.to_array(value) for value in module.to_onnx().graph.initializer}


def codes_of(module: FakeQuantized) -> list[list[int]]:
    return stored(module)["net.conv.weight_quantized"][:, :, 0, 0].tolist()


def images(count: int = 20) -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).integers(0, 256, (count, 3, 4, 4))).float() / 255


# --- codes, scales and biases ----------------------------------------------------------------------------------------


def test_codes_and_scales_of_a_small_convolution_are_those_worked_out_by_hand():
    module = conv_of([[1.27, -0.635, 0.024], [0.5, 0.25, -0.2]], [2.0, -4.0], [1.0, -3.0])
    found = stored(module)
    # Steps 0.01 and 0.5 / 127; -63.5 goes to the even side; the second factor turns its codes round.
    assert codes_of(module) == [[127, -64, 2], [-127, -64, 51]]
    np.testing.assert_allclose(found["net.conv.weight_scale"], [0.02, 4 * 0.5 / 127], rtol=1e-6)
    scales = [0.02 / 128, 4 * 0.5 / 127 / 128]
    np.testing.assert_allclose(found["net.conv.bias_quantized_scale"], scales, rtol=1e-6)
    assert found["net.conv.bias_quantized"].tolist() == [round(1 / scales[0]), round(-3 / scales[1])]
    assert {found["net.conv.weight_quantized"].dtype, found["net.conv.bias_quantized"].dtype} == {
        np.dtype(np.int8),
        np.dtype(np.int32),
    }


def test_shared_steps_give_equal_weights_equal_codes_and_the_factors_to_the_scales():
    weights = [[1.27, -0.6, 0.02], [0.02, -0.6, -0.6], [0.02, 0.02, 1.27]]
    module = conv_of(weights, [2.0, -4.0, 0.001], [0.1, 0.2, 0.3], shared=True)
    assert codes_of(module) == [[127, -60, 2], [2, -60, -60], [2, 2, 127]]
    np.testing.assert_allclose(stored(module)["net.conv.weight_scale"], [0.02, -0.04, 0.00001], rtol=1e-6)


def test_a_smaller_limit_leaves_a_bit_of_room():
    assert codes_of(conv_of([[1.28, -0.64, 0.02]], [1.0], [0.0], limit=64)) == [[64, -32, 1]]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("weights", "factor"), [([0.0, 0.0, 0.0], 1.0), ([1.0, -1.0, 0.5], 1e-12)])
def test_the_bias_of_a_channel_without_weight_is_kept(shared: bool, weights: list[float], factor: float):
    module = conv_of([[1.0, 0.5, 0.25], weights], [1.0, factor], [0.25, 7.3], shared=shared)
    with torch.no_grad():
        logits = module(images())[:, 1]
    # Products of a channel whose factor had to be raised are some thousandths of the bias at most.
    assert (logits - 7.3).abs().max() < 7.3 * 1e-3
    assert abs(int(stored(module)["net.conv.bias_quantized"][1])) <= 2**30 + 64


def test_an_empty_layer_computes_zero():
    module = conv_of([[0.0, 0.0, 0.0]], [1.0], [0.0])
    assert module(images()).eq(0).all()
    assert np.isfinite(stored(module)["net.conv.weight_scale"]).all()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_it_computes_what_the_twin_and_the_runtime_compute_of_its_file(tmp_path, seed: int, shared: bool):
    module, path = random_conv(seed, shared=shared), tmp_path / "int8.onnx"
    onnx.save(module.to_onnx(), path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    with torch.no_grad():
        logits, twin = module(images()), Twin.from_file(path)(images())
    assert torch.equal(logits, twin)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images().numpy()})
    np.testing.assert_allclose(found, logits.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activations", [np.uint8, np.int8])
@pytest.mark.parametrize("group", [1, 6])
def test_the_runtime_multiplies_with_negative_scales_as_with_positive_ones(activations: type, group: int):
    # Codes and scales with their signs turned round are the same weights; the rounding of the output is, too.
    draws = np.random.default_rng(0)
    codes = draws.integers(-60, 61, (6, 6 // group, 3, 3)).astype(np.int8)
    scales = draws.uniform(0.001, 0.01, 6).astype(np.float32)
    signs = np.array([1, -1, 1, -1, -1, 1], np.int8)
    x = draws.normal(size=(2, 6, 16, 16)).astype(np.float32)
    plain = integer_convolution(codes, scales, activations, group).run(None, {"x": x})[0]
    turned = integer_convolution(codes * signs[:, None, None, None], scales * signs, activations, group)
    np.testing.assert_array_equal(turned.run(None, {"x": x})[0], plain)
    assert len(np.unique(plain)) > 50


def integer_convolution(
    codes: np.ndarray, scales: np.ndarray, activations: type, group: int
) -> onnxruntime.InferenceSession:
    """A session that has fused a quantized convolution into one of integers."""
    middle = activations(128 if activations is np.uint8 else 0)
    constants = {"xs": np.float32(0.02), "ys": np.float32(0.05), "z": middle, "w": codes, "s": scales}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"], group=group, pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["c", "ys", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "ys", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 6, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_rounding_counts_as_the_identity_in_the_gradient(shared: bool):
    module = random_conv(0, shared=shared)
    batch = images().requires_grad_()
    module(batch).sum().backward()
    factor, weight = module.get_buffer("net.conv.weight_factor"), module.get_parameter("net.conv.weight")
    # Input and output are means: d logit_c / d w_cj = g_c * mean of the rounded input channel j, summed over images.
    rounded = (images() * 128).round().clamp(max=255) / 128
    expected = factor[:, None] * rounded.mean((2, 3)).sum(0)[None]
    torch.testing.assert_close(weight.grad[:, :, 0, 0], expected)
    torch.testing.assert_close(module.get_parameter("net.conv.bias").grad, torch.full((8,), 20.0))
    found = stored(module)
    effective = torch.from_numpy(
        found["net.conv.weight_quantized"] * found["net.conv.weight_scale"][:, None, None, None]
    )
    torch.testing.assert_close(batch.grad[0, :, 0, 0], effective[:, :, 0, 0].sum(0) / 16)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_snapped_weights_compute_the_same_to_the_last_bit_and_stay_where_they_are(seed: int, shared: bool):
    module = random_conv(seed, shared=shared)
    before, file = module(images()), module.to_onnx().SerializeToString(deterministic=True)
    module.snap()
    snapped = copy.deepcopy(module.state_dict())
    assert torch.equal(module(images()), before)
    assert module.to_onnx().SerializeToString(deterministic=True) == file
    module.snap()
    assert all(torch.equal(value, snapped[name]) for name, value in module.state_dict().items())


# --- rebuilding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_its_payload_survives_json_and_with_its_weights_makes_it_again(shared: bool):
    module = random_conv(0, shared=shared)
    payload = json.loads(json.dumps(module.payload()))
    again = FakeQuantized.from_payload(payload)
    assert not torch.equal(again(images()), module(images()))
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(images()), module(images()))
    assert again.payload() == module.payload()


def test_its_state_is_its_parameters_and_their_factors():
    module = random_conv(0, shared=False)
    assert set(module.state_dict()) == {"net.conv.weight", "net.conv.weight_factor", "net.conv.bias"}
    assert {name for name, _ in module.named_parameters()} == {"net.conv.weight", "net.conv.bias"}
    copied = copy.deepcopy(module).requires_grad_(False)
    assert torch.equal(copied(images()), module(images()))
