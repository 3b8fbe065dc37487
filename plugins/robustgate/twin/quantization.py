"""QuantizeLinear and DequantizeLinear as ONNX Runtime computes them, with straight-through gradients.

A quantized tensor is carried as float32 that holds integers, so that a gradient can pass the operators between a
quantize and its dequantize node. Constants stay the integers that they are until they are dequantized, which keeps
32-bit biases exact.

The straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): rounding counts as the identity, clamping does
not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustgate.core.errors import ModelError

# By the type of the zero point, and by the number that ONNX gives to that type (TensorProto.DataType).
RANGES = {
    torch.uint8: (0.0, 255.0),
    torch.int8: (-128.0, 127.0),
    torch.uint16: (0.0, 65535.0),
    torch.int16: (-32768.0, 32767.0),
}
OUTPUT_TYPES = {0: torch.uint8, 2: torch.uint8, 3: torch.int8, 4: torch.uint16, 5: torch.int16}


class StraightThrough(torch.autograd.Function):
    """clamp(round(x / scale) + zero_point, low, high), rounding halves to even.

    The gradient is 1 / scale where the rounded value lies within [low, high], and 0 where it was clamped.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: float, high: float) -> Tensor:
        """Quantize; `scale` and `zero_point` broadcast to `x`."""
        quantized = torch.round(x / scale).add_(zero_point)
        inside = (quantized >= low) & (quantized <= high)
        ctx.save_for_backward(inside, scale)
        return quantized.clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Pass the gradient to `x` only."""
        inside, scale = ctx.saved_tensors
        return gradients[0] * inside / scale, None, None, None, None


def quantize_linear(
    x: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,  # noqa: ARG001 - of float8 only
) -> Tensor:
    """QuantizeLinear, per tensor or per `axis`. The result holds integers and is of `x`'s type."""
    refuse_blocks(block_size)
    if precision not in (0, 1):
        raise ModelError(f"quantizes in another precision than float32 (precision = {precision})")
    if y_zero_point is None:
        kind = OUTPUT_TYPES.get(output_dtype)
        zero_point = torch.zeros((), dtype=x.dtype, device=x.device)
    else:
        kind = y_zero_point.dtype
        zero_point = along(axis, y_zero_point.to(x), x)
    if kind not in RANGES:
        raise ModelError(f"quantizes to {kind or f'type {output_dtype}'}, expected 8 or 16-bit integers")
    quantized: Tensor = StraightThrough.apply(x, along(axis, y_scale, x), zero_point, *RANGES[kind])
    return quantized


def dequantize_linear(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """DequantizeLinear, per tensor or per `axis`: (x - zero point) * scale. `x` may be a constant of integers."""
    refuse_blocks(block_size)
    if output_dtype not in (0, 1):
        raise ModelError(f"dequantizes to another type than float32 (output_dtype = {output_dtype})")
    constant = not x.is_floating_point()
    if constant:
        x = x.to(torch.int32)
    if x_zero_point is not None:
        x = x - along(axis, x_zero_point.to(x), x)
    return x.to(x_scale.dtype) * along(axis, x_scale, x)


def along(axis: int, values: Tensor, x: Tensor) -> Tensor:
    """Shape one value, or one value for each slice of `x` along `axis`, so that it broadcasts to `x`."""
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


def refuse_blocks(block_size: int) -> None:
    """Raise ModelError for quantization in blocks, which no vision runtime ships yet."""
    if block_size:
        raise ModelError(f"is quantized in blocks (block_size = {block_size})")
