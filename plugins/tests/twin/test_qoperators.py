"""Quantized operators, each alone against ONNX Runtime on random codes, and their straight-through gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from twin_files import ints, noise, run_file, run_twin, write_graph

from robustgate.core.errors import ModelError
from robustgate.twin.graph import Twin, images_at_once
from robustgate.twin.quantization import dynamic_quantize_linear

MS = "com.microsoft"
KINDS = {"uint8": np.uint8, "int8": np.int8}
SHAPE = (2, 3, 7, 8)
F1 = np.float32


def codes(*shape: int, kind: Any = np.int8, seed: int = 1) -> np.ndarray:
    limits = np.iinfo(kind)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(kind)


def scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def zero(kind: str, uint8: int = 121, int8: int = -7) -> np.ndarray:
    return np.array({"uint8": uint8, "int8": int8}[kind], KINDS[kind])


def common(kind: str) -> dict[str, np.ndarray]:
    """Scales and zero points: of the first input, of the second one, and of the result."""
    return {
        "s": scalar(0.031),
        "z": zero(kind),
        "s2": scalar(0.0173),
        "z2": zero(kind, 90, 11),
        "ys": scalar(0.052),
        "yz": zero(kind, 133, 5),
    }


def coded_file(
    path: Path,
    kind: str,
    node: onnx.NodeProto,
    constants: dict[str, np.ndarray] | None = None,
    *,
    shape: tuple[int, ...] = SHAPE,
    opset: int = 18,
) -> Path:
    """Write: ``images`` quantized to `q`, twice them to `q2`; the node makes `y` of them, which is dequantized."""
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"]),
        helper.make_node("Add", ["images", "images"], ["twice"]),
        helper.make_node("QuantizeLinear", ["twice", "s2", "z2"], ["q2"]),
        node,
        helper.make_node("DequantizeLinear", ["y", "ys", "yz"], ["found"]),
    ]
    return write_graph(path, nodes, {**common(kind), **(constants or {})}, shape=shape, opset=opset)


def off(path: Path, x: np.ndarray) -> tuple[int, float]:
    """How many steps the twin's codes are at most from those of ONNX Runtime, and what share of them differs."""
    steps = np.rint((run_twin(path, x) - run_file(path, x)) / 0.052)
    assert len(np.unique(run_file(path, x))) > 20
    return int(np.abs(steps).max()), float(np.mean(steps != 0))


def gradient(path: Path, x: np.ndarray, *, ramp: bool = False) -> torch.Tensor:
    """The gradient of the sum of all outputs, with `ramp` the first weighs 1, the next 2, ..."""
    leaf = torch.from_numpy(x).requires_grad_()
    outputs = Twin.from_file(path)(leaf).flatten()
    (found,) = torch.autograd.grad((outputs * (torch.arange(len(outputs)) + 1 if ramp else 1)).sum(), leaf)
    return found


# --- operators, one at a time ----------------------------------------------------------------------------------------


# Weights of 7 bits: without VNNI, a processor's uint8 x int8 kernels saturate where two products exceed 16 bits.
def weights(*shape: int) -> np.ndarray:
    return codes(*shape) >> 1


W = {"w": weights(5, 3, 3, 3), "ws": scalar(0.004), "wz": np.array(0, np.int8)}
EACH = {"w": weights(5, 3, 3, 3), "ws": np.linspace(0.002, 0.006, 5, dtype=F1), "wz": np.zeros(5, np.int8)}
MATRIX = {"w": weights(8, 6), "ws": scalar(0.004), "wz": np.array(3, np.int8)}
COLUMNS = {"w": weights(8, 6), "ws": np.linspace(0.002, 0.006, 6, dtype=F1), "wz": np.zeros(6, np.int8)}
BIAS = {"b": np.random.default_rng(5).integers(-20_000, 20_000, 6).astype(np.int32)}
ONE, TWO, OUT = ["q", "s", "z"], ["q2", "s2", "z2"], ["ys", "yz"]
WEIGHT = ["w", "ws", "wz"]

