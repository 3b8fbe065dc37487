"""Convolutions and matrix products of quantized tensors, as ONNX Runtime computes them.

Products of codes are summed in float32: exact up to 2**24, about five hundred products of two codes as large as can
be. (On processors without VNNI some CPU kernels of ONNX Runtime add pairs of uint8 x int8 products in 16 bits, and
may saturate; a twin does not.) Scales and zero points are one number each, or for weights one a channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustgate.core.errors import ModelError
from robustgate.twin import layers
from robustgate.twin.quantization import along, centred, dynamic_quantize_linear, limits_of, to_codes


def signed(x: Tensor, zero_point: Tensor | None, axis: int = 0) -> Tensor:
    """Return codes less their zero point, as float32: the factors of an integer product."""
    return centred(x, zero_point, axis).float()


def requantized(sums: Tensor, multiplier: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    """Return the codes of 32-bit sums, `multiplier` (one, or one along `axis`) being the steps that a unit is."""
    return to_codes(sums * along(axis, multiplier, sums), zero_point, limits_of(zero_point))


def present(zero_point: Tensor | None, *others: Tensor | None) -> Tensor:
    """Return a zero point; one that is left out is 0, of the type of the other ones."""
    if zero_point is not None:
        return zero_point
    for other in others:
        if other is not None:
            return torch.zeros_like(other)
    raise ModelError("has no zero point, so that the type of its result is unknown")


def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    b: Tensor | None = None,
    **attributes: Any,
) -> Tensor:
    """QLinearConv; the bias is in units of x_scale * w_scale."""
    bias = None if b is None else b.float()
    sums = layers.conv(signed(x, x_zero_point), signed(w, w_zero_point), bias, **attributes)
    return requantized(sums, x_scale * w_scale / y_scale, y_zero_point, 1)


def conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero_point: Tensor | None = None,
    w_zero_point: Tensor | None = None,
    **attributes: Any,
) -> Tensor:
    """ConvInteger."""
    return layers.conv(signed(x, x_zero_point), signed(w, w_zero_point), **attributes)


def matmul_integer(
    a: Tensor, b: Tensor, a_zero_point: Tensor | None = None, b_zero_point: Tensor | None = None
) -> Tensor:
    """MatMulInteger; `b` may have a zero point for each column."""
    return signed(a, a_zero_point, -2) @ signed(b, b_zero_point, -1)


def matmul_integer_to_float(
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero_point: Tensor | None = None,
    b_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """MatMulIntegerToFloat: the product of the real values, plus a real bias."""
    sums = matmul_integer(a, b, a_zero_point, b_zero_point)
    product = sums * along(-1, a_scale * b_scale, sums)
    return product if bias is None else product + bias


def dynamic_quantize_matmul(
    a: Tensor, b: Tensor, b_scale: Tensor, b_zero_point: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """DynamicQuantizeMatMul: `a` is quantized over its own range first."""
    codes, scale, zero_point = dynamic_quantize_linear(a)
    return matmul_integer_to_float(codes, b, scale, b_scale, zero_point, b_zero_point, bias)


def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
) -> Tensor:
    """QLinearMatMul."""
    sums = matmul_integer(a, b, a_zero_point, b_zero_point)
    return requantized(sums, a_scale * b_scale / y_scale, y_zero_point, -1)


def qgemm(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero_point: Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803 - ONNX's name
    transB: int = 0,  # noqa: N803
) -> Tensor:
    """QGemm. Without a scale of the result it is real; the bias is in units of a_scale * b_scale."""
    left, right = signed(a, a_zero_point), signed(b, b_zero_point, 0 if transB else 1)
    sums = (left.T if transA else left) @ (right.T if transB else right)
    if c is not None:
        sums = sums + c.float()
    multiplier = alpha * a_scale * b_scale
    if y_scale is None:
        return sums * along(-1, multiplier, sums)
    return requantized(sums, multiplier / y_scale, present(y_zero_point, a_zero_point), -1)
