"""The twin computes what ONNX Runtime computes, and its gradient is the straight-through one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from twin_files import SHAPE, ints, noise, run_file, run_twin, write_graph

from robustgate.core.errors import ModelError
from robustgate.twin.graph import Twin

# --- quantization: equal to the last bit -----------------------------------------------------------------------------


def quantize_graph(path: Path, scale: np.ndarray, zero: np.ndarray, shape: tuple[int, ...], **attributes: Any) -> Path:
    """A file that quantizes only: the integers themselves are its output."""
    node = helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["found"], **attributes)
    kind = helper.np_dtype_to_tensor_dtype(zero.dtype)
    return write_graph(path, [node], {"scale": scale, "zero": zero}, shape=shape, output=kind)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("scale", [0.25, 0.1, 0.0131, 3.0])
def test_quantizing_a_grid_with_halves_gives_the_integers_of_onnx_runtime(tmp_path, kind, scale):
    # Every half step of twice the range, so that saturation and all ties occur, and a random lot between them.
    steps = np.arange(-600, 600, dtype=np.float32) / 2 * np.float32(scale)
    x = np.concatenate([steps, noise(20_000) * 40 * scale]).astype(np.float32)
    zero = np.array(7 if kind is np.int8 else 121, dtype=kind)
    path = quantize_graph(tmp_path / "q.onnx", np.float32(scale).reshape(()), zero, x.shape)
    expected = run_file(path, x)
    assert {np.iinfo(kind).min, np.iinfo(kind).max} <= set(expected.tolist())
    np.testing.assert_array_equal(run_twin(path, x), expected.astype(np.float32))


def test_halves_round_to_even_and_values_saturate():
    # Closed form, without ONNX Runtime: scale 1/2, zero point 10.
    from robustgate.twin.quantization import quantize_linear

    x = torch.tensor([0.25, 0.75, 1.25, -0.25, -0.75, 200.0, -200.0])
    found = quantize_linear(x, torch.tensor(0.5), torch.tensor(10, dtype=torch.uint8))
    assert found.tolist() == [10, 12, 12, 10, 8, 255, 0]


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_quantizing_along_an_axis_and_back_equals_onnx_runtime(tmp_path, axis, kind):
    x = noise(4, 5, 6)
    size = x.shape[axis]
    constants = {
        "scale": np.linspace(0.004, 0.02, size, dtype=np.float32),
        "zero": np.linspace(3, 90, size).astype(kind),
    }
    there = helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"], axis=axis)
    back = helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["found"], axis=axis)
    path = write_graph(tmp_path / "qdq.onnx", [there, back], constants, shape=x.shape)
    np.testing.assert_array_equal(run_twin(path, x), run_file(path, x))


def test_constant_weights_and_32_bit_biases_are_dequantized_exactly(tmp_path):
    # 2**24 + 1 and its like have no float32 form: a detour through float before the zero point is taken off shows.
    constants = {
        "bias": np.array([2**24 + 1, -(2**31), 2**31 - 1, 12345, -7], dtype=np.int32),
        "bias_scale": np.float32([0.1, 1e-6, 3e-7, 0.5, 1.0]),
        "weight": np.array([[-128, 127, 3, 0, 5]], dtype=np.int8),
        "weight_scale": np.float32(0.017).reshape(()),
        "weight_zero": np.array(-3, dtype=np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["bias", "bias_scale"], ["b"], axis=0),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"]),
        helper.make_node("Mul", ["images", "w"], ["scaled"]),
        helper.make_node("Add", ["scaled", "b"], ["found"]),
    ]
    path = write_graph(tmp_path / "constants.onnx", nodes, constants, shape=("n", 5))
    for x in (np.zeros((1, 5), np.float32), noise(3, 5)):
        np.testing.assert_array_equal(run_twin(path, x), run_file(path, x))
    assert [step.title for step in Twin.from_file(path).steps] == ["node '-> scaled' (Mul)", "node '-> found' (Add)"]


def test_the_gradient_passes_where_the_value_is_inside_the_range_and_nowhere_else(tmp_path):
    # scale 1/2, zero point 10, uint8: inside are the x whose rounded 2x lies in [-10, 245], so -5.25 to 122.75.
    weights = noise(8)
    constants = {"scale": np.float32(0.5).reshape(()), "zero": np.array(10, np.uint8), "weights": weights}
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        helper.make_node("Mul", ["y", "weights"], ["found"]),
    ]
    twin = Twin.from_file(write_graph(tmp_path / "ste.onnx", nodes, constants, shape=("n", 8)))
    x = torch.tensor([[-6.0, -5.3, -5.2, 0.1, 0.25, 122.6, 122.8, 1e6]], requires_grad=True)
    twin(x).sum().backward()
    inside = torch.tensor([0.0, 0, 1, 1, 1, 1, 0, 0])
    torch.testing.assert_close(x.grad, (inside * torch.from_numpy(weights))[None])


def test_the_gradient_along_an_axis_uses_each_slice_s_own_range(tmp_path):
    constants = {"scale": np.float32([0.01, 1.0]), "zero": np.array([0, 0], np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"]),
        helper.make_node("Relu", ["q"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "scale", "zero"], ["found"]),
    ]
    twin = Twin.from_file(write_graph(tmp_path / "axis.onnx", nodes, constants, shape=("n", 2, 2)))
    x = torch.tensor([[[1.0, 5.0], [1.0, 5.0]], [[-1.0, -5.0], [127.4, 127.6]]], requires_grad=True)
    twin(x).sum().backward()
    assert x.grad.tolist() == [[[1, 0], [1, 1]], [[0, 0], [1, 0]]]


# --- operators, one at a time ----------------------------------------------------------------------------------------

W3 = noise(4, 3, 3, 3, seed=1)
ROI = np.zeros(0, np.float32)
UP = [noise(3, 4, 3, 3, seed=2), noise(4)]
POOL = {"kernel_shape": [3, 3]}
F1 = np.float32

# (operator, attributes, constant inputs by place, shape of the images, opset)
OPERATORS: list[tuple[str, dict[str, Any], list[np.ndarray | None], tuple[int, ...], int]] = [
    ("Conv", {"pads": [1, 1, 1, 1], "strides": [2, 2]}, [W3, noise(4)], SHAPE, 18),
    ("Conv", {"pads": [0, 1, 2, 3], "dilations": [2, 1]}, [W3], SHAPE, 18),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 3]}, [noise(4, 3, 4, 2)], SHAPE, 18),
    ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 3]}, [noise(4, 3, 4, 2)], SHAPE, 18),
    ("Conv", {"auto_pad": "VALID"}, [W3], SHAPE, 18),
    ("Conv", {"group": 3, "kernel_shape": [3, 3]}, [noise(6, 1, 3, 3), noise(6)], SHAPE, 11),
    ("Conv", {"pads": [2, 0]}, [noise(4, 3, 3)], (2, 3, 9), 18),
    ("Gemm", {"transB": 1}, [noise(4, 8), noise(4)], (5, 8), 18),
    ("Gemm", {"transA": 1, "alpha": 0.5, "beta": 2.0}, [noise(5, 4), noise(8, 1)], (5, 8), 11),
    ("Gemm", {}, [noise(8, 4)], (5, 8), 13),
    ("MatMul", {}, [noise(3, 8, 4)], SHAPE, 18),
    ("Relu", {}, [], SHAPE, 18),
    ("Clip", {}, [F1(-0.5).reshape(()), F1(0.7).reshape(())], SHAPE, 18),
    ("Clip", {}, [None, F1(0.7).reshape(())], SHAPE, 13),
    ("Clip", {"min": 0.0, "max": 6.0}, [], SHAPE, 7),
    ("Add", {}, [noise(8)], SHAPE, 18),
    ("Sub", {}, [noise(3, 1, 1)], SHAPE, 18),
    ("Mul", {}, [noise(3, 1, 1)], SHAPE, 18),
    ("Div", {}, [noise(3, 1, 1)], SHAPE, 18),
    ("Pow", {}, [F1(2).reshape(())], SHAPE, 18),
    ("Max", {}, [noise(8), F1(0.1).reshape(())], SHAPE, 18),
    ("Min", {}, [noise(8)], SHAPE, 18),
    ("PRelu", {}, [noise(3, 1, 1)], SHAPE, 18),
    ("MaxPool", {**POOL, "strides": [2, 2], "pads": [1, 1, 1, 1]}, [], SHAPE, 18),
    ("MaxPool", {**POOL, "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}, [], SHAPE, 18),
    ("MaxPool", {**POOL, "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}, [], (1, 2, 6, 10), 18),
    # The third window would start behind the image.
    (
        "MaxPool",
        {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        [],
        (1, 2, 5, 5),
        18,
    ),
    ("MaxPool", {**POOL, "dilations": [2, 2]}, [], SHAPE, 18),
    ("MaxPool", {**POOL, "auto_pad": "SAME_LOWER", "strides": [2, 2]}, [], SHAPE, 18),
    ("MaxPool", {"kernel_shape": [3], "strides": [2]}, [], (2, 3, 9), 18),
    ("AveragePool", {**POOL, "strides": [2, 2]}, [], SHAPE, 18),
    ("AveragePool", {**POOL, "strides": [2, 2], "pads": [1, 1, 1, 1]}, [], SHAPE, 18),
    ("AveragePool", {**POOL, "strides": [2, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1}, [], SHAPE, 18),
    ("AveragePool", {**POOL, "strides": [2, 2], "ceil_mode": 1}, [], (1, 2, 8, 10), 19),
    ("AveragePool", {**POOL, "strides": [2, 2], "pads": [1, 1, 0, 0], "ceil_mode": 1}, [], (1, 2, 8, 10), 19),
    (
        "AveragePool",
        {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        [],
        (1, 2, 5, 5),
        19,
    ),
    (
        "AveragePool",
        {**POOL, "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1, "count_include_pad": 1},
        [],
        (1, 2, 7, 10),
        19,
    ),
    ("AveragePool", {**POOL, "auto_pad": "SAME_UPPER", "strides": [2, 2]}, [], SHAPE, 18),
    ("GlobalAveragePool", {}, [], SHAPE, 18),
    ("GlobalMaxPool", {}, [], SHAPE, 18),
    ("ReduceMean", {"axes": [2, -1], "keepdims": 0}, [], SHAPE, 13),
    ("ReduceMean", {"keepdims": 0}, [ints(2, -1)], SHAPE, 18),
    ("ReduceMean", {}, [], SHAPE, 18),
    ("ReduceMean", {"noop_with_empty_axes": 1}, [], SHAPE, 18),
    ("ReduceSum", {}, [ints(1)], SHAPE, 18),
    ("ReduceMax", {"axes": [1]}, [], SHAPE, 13),
    ("ReduceMin", {}, [ints(1, 2)], SHAPE, 18),
    ("Reshape", {}, [ints(0, -1, 4)], SHAPE, 18),
    ("Flatten", {}, [], SHAPE, 18),
    ("Flatten", {"axis": -1}, [], SHAPE, 18),
    ("Flatten", {"axis": 0}, [], SHAPE, 18),
    ("Transpose", {"perm": [0, 2, 3, 1]}, [], SHAPE, 18),
    ("Transpose", {}, [], SHAPE, 18),
    ("Concat", {"axis": -3}, [noise(2, 1, 7, 8), noise(2, 2, 7, 8)], SHAPE, 18),
    ("Slice", {"starts": [1, -3], "ends": [9, -1], "axes": [2, 3]}, [], SHAPE, 9),
    ("Slice", {}, [ints(0, 1), ints(2**63 - 1, 100), ints(3, 2), ints(2, 3)], SHAPE, 18),
    ("Slice", {}, [ints(-1, 5), ints(-(2**63), 1), ints(3, 2), ints(-1, -2)], SHAPE, 18),
    ("Slice", {}, [ints(1), ints(2)], SHAPE, 18),
    ("Pad", {}, [ints(0, 1, 0, 0, 0, 2, 0, 0)], SHAPE, 18),
    ("Pad", {}, [ints(0, 0, 1, -2, 0, 0, -1, 3), F1(0.3).reshape(())], SHAPE, 13),
    ("Pad", {}, [ints(1, 2, 3, 4), F1(-1).reshape(()), ints(-1, 2)], SHAPE, 18),
    ("Pad", {"mode": "reflect"}, [ints(0, 0, 3, 2, 0, 0, 1, 5)], SHAPE, 18),
    ("Pad", {"mode": "edge"}, [ints(0, 0, 3, 2, 0, 0, 1, 9)], SHAPE, 18),
    ("Pad", {"mode": "wrap"}, [ints(0, 0, 3, 2, 0, 0, 1, 5)], SHAPE, 19),
    ("Pad", {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": 2.0}, [], SHAPE, 10),
    ("Gather", {"axis": 1}, [ints(2, 0, -1, 2)], SHAPE, 18),
    ("Gather", {"axis": -1}, [np.array([[1, -8], [7, 0]], np.int32)], SHAPE, 18),
    ("Gather", {"axis": 2}, [np.array(-1, np.int64)], SHAPE, 18),
    ("GatherND", {}, [ints(1, 0, 0, 2, 1, -1).reshape(3, 2)], SHAPE, 18),
    ("GatherND", {}, [ints(0, 2, 6, 7, 1, 0, 3, -2).reshape(2, 1, 4)], SHAPE, 18),
    ("Squeeze", {"axes": [1, -1]}, [], (2, 1, 3, 1), 11),
    ("Squeeze", {}, [ints(1)], (2, 1, 3, 1), 18),
    ("Squeeze", {}, [], (2, 1, 3, 1), 18),
    ("Unsqueeze", {"axes": [0, 3]}, [], (2, 3), 11),
    ("Unsqueeze", {}, [ints(-1, 1)], (2, 3), 18),
    ("Cast", {"to": TensorProto.FLOAT}, [], SHAPE, 18),
    ("Identity", {}, [], SHAPE, 18),
    ("Dropout", {}, [], SHAPE, 18),
    ("Sigmoid", {}, [], SHAPE, 18),
    ("Tanh", {}, [], SHAPE, 18),
    ("Abs", {}, [], SHAPE, 18),
    ("Neg", {}, [], SHAPE, 18),
    ("Exp", {}, [], SHAPE, 18),
    ("Erf", {}, [], SHAPE, 18),
    ("HardSigmoid", {}, [], SHAPE, 18),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.4}, [], SHAPE, 18),
    ("HardSwish", {}, [], SHAPE, 18),
    ("LeakyRelu", {}, [], SHAPE, 18),
    ("LeakyRelu", {"alpha": 0.2}, [], SHAPE, 18),
    ("Elu", {"alpha": 0.5}, [], SHAPE, 18),
    ("Gelu", {}, [], SHAPE, 20),
    ("Gelu", {"approximate": "tanh"}, [], SHAPE, 20),
    ("Softmax", {}, [], SHAPE, 18),
    ("Softmax", {"axis": 1}, [], SHAPE, 18),
    ("Softmax", {}, [], SHAPE, 11),
    ("Softmax", {"axis": 2}, [], SHAPE, 11),
    ("BatchNormalization", {"epsilon": 0.01}, [noise(3), noise(3, seed=1), noise(3, seed=2), abs(noise(3))], SHAPE, 18),
    ("LayerNormalization", {"axis": 2}, [noise(7, 8), noise(7, 8, seed=1)], SHAPE, 18),
    ("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, [noise(3, 4, 3, 3), noise(4)], SHAPE, 18),
    ("ConvTranspose", {"strides": [2, 3], "output_padding": [1, 2], "pads": [0, 1, 2, 0]}, UP, SHAPE, 11),
    ("ConvTranspose", {"strides": [3, 2], "output_padding": [2, 0], "pads": [0, 0, 1, 1]}, UP, SHAPE, 11),
    ("ConvTranspose", {"group": 3, "dilations": [2, 1]}, [noise(3, 2, 3, 3)], SHAPE, 18),
    ("ConvTranspose", {"strides": [2, 2], "output_shape": [14, 17]}, UP, SHAPE, 18),
    ("ConvTranspose", {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, UP, SHAPE, 18),
    ("ConvTranspose", {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, UP, SHAPE, 18),
    ("ConvTranspose", {"auto_pad": "VALID", "strides": [2]}, [noise(3, 2, 3)], (2, 3, 9), 18),
    ("InstanceNormalization", {"epsilon": 0.01}, [noise(3), noise(3, seed=1)], SHAPE, 18),
    ("GroupNormalization", {"num_groups": 2}, [noise(2), noise(2, seed=1)], (2, 6, 4, 5), 18),
    ("GroupNormalization", {"num_groups": 2}, [noise(6), noise(6, seed=1)], (2, 6, 4, 5), 21),
    ("LRN", {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 2.0}, [], (2, 7, 3, 4), 18),
    ("LpNormalization", {"axis": 1}, [], SHAPE, 18),
    ("LpNormalization", {"p": 1}, [], SHAPE, 18),
    ("Einsum", {"equation": "nchw, cd -> ndhw"}, [noise(3, 5)], SHAPE, 18),
    ("Mish", {}, [], SHAPE, 18),
    ("Softplus", {}, [], SHAPE, 18),
    ("Softsign", {}, [], SHAPE, 18),
    ("Selu", {}, [], SHAPE, 18),
    ("Celu", {"alpha": 0.7}, [], SHAPE, 18),
    ("ThresholdedRelu", {"alpha": 0.3}, [], SHAPE, 18),
    ("LogSoftmax", {"axis": 1}, [], SHAPE, 18),
    ("LogSoftmax", {}, [], SHAPE, 11),
    ("Sin", {}, [], SHAPE, 18),
    ("Cos", {}, [], SHAPE, 18),
    ("Sum", {}, [noise(8), noise(3, 1, 1)], SHAPE, 18),
    ("Mean", {}, [noise(8), noise(3, 1, 1)], SHAPE, 18),
    ("Mod", {"fmod": 1}, [F1(0.7).reshape(())], SHAPE, 18),
    ("ReduceL1", {"keepdims": 0}, [ints(1, 2)], SHAPE, 18),
    ("ReduceL2", {"axes": [1]}, [], SHAPE, 13),
    ("ReduceLogSumExp", {}, [ints(-1)], SHAPE, 18),
    ("ReduceSumSquare", {}, [ints(2, 3)], SHAPE, 18),
    ("Tile", {}, [ints(1, 2, 1, 3)], SHAPE, 18),
    ("DepthToSpace", {"blocksize": 2}, [], (2, 12, 3, 4), 18),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, [], (2, 12, 3, 4), 18),
    ("SpaceToDepth", {"blocksize": 2}, [], (2, 3, 4, 6), 18),
    ("Expand", {}, [ints(2, 1, 4, 3, 1)], (3, 5), 18),
    ("Where", {}, [np.ones((3, 1, 1), bool), noise(8)], SHAPE, 18),
    ("Upsample", {"mode": "nearest"}, [F1([1, 1, 2, 3])], SHAPE, 9),
    ("Upsample", {"mode": "linear"}, [F1([1, 1, 2, 2])], SHAPE, 9),
    ("Resize", {"mode": "nearest"}, [ROI, F1([1, 1, 2, 2])], SHAPE, 18),
    ("Resize", {"mode": "linear"}, [ROI, F1([1, 1, 1.7, 0.6])], SHAPE, 18),
    ("Resize", {"mode": "linear", "axes": [3, 2]}, [None, None, ints(11, 5)], SHAPE, 18),
    (
        "Resize",
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        [None, None, ints(2, 3, 9, 16)],
        SHAPE,
        18,
    ),
    (
        "Resize",
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
        [None, None, ints(2, 3, 1, 9)],
        SHAPE,
        18,
    ),
    *[
        (
            "Resize",
            {"mode": "nearest", "coordinate_transformation_mode": where, "nearest_mode": rounding},
            [None, None, ints(2, 3, 10, 5)],
            SHAPE,
            18,
        )
        for where in ("half_pixel", "asymmetric", "align_corners")
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ],
]


@pytest.mark.parametrize(
    ("operator", "attributes", "inputs", "shape", "opset"),
    OPERATORS,
    ids=[f"{place}-{case[0]}" for place, case in enumerate(OPERATORS)],
)
def test_an_operator_computes_what_onnx_runtime_computes(tmp_path, operator, attributes, inputs, shape, opset):
    names = [f"c{place}" if value is not None else "" for place, value in enumerate(inputs)]
    constants = {name: value for name, value in zip(names, inputs, strict=True) if value is not None}
    if operator == "Where":
        # The images come second.
        constants["c0"] = noise(3, 1, 1) > 0
        order = ["c0", "images", "c1"]
    else:
        order = ["images", *names]
    node = helper.make_node(operator, order, ["found"], **attributes)
    path = write_graph(tmp_path / "node.onnx", [node], constants, shape=shape, opset=opset)
    x = noise(*shape, seed=7)
    expected = run_file(path, x)
    found = run_twin(path, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    check_gradient(path, x, expected.shape)


def check_gradient(path: Path, x: np.ndarray, shape: tuple[int, ...]) -> None:
    """Compare the slope in a random direction with differences of what ONNX Runtime computes."""
    weights, direction, step = noise(*shape, seed=8), noise(*x.shape, seed=9), np.float32(1e-3)
    leaf = torch.from_numpy(x).requires_grad_()
    (found,) = torch.autograd.grad((Twin.from_file(path)(leaf) * torch.from_numpy(weights)).sum(), leaf)
    ends = [run_file(path, x + sign * step * direction).astype(float) for sign in (1, -1)]
    slopes = (ends[0] - ends[1]) / (2 * step) * weights
    scale = float(np.abs(slopes).sum()) + 1e-3
    assert float((found.double() * torch.from_numpy(direction)).sum()) == pytest.approx(slopes.sum(), abs=0.01 * scale)


@pytest.mark.parametrize("operator", ["Round", "Floor", "Ceil"])
def test_rounding_counts_as_the_identity(tmp_path, operator):
    path = write_graph(tmp_path / "round.onnx", [helper.make_node(operator, ["images"], ["found"])])
    x = np.concatenate([np.arange(-8, 8) / 4, noise(320)]).astype(np.float32).reshape(SHAPE)
    np.testing.assert_array_equal(run_twin(path, x), run_file(path, x))
    leaf = torch.from_numpy(x).requires_grad_()
    Twin.from_file(path)(leaf).sum().backward()
    assert (leaf.grad == 1).all()


@pytest.mark.parametrize("operator", ["Reciprocal", "Log", "Sqrt"])
def test_functions_of_what_is_above_zero(tmp_path, operator):
    path = write_graph(tmp_path / "positive.onnx", [helper.make_node(operator, ["images"], ["found"])])
    x = np.abs(noise(*SHAPE)) + np.float32(0.5)
    np.testing.assert_allclose(run_twin(path, x), run_file(path, x), rtol=2e-6, atol=2e-6)
    check_gradient(path, x, x.shape)


def test_the_length_of_nothing_has_a_gradient_of_zero(tmp_path):
    for operator in ("ReduceL2", "LpNormalization"):
        path = write_graph(tmp_path / "length.onnx", [helper.make_node(operator, ["images"], ["found"])])
        leaf = torch.zeros(SHAPE, requires_grad=True)
        found = Twin.from_file(path)(leaf)
        found.sum().backward()
        assert not found.any()
        assert leaf.grad.isfinite().all()


COMPARISONS = ["Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"]


@pytest.mark.parametrize("operator", COMPARISONS)
def test_comparisons_pick_among_values(tmp_path, operator):
    # Not(a > b) and (a > b or false): everything that decides, ties included.
    nodes = [
        helper.make_node(operator, ["images", "c"], ["said"]),
        helper.make_node("Not", ["said"], ["denied"]),
        helper.make_node("And", ["denied", "flags"], ["both"]),
        helper.make_node("Or", ["both", "said"], ["either"]),
        helper.make_node("Xor", ["either", "denied"], ["one"]),
        helper.make_node("Mul", ["images", "images"], ["square"]),
        helper.make_node("Where", ["one", "square", "images"], ["found"]),
    ]
    x = np.round(noise(*SHAPE))
    path = write_graph(tmp_path / "compare.onnx", nodes, {"c": F1(1).reshape(()), "flags": noise(8) > 0})
    np.testing.assert_array_equal(run_twin(path, x), run_file(path, x))
    leaf = torch.from_numpy(x).requires_grad_()
    found = Twin.from_file(path)(leaf)
    found.sum().backward()
    expected = torch.where(found == leaf, torch.ones(()), 2 * leaf)
    assert ((leaf.grad == expected) | (leaf * leaf == leaf)).all()


FUSED: list[tuple[str, list[float]]] = [
    ("", []),
    ("Relu", []),
    ("Sigmoid", []),
    ("Tanh", []),
    ("LeakyRelu", [0.2]),
    ("Clip", [-0.5, 1.5]),
    ("HardSigmoid", [0.1, 0.4]),
]


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize(("activation", "parameters"), FUSED, ids=[name for name, _ in FUSED])
def test_what_onnx_runtime_fused_is_read(tmp_path, activation, parameters, summed):
    attributes = {"activation_params": parameters} if parameters else {}
    attributes |= {"activation": activation} if activation else {}
    inputs = ["images", "w", "b", *(["z"] if summed else [])]
    nodes = [helper.make_node("FusedConv", inputs, ["found"], domain="com.microsoft", **attributes)]
    constants = {"w": W3, "b": noise(4), "z": noise(2, 4, 5, 6)}
    path = write_graph(tmp_path / "fused.onnx", nodes, constants)
    x = noise(*SHAPE)
    np.testing.assert_allclose(run_twin(path, x), run_file(path, x), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("operator", "attributes"), [("Gelu", {}), ("QuickGelu", {}), ("QuickGelu", {"alpha": 1.0})])
def test_activations_of_microsoft_s_domain(tmp_path, operator, attributes):
    node = helper.make_node(operator, ["images"], ["found"], domain="com.microsoft", **attributes)
    path = write_graph(tmp_path / "gelu.onnx", [node])
    np.testing.assert_allclose(run_twin(path, noise(*SHAPE)), run_file(path, noise(*SHAPE)), rtol=2e-5, atol=2e-5)


def test_splits_of_every_spelling(tmp_path):
    cases = [
        (18, {"axis": 1}, [ints(1, 2)], 2),
        (18, {"axis": -1, "num_outputs": 3}, [], 3),
        (13, {"axis": 3}, [], 2),
        (11, {"axis": 2, "split": [3, 4]}, [], 2),
    ]
    for place, (opset, attributes, inputs, count) in enumerate(cases):
        parts = [f"part{i}" for i in range(count)]
        constants = {f"c{i}": value for i, value in enumerate(inputs)}
        nodes = [
            helper.make_node("Split", ["images", *constants], parts, **attributes),
            helper.make_node("Concat", parts[::-1], ["found"], axis=attributes["axis"]),
        ]
        path = write_graph(tmp_path / f"{place}.onnx", nodes, constants, opset=opset)
        np.testing.assert_array_equal(run_twin(path, noise(*SHAPE)), run_file(path, noise(*SHAPE)))


def test_shapes_computed_on_the_way_follow_the_batch(tmp_path):
    nodes = [
        helper.make_node("Shape", ["images"], ["sizes"]),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(ints(0))),
        helper.make_node("Gather", ["sizes", "zero"], ["batch"]),
        helper.make_node("Constant", [], ["rest"], value_ints=[-1, 4]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["images", "target"], ["found"]),
    ]
    path = write_graph(tmp_path / "shape.onnx", nodes, shape=("n", 3, 7, 8))
    for batch in (1, 2, 17):
        x = noise(batch, 3, 7, 8)
        np.testing.assert_array_equal(run_twin(path, x), run_file(path, x))
    # What a device move takes along is complete: the meta device refuses to mix with the host.
    images = torch.empty(5, 3, 7, 8, device="meta")
    assert Twin.from_file(path).to("meta")(images).shape == (5, 42, 4)


def test_rows_picked_by_a_range_over_the_batch(tmp_path):
    # What torch's exporter makes of images whose channels lie last in memory.
    nodes = [
        helper.make_node("Shape", ["images"], ["sizes"], end=1),
        helper.make_node("Squeeze", ["sizes"], ["batch"]),
        helper.make_node("Range", ["first", "batch", "step"], ["rows"]),
        helper.make_node("Gather", ["images", "rows"], ["found"]),
    ]
    constants = {"first": ints(1).reshape(()), "step": ints(2).reshape(())}
    path = write_graph(tmp_path / "range.onnx", nodes, constants, shape=("n", 3, 7, 8))
    x = noise(6, 3, 7, 8)
    np.testing.assert_array_equal(run_twin(path, x), run_file(path, x))


def test_a_fixed_batch_is_kept_whatever_the_number_of_images(tmp_path):
    node = helper.make_node("Reshape", ["images", "target"], ["found"])
    path = write_graph(tmp_path / "fixed.onnx", [node], {"target": ints(2, -1)}, shape=(2, 3, 1, 1))
    x = noise(5, 3, 1, 1)
    assert run_twin(path, x).tolist() == x.reshape(5, 3).tolist()


# --- refusals --------------------------------------------------------------------------------------------------------


def test_every_unknown_operator_is_named_at_once_with_its_node_and_file(tmp_path):
    nodes = [
        helper.make_node("Det", ["images"], ["a"], name="first"),
        helper.make_node("SkipLayerNormalization", ["a"], ["b"], name="second", domain="com.microsoft"),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("NonZero", ["c"], ["found"]),
    ]
    path = write_graph(tmp_path / "odd.onnx", nodes)
    with pytest.raises(ModelError) as caught:
        Twin.from_file(path)
    assert str(caught.value) == (
        f"{path}: no differentiable twin: unknown operator Det (node 'first'); "
        "NonZero (node '-> found'); com.microsoft::SkipLayerNormalization (node 'second')"
    )


@pytest.mark.parametrize(
    ("operator", "attributes", "message"),
    [
        ("Relu", {"negative_slope": 0.1}, "node 'it' (Relu): got an unexpected keyword argument 'negative_slope'"),
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilated window"),
        ("Pad", {"mode": "mirror", "pads": [0] * 8}, "pads with mode = 'mirror' (in node 'it' (Pad))"),
        ("Cast", {"to": TensorProto.STRING}, "casts to type 8"),
        ("Cast", {"to": TensorProto.INT32}, "makes torch.int32 of numbers that depend on the image"),
        ("Reshape", {"shape": [7, 7]}, "shape '[7, 7]' is invalid"),
    ],
)
def test_what_a_known_operator_cannot_do_is_refused_when_the_file_is_read(tmp_path, operator, attributes, message):
    node = helper.make_node(operator, ["images"], ["found"], name="it", **attributes)
    path = write_graph(tmp_path / "node.onnx", [node])
    with pytest.raises(ModelError, match="no differentiable twin") as caught:
        Twin.from_file(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_second_output_that_somebody_reads_is_refused(tmp_path):
    nodes = [
        helper.make_node("MaxPool", ["images"], ["pooled", "where"], kernel_shape=[2, 2], name="pool"),
        helper.make_node("Cast", ["where"], ["found"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(ModelError, match=r"node 'pool' \(MaxPool\): only its first output is known"):
        Twin.from_file(write_graph(tmp_path / "two.onnx", nodes))


def test_an_output_without_a_gradient_is_refused(tmp_path):
    nodes = [
        helper.make_node("Shape", ["images"], ["sizes"]),
        helper.make_node("Cast", ["sizes"], ["found"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(ModelError, match="no gradient reaches its output 'found'"):
        Twin.from_file(write_graph(tmp_path / "cut.onnx", nodes))


def test_files_that_are_none_or_not_whole_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.onnx: cannot be read"):
        Twin.from_file(tmp_path / "absent.onnx")
    for content in (b"\xff\xfe not a model", b""):
        (tmp_path / "text.onnx").write_bytes(content)
        with pytest.raises(ModelError, match="not an ONNX file"):
            Twin.from_file(tmp_path / "text.onnx")
    node = helper.make_node("Add", ["images", "c"], ["found"])
    path = write_graph(tmp_path / "whole.onnx", [node], {"c": noise(*SHAPE)})
    onnx.save(onnx.load(path), tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
    with pytest.raises(ModelError, match=r"weights are kept in another file \(1 tensors, 'c' first\)"):
        Twin.from_file(tmp_path / "split.onnx")


def test_a_file_with_two_outputs_or_integer_images_is_refused(tmp_path):
    node = helper.make_node("Relu", ["images"], ["found"])
    model = onnx.load(write_graph(tmp_path / "one.onnx", [node]))
    model.graph.output.append(helper.make_tensor_value_info("images", TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(ModelError, match="expected one output, found 2"):
        Twin.from_file(tmp_path / "two.onnx")
    del model.graph.output[1]
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, tmp_path / "bytes.onnx")
    with pytest.raises(ModelError, match="expected one float32 input, the images, found 'images'"):
        Twin.from_file(tmp_path / "bytes.onnx")


# --- a published file ------------------------------------------------------------------------------------------------


def test_a_published_detector_gives_what_its_file_gives(real_data):
    path = real_data / "weights" / "fastestdet_coco.onnx"
    twin = Twin.from_file(path)
    images = np.random.default_rng(0).random((2, 3, 352, 352), dtype=np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    # The file takes one image at a time.
    expected = np.concatenate([session.run(None, {session.get_inputs()[0].name: image[None]})[0] for image in images])
    x = torch.from_numpy(images).requires_grad_()
    found = twin(x)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-4)
    found.square().sum().backward()
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()
    assert not any(parameter.requires_grad for parameter in twin.parameters())