# (operator, domain, inputs, attributes, constants, shape, steps that it may be off, share of codes that may be off).
# The products are exact; an operator that rounds after two products or a mean may differ on an edge between codes.
CASES: list[tuple[str, str, list[str], dict[str, Any], dict[str, np.ndarray], tuple[int, ...], int, float]] = [
    ("QLinearConv", "", [*ONE, *WEIGHT, *OUT], {"pads": [1, 1, 1, 1]}, W, SHAPE, 0, 0),
    ("QLinearConv", "", [*ONE, *WEIGHT, *OUT, "b"], {"strides": [2, 2]}, {**EACH, "b": BIAS["b"][:5]}, SHAPE, 0, 0),
    ("QLinearConv", "", [*ONE, *WEIGHT, *OUT], {"group": 3}, {**W, "w": weights(6, 1, 3, 3)}, SHAPE, 0, 0),
    ("QLinearMatMul", "", [*ONE, *WEIGHT, *OUT], {}, MATRIX, SHAPE, 0, 0),
    ("QLinearMatMul", "", [*ONE, *WEIGHT, *OUT], {}, COLUMNS, SHAPE, 0, 0),
    ("QGemm", MS, [*ONE, *WEIGHT, "b", *OUT], {}, {**MATRIX, **BIAS}, (9, 8), 0, 0),
    ("QGemm", MS, [*ONE, *WEIGHT, "", *OUT], {"alpha": 0.7}, COLUMNS, (9, 8), 0, 0),
    ("QGemm", MS, [*ONE, *WEIGHT, "b", *OUT], {"transB": 1}, {**COLUMNS, **BIAS, "w": weights(6, 8)}, (9, 8), 0, 0),
    ("QGemm", MS, [*ONE, *WEIGHT, "b", *OUT], {"transA": 1}, {**MATRIX, **BIAS}, (8, 9), 0, 0),
    ("QLinearAdd", MS, [*ONE, *TWO, *OUT], {}, {}, SHAPE, 1, 0.01),
    ("QLinearAdd", MS, [*ONE, "c", "s2", "z2", *OUT], {}, {"c": codes(3, 1, 1)}, SHAPE, 1, 0.01),
    ("QLinearMul", MS, [*ONE, *TWO, *OUT], {}, {}, SHAPE, 1, 0.01),
    ("QLinearMul", MS, [*ONE, "c", "s2", "z2", *OUT], {}, {"c": codes(8)}, SHAPE, 1, 0.01),
    ("QLinearGlobalAveragePool", MS, [*ONE, *OUT], {"channels_last": 0}, {}, (9, 30, 3, 4), 1, 0.01),
    ("QLinearAveragePool", MS, [*ONE, *OUT], {"kernel_shape": [3, 3], "strides": [2, 2]}, {}, SHAPE, 1, 0.01),
    ("QLinearAveragePool", MS, [*ONE, *OUT], {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}, {}, SHAPE, 1, 0.01),
    (
        "QLinearAveragePool",
        MS,
        [*ONE, *OUT],
        {"kernel_shape": [2, 2], "pads": [1, 0, 1, 0], "count_include_pad": 1},
        {},
        SHAPE,
        1,
        0.01,
    ),
    ("QLinearConcat", MS, [*OUT, *ONE, *TWO], {"axis": 1}, {}, SHAPE, 0, 0),
    ("QLinearConcat", MS, [*OUT, *ONE, "q", "s", "z"], {"axis": -1}, {}, SHAPE, 0, 0),
    ("QLinearLeakyRelu", MS, [*ONE, *OUT], {"alpha": 0.2}, {}, SHAPE, 0, 0),
    ("QLinearSigmoid", MS, [*ONE, "ss", "yz"], {}, {"ss": scalar(1 / 100)}, SHAPE, 1, 0.01),
    ("QLinearSoftmax", MS, [*ONE, "ss", "sz"], {"axis": -1, "opset": 18}, {}, SHAPE, 1, 0.01),
    ("QLinearSoftmax", MS, [*ONE, "ss", "sz"], {"axis": 1, "opset": 11}, {}, (9, 3, 2, 2), 1, 0.01),
    ("QLinearWhere", MS, ["flags", *ONE, *TWO, *OUT], {}, {"flags": noise(3, 1, 8) > 0}, SHAPE, 0, 0),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=[f"{place}-{case[0]}" for place, case in enumerate(CASES)])
