"""Operators on quantized tensors, as ONNX Runtime computes them: QLinear*, *Integer and their fused forms.

They take codes (float32 holding integers, see `quantization`) and give codes; every rounding is straight-through. An
average or a softmax may come out one step away from ONNX Runtime's where it lies on the edge between two codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from robustgate.core.errors import ModelError
from robustgate.twin import activations, layers
from robustgate.twin.qproducts import (
    conv_integer,
    dynamic_quantize_matmul,
    matmul_integer,
    matmul_integer_to_float,
    present,
    qgemm,
    qlinear_conv,
    qlinear_matmul,
    requantized,
    signed,
)
from robustgate.twin.quantization import (
    dequantize_linear,
    dynamic_quantize_linear,
    limits_of,
    quantize_linear,
    to_codes,
)


def recoded(values: Tensor, scale: Tensor, zero_point: Tensor | None, *others: Tensor | None) -> Tensor:
    """Return the codes of real values. A zero point that is left out is 0, of the type of the first other one."""
    return quantize_linear(values, scale, present(zero_point, *others))


def qlinear_add(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor | None,
    c_scale: Tensor,
    c_zero_point: Tensor | None = None,
) -> Tensor:
    """QLinearAdd; the zero point is added before rounding."""
    zero_point = present(c_zero_point, a_zero_point, b_zero_point)
    left, right = signed(a, a_zero_point) * (a_scale / c_scale), signed(b, b_zero_point) * (b_scale / c_scale)
    return to_codes(left + right + zero_point, 0.0, limits_of(zero_point))


def qlinear_mul(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor | None,
    c_scale: Tensor,
    c_zero_point: Tensor | None = None,
) -> Tensor:
    """QLinearMul; the zero point is added before rounding."""
    zero_point = present(c_zero_point, a_zero_point, b_zero_point)
    product = signed(a, a_zero_point) * signed(b, b_zero_point)
    return to_codes(product * (a_scale * b_scale / c_scale) + zero_point, 0.0, limits_of(zero_point))


def qlinear_global_average_pool(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    channels_last: int = 0,
) -> Tensor:
    """QLinearGlobalAveragePool."""
    refuse_channels_last(channels_last)
    sums = signed(x, x_zero_point).sum(tuple(range(2, x.dim())), keepdim=True)
    multiplier = x_scale / (y_scale * (x[0, 0].numel()))
    return requantized(sums, multiplier, present(y_zero_point, x_zero_point), 1)


def qlinear_average_pool(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    channels_last: int = 0,
    **attributes: Any,
) -> Tensor:
    """QLinearAveragePool, of the real values; the zero point is added before rounding."""
    refuse_channels_last(channels_last)
    zero_point = present(y_zero_point, x_zero_point)
    averages = layers.average_pool(dequantize_linear(x, x_scale, x_zero_point), **attributes)
    return to_codes(averages / y_scale + zero_point, 0.0, limits_of(zero_point))


def refuse_channels_last(channels_last: int) -> None:
    """Raise ModelError for what only a graph optimised for one machine has."""
    if channels_last:
        raise ModelError("has its channels last in memory (channels_last = 1)")


def qlinear_concat(y_scale: Tensor, y_zero_point: Tensor, *inputs: Tensor, axis: int) -> Tensor:
    """QLinearConcat of (codes, scale, zero point), each."""
    parts = zip(inputs[::3], inputs[1::3], inputs[2::3], strict=True)
    return torch.cat([recoded(dequantize_linear(*part), y_scale, y_zero_point) for part in parts], axis)


def qlinear_where(
    condition: Tensor,
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    y: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    z_scale: Tensor,
    z_zero_point: Tensor,
) -> Tensor:
    """QLinearWhere."""
    first = recoded(dequantize_linear(x, x_scale, x_zero_point), z_scale, z_zero_point)
    second = recoded(dequantize_linear(y, y_scale, y_zero_point), z_scale, z_zero_point)
    return torch.where(condition.to(x.device), first, second)


def qlinear_sigmoid(
    x: Tensor, x_scale: Tensor, x_zero_point: Tensor | None, y_scale: Tensor, y_zero_point: Tensor | None = None
) -> Tensor:
    """QLinearSigmoid."""
    values = torch.sigmoid(dequantize_linear(x, x_scale, x_zero_point))
    return recoded(values, y_scale, y_zero_point, x_zero_point)


def qlinear_leaky_relu(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    alpha: float = 0.01,
) -> Tensor:
    """QLinearLeakyRelu."""
    values = activations.leaky_relu(dequantize_linear(x, x_scale, x_zero_point), alpha=alpha)
    return recoded(values, y_scale, y_zero_point, x_zero_point)


def qlinear_softmax(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    axis: int | None = None,
    opset: int,
) -> Tensor:
    """QLinearSoftmax. ONNX Runtime takes the whole number below 1 / y_scale for it."""
    shares = activations.softmax(dequantize_linear(x, x_scale, x_zero_point), axis=axis, opset=opset)
    zero_point = present(y_zero_point, x_zero_point)
    return to_codes(shares * torch.floor(1 / y_scale), zero_point, limits_of(zero_point))


MICROSOFT = "com.microsoft::"
# What gives codes, and what of codes gives codes; everything else gives numbers.
GIVE_CODES = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QuantizeLinear"}
    | {MICROSOFT + "QLinear" + kind for kind in ("Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu")}
    | {MICROSOFT + kind for kind in ("QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere")}
    | {MICROSOFT + "QuantizeLinear"}
)
PASS_CODES = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Relu", "Reshape"}
    | {"Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Upsample"}
)
# What takes a range from all that it is run on.
TAKE_RANGES = frozenset({"DynamicQuantizeLinear", MICROSOFT + "DynamicQuantizeMatMul"})
QOPERATORS: Mapping[str, Callable[..., Tensor | tuple[Tensor, ...]]] = MappingProxyType(
    {
        "ConvInteger": conv_integer,
        "DequantizeLinear": dequantize_linear,
        "DynamicQuantizeLinear": dynamic_quantize_linear,
        "MatMulInteger": matmul_integer,
        "QLinearConv": qlinear_conv,
        "QLinearMatMul": qlinear_matmul,
        "QuantizeLinear": quantize_linear,
        MICROSOFT + "DequantizeLinear": dequantize_linear,
        MICROSOFT + "DynamicQuantizeMatMul": dynamic_quantize_matmul,
        MICROSOFT + "MatMulIntegerToFloat": matmul_integer_to_float,
        MICROSOFT + "QGemm": qgemm,
        MICROSOFT + "QLinearAdd": qlinear_add,
        MICROSOFT + "QLinearAveragePool": qlinear_average_pool,
        MICROSOFT + "QLinearConcat": qlinear_concat,
        MICROSOFT + "QLinearGlobalAveragePool": qlinear_global_average_pool,
        MICROSOFT + "QLinearLeakyRelu": qlinear_leaky_relu,
        MICROSOFT + "QLinearMul": qlinear_mul,
        MICROSOFT + "QLinearSigmoid": qlinear_sigmoid,
        MICROSOFT + "QLinearSoftmax": qlinear_softmax,
        MICROSOFT + "QLinearWhere": qlinear_where,
        MICROSOFT + "QuantizeLinear": quantize_linear,
    }
)