def test_an_operator_gives_the_codes_of_onnx_runtime(tmp_path, case, kind):
    operator, domain, inputs, attributes, constants, shape, steps, share = case
    constants = {name: value.astype(KINDS[kind]) if name == "c" else value for name, value in constants.items()}
    constants |= {"sz": np.array(-128 if kind == "int8" else 0, KINDS[kind])} if "sz" in inputs else {}
    constants |= {"ss": scalar(1 / 256)} if "sz" in inputs else {}
    node = helper.make_node(operator, inputs, ["y"], domain=domain, **attributes)
    path = coded_file(tmp_path / "node.onnx", kind, node, constants, shape=shape)
    x = noise(*shape, seed=3)
    most, differing = off(path, x)
    assert most <= steps
    assert differing <= share
    # Weighed, since a softmax's outputs sum to 1: the gradient of their plain sum is zero but for rounding.
    assert (gradient(path, x, ramp=True) != 0).float().mean() > 0.5


def integer_file(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], *shape: Any) -> Path:
    """Write: ``images`` quantized over their own range to `q`, with scale `s` and zero point `z`; then `nodes`."""
    first = helper.make_node("DynamicQuantizeLinear", ["images"], ["q", "s", "z"])
    return write_graph(path, [first, *nodes], constants, shape=shape)


BYTES = {"w": codes(5, 3, 3, 3, kind=np.uint8), "wz": np.array(117, np.uint8)}
INTEGERS: list[tuple[str, list[str], dict[str, Any], dict[str, np.ndarray], tuple[int, ...]]] = [
    ("ConvInteger", ["q", "w", "z", "wz"], {"pads": [1, 1, 1, 1]}, W, (1, 3, 7, 8)),
    ("ConvInteger", ["q", "w", "z", "wz"], {"strides": [2, 1], "pads": [0, 1, 1, 0]}, BYTES, (1, 3, 7, 8)),
    ("ConvInteger", ["q", "w", "z"], {"group": 3}, {"w": weights(6, 1, 3, 3)}, (1, 3, 7, 8)),
    ("MatMulInteger", ["q", "w", "z", "wz"], {}, MATRIX, (1, 4, 8)),
    ("MatMulInteger", ["q", "w", "z", "wz"], {}, {**COLUMNS, "wz": codes(6) >> 3}, (1, 8)),
    ("MatMulInteger", ["q", "w", "z"], {}, {"w": codes(8, 6, kind=np.uint8)}, (1, 8)),
]


@pytest.mark.parametrize("case", INTEGERS, ids=[f"{place}-{case[0]}" for place, case in enumerate(INTEGERS)])
def test_an_integer_product_is_exact(tmp_path, case):
    operator, inputs, attributes, constants, shape = case
    nodes = [
        helper.make_node(operator, inputs, ["sums"], **attributes),
        helper.make_node("Cast", ["sums"], ["found"], to=TensorProto.FLOAT),
    ]
    path = integer_file(tmp_path / "integer.onnx", nodes, constants, *shape)
    x = noise(*shape, seed=4)
    expected = run_file(path, x)
    assert np.ptp(expected) > 1000
    np.testing.assert_array_equal(run_twin(path, x), expected)


@pytest.mark.parametrize("columns", [MATRIX, COLUMNS], ids=["tensor", "columns"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("operator", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
def test_a_fused_integer_product_gives_the_numbers_of_onnx_runtime(tmp_path, operator, bias, columns):
    inputs = ["images", "w", "ws", "wz"] if operator[0] == "D" else ["q", "w", "s", "ws", "z", "wz"]
    node = helper.make_node(operator, [*inputs, *(["b"] if bias else [])], ["found"], domain=MS)
    path = integer_file(tmp_path / "fused.onnx", [node], {**columns, "b": noise(6)}, 1, 5, 8)
    x = noise(1, 5, 8, seed=6)
    np.testing.assert_allclose(run_twin(path, x), run_file(path, x), rtol=1e-6, atol=1e-6)
    # With rounding counted as the identity it is x @ w, whatever the range was.
    real = torch.from_numpy((columns["w"].astype(F1) - columns["wz"]) * columns["ws"])
    torch.testing.assert_close(gradient(path, x), real.sum(1).expand(1, 5, 8))


RANGES = {
    "both signs": noise(1, 40),
    "positive": np.abs(noise(1, 40)) + 3,
    "negative": -np.abs(noise(1, 40)) - 3,
    "zero": np.zeros((1, 40), F1),
    "half a step of zero": F1([[-1, 1, 0.5, 0.25]]),
}


@pytest.mark.parametrize("values", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("output", ["q", "s", "z"])
def test_a_dynamic_range_gives_codes_scale_and_zero_point_of_onnx_runtime(tmp_path, output, values):
    kind = TensorProto.FLOAT if output == "s" else TensorProto.UINT8
    names = [name if name == output else f"_{name}" for name in ("q", "s", "z")]
    node = helper.make_node("DynamicQuantizeLinear", ["images"], ["found" if n == output else n for n in names])
    model = onnx.load(write_graph(tmp_path / "range.onnx", [node], shape=values.shape, output=kind))
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": values})[0]
    found = dict(zip(("q", "s", "z"), dynamic_quantize_linear(torch.from_numpy(values)), strict=True))[output]
    np.testing.assert_array_equal(found.numpy(), expected.astype(F1))


def test_what_one_tool_writes_and_another_fuses_is_the_same(tmp_path):
    # ConvInteger, Cast, Mul, Mul: what the real convolution gives, but for rounding.
    nodes = [
        helper.make_node("ConvInteger", ["q", "w", "z", "wz"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["scale"]),
        helper.make_node("Mul", ["real", "scale"], ["found"]),
    ]
    path = integer_file(tmp_path / "conv.onnx", nodes, W, 1, 3, 7, 8)
    x = noise(1, 3, 7, 8, seed=8)
    real = torch.from_numpy(W["w"] * W["ws"])
    leaf = torch.from_numpy(x).requires_grad_()
    expected = torch.nn.functional.conv2d(leaf, real)
    # 27 products, each off by at most half a step of the image times the weight.
    bound = 0.5 * float(np.ptp(x)) / 255 * real.abs().flatten(1).sum(1).max()
    assert np.abs(run_file(path, x) - expected.detach().numpy()).max() < bound
    np.testing.assert_allclose(run_twin(path, x), run_file(path, x), rtol=1e-6)
    (slope,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(gradient(path, x), slope)


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint8, np.int8])
def test_quantizing_in_microsoft_s_own_domain(tmp_path, kind):
    constants = {"s": scalar(0.001), "z": np.array(5, kind)}
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"], domain=MS),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["found"], domain=MS),
    ]
    path = write_graph(tmp_path / "ms.onnx", nodes, constants)
    x = noise(*SHAPE)
    np.testing.assert_array_equal(run_twin(path, x), run_file(path, x))


# --- straight-through gradients in closed form -----------------------------------------------------------------------


def one(kind: str, node: onnx.NodeProto, path: Path, values: list[float], **constants: np.ndarray) -> list[float]:
    """The gradient of each output to its own input value, through quantizing, the node and dequantizing."""
    x = F1(values)[:, None, None, None]
    file = coded_file(path, kind, node, constants, shape=("n", 1, 1, 1))
    return gradient(file, x).flatten().tolist()


def test_gradients_pass_roundings_and_stop_at_clamps(tmp_path):
    # uint8: the input's range is -3.75 to 4.15, the result's -6.92 to 6.34.
    node = helper.make_node("QLinearAdd", [*ONE, "c", "s2", "z2", *OUT], ["y"], domain=MS)
    most = np.array([[[[255]]]], np.uint8)  # 165 steps of 0.0173: 2.85
    found = one("uint8", node, tmp_path / "add.onnx", [0.0, 3.4, 3.6, 4.2, -3.7, -3.8], c=most)
    assert found == pytest.approx([1, 1, 0, 0, 1, 0])
    node = helper.make_node("QLinearMul", [*ONE, "c", "s2", "z2", *OUT], ["y"], domain=MS)
    found = one("uint8", node, tmp_path / "mul.onnx", [0.0, 2.1, 2.3, -2.5], c=most)
    assert found == pytest.approx([165 * 0.0173, 165 * 0.0173, 0, 0])
    node = helper.make_node("QLinearLeakyRelu", [*ONE, *OUT], ["y"], domain=MS, alpha=0.25)
    assert one("uint8", node, tmp_path / "leaky.onnx", [1.0, -1.0, 5.0]) == pytest.approx([1, 0.25, 0])
    node = helper.make_node("QLinearSigmoid", [*ONE, *OUT], ["y"], domain=MS)
    share = 1 / (1 + np.exp(-F1(0.031) * 32))
    assert one("uint8", node, tmp_path / "sigmoid.onnx", [1.0]) == pytest.approx([share * (1 - share)], rel=1e-5)
    node = helper.make_node("QLinearConcat", [*OUT, *ONE, *TWO], ["y"], domain=MS, axis=1)
    assert one("uint8", node, tmp_path / "concat.onnx", [1.0, 1.6, 5.0]) == pytest.approx([3, 1, 0])


def test_gradients_of_products_and_means_are_those_of_the_real_values(tmp_path):
    x = noise(2, 3, 5, 5, seed=9) / 4
    leaf = torch.from_numpy(x).requires_grad_()
    node = helper.make_node("QLinearConv", [*ONE, *WEIGHT, *OUT], ["y"])
    path = coded_file(tmp_path / "conv.onnx", "int8", node, EACH, shape=x.shape)
    real = torch.from_numpy(EACH["w"] * EACH["ws"][:, None, None, None])
    (expected,) = torch.autograd.grad(torch.nn.functional.conv2d(leaf, real).sum(), leaf)
    torch.testing.assert_close(gradient(path, x), expected)
    node = helper.make_node("QLinearGlobalAveragePool", [*ONE, *OUT], ["y"], domain=MS)
    path = coded_file(tmp_path / "mean.onnx", "int8", node, shape=x.shape)
    torch.testing.assert_close(gradient(path, x), torch.full(x.shape, 1 / 25))


def test_every_value_has_a_gradient_where_the_range_follows_the_values():
    x = torch.tensor([-1.5, 253.5, 3.0, 0.0], requires_grad=True)
    found, scale, zero_point = dynamic_quantize_linear(x)
    # Steps of 1. The greatest value rounds to 254, behind a zero point of 2: one step outside.
    assert found.tolist() == [0, 255, 5, 2]
    assert not scale.requires_grad
    ((found - zero_point) * scale).sum().backward()
    assert x.grad.tolist() == pytest.approx([1, 1, 1, 1])


# --- codes on their way through other operators ----------------------------------------------------------------------

MOVES: list[tuple[str, list[str], dict[str, Any], dict[str, np.ndarray]]] = [
    ("MaxPool", ["q"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, {}),
    ("Pad", ["q", "pads", "z"], {}, {"pads": ints(0, 0, 1, 2, 0, 0, 3, 0)}),
    ("Transpose", ["q"], {"perm": [0, 2, 3, 1]}, {}),
    ("Resize", ["q", "", "", "sizes"], {"mode": "nearest"}, {"sizes": ints(2, 3, 10, 5)}),
    ("Slice", ["q", "begin", "end"], {}, {"begin": ints(0, 1), "end": ints(2, 3)}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", MOVES, ids=[case[0] for case in MOVES])
def test_codes_are_moved_as_they_are(tmp_path, case, kind):
    operator, inputs, attributes, constants = case
    node = helper.make_node(operator, inputs, ["y"], **attributes)
    assert off(coded_file(tmp_path / "move.onnx", kind, node, constants), noise(*SHAPE)) == (0, 0)


def test_codes_between_two_pixels_are_cut_to_integers(tmp_path):
    # Scales of 2, 5 and 1: positions are exact in binary. With mode linear ONNX Runtime cuts, toward zero.
    node = helper.make_node("Resize", ["q", "", "sizes"], ["y"], mode="linear")
    for kind in KINDS:
        path = coded_file(tmp_path / f"{kind}.onnx", kind, node, {"sizes": F1([1, 1, 2, 4])})
        assert off(path, noise(*SHAPE)) == (0, 0)
        assert (gradient(path, noise(*SHAPE)) > 0).float().mean() > 0.9


def test_codes_cast_to_integers_stay_what_they_are(tmp_path):
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"]),
        helper.make_node("Cast", ["q"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Cast", ["whole"], ["found"], to=TensorProto.FLOAT),
    ]
    path = write_graph(tmp_path / "cast.onnx", nodes, {"s": scalar(0.5), "z": np.array(3, np.int8)})
    x = noise(*SHAPE)
    np.testing.assert_array_equal(run_twin(path, x), run_file(path, x))
    assert (gradient(path, x) == 2).all()


def test_weights_held_in_constant_nodes_are_read(tmp_path):
    node = helper.make_node("QLinearConv", [*ONE, *WEIGHT, *OUT, "b"], ["y"])
    constants = {**EACH, "b": BIAS["b"][:5]}
    path = coded_file(tmp_path / "initializers.onnx", "uint8", node, constants)
    expected = run_twin(path, noise(*SHAPE))
    model = onnx.load(path)
    held = [helper.make_node("Constant", [], [value.name], value=value) for value in model.graph.initializer]
    nodes = [*held, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "nodes.onnx")
    np.testing.assert_array_equal(run_twin(tmp_path / "nodes.onnx", noise(*SHAPE)), expected)
    np.testing.assert_array_equal(run_file(tmp_path / "nodes.onnx", noise(*SHAPE)), expected)


# --- ranges taken from what is run -----------------------------------------------------------------------------------


def test_a_file_with_dynamic_ranges_gives_each_image_its_own(tmp_path):
    node = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["found"])
    path = integer_file(tmp_path / "free.onnx", [node], {}, "n", 3, 4, 4)
    x = noise(5, 3, 4, 4) * F1([1, 2, 4, 8, 16])[:, None, None, None]
    alone = np.concatenate([run_file(path, image[None]) for image in x])
    assert np.abs(run_file(path, x) - alone).max() > 0.01
    assert images_at_once(onnx.load(path).graph) == 1
    np.testing.assert_array_equal(run_twin(path, x), alone)
    assert gradient(path, x).flatten().tolist() == pytest.approx([1] * x.size)


def test_a_fixed_batch_or_none_is_kept(tmp_path):
    node = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["found"])
    path = integer_file(tmp_path / "two.onnx", [node], {}, 2, 3, 4, 4)
    assert images_at_once(onnx.load(path).graph) == 2
    x = noise(5, 3, 4, 4)
    # The last image is alone, and is repeated to make two.
    parts = [run_file(path, part) for part in (x[:2], x[2:4], x[[4, 4]])]
    np.testing.assert_array_equal(run_twin(path, x), np.concatenate(parts)[:5])
    still = coded_file(tmp_path / "static.onnx", "int8", helper.make_node("Identity", ["q"], ["y"]), shape=("n", 3))
    assert images_at_once(onnx.load(still).graph) is None


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("QLinearAdd", ["q", "s", "", "q", "s", "", "ys"], ["y"], domain=MS), "has no zero point"),
        (
            helper.make_node("QLinearGlobalAveragePool", [*ONE, *OUT], ["y"], domain=MS, channels_last=1),
            "channels last in memory",
        ),
        (helper.make_node("QLinearConv", [*ONE, *WEIGHT, *OUT], ["y"], channels_last=1), "unexpected keyword"),
        (helper.make_node("QLinearReduceMean", [*ONE, *OUT], ["y"], domain=MS), "unknown operator com.microsoft::QLin"),
        (helper.make_node("QLinearAdd", [*ONE, *TWO, *OUT], ["y"]), "unknown operator QLinearAdd"),
        (helper.make_node("QLinearConv", [*ONE, *WEIGHT, *OUT], ["y"], domain=MS), "com.microsoft::QLinearConv"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_quantized_operator_cannot_do_is_refused_when_the_file_is_read(tmp_path, node, message):
    path = coded_file(tmp_path / "odd.onnx", "uint8", node, W)
    with pytest.raises(ModelError, match="no differentiable twin") as caught:
        Twin.from_file(path)
    assert message in str(caught.value)
