"""Quantizing and dequantizing as ONNX Runtime does it, with straight-through gradients.

A quantized tensor is carried as float32 that holds integers, so that a gradient can pass the operators between a
quantize and its dequantize node. Constants stay the integers that they are until they are used, which keeps 32-bit
biases exact.

The straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): rounding counts as the identity, clamping does
not, and a scale counts as a constant, also where the file computes it from the image.
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
ANY = (-float("inf"), float("inf"))


class StraightThrough(torch.autograd.Function):
    """clamp(round(x) + zero_point, low, high), rounding halves to even.

    The gradient is 1 where the rounded value lies within [low, high], and 0 where it was clamped.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, zero_point: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        """Return the integers, and where they were not clamped; `zero_point` broadcasts to `x`."""
        rounded = torch.round(x) + zero_point
        return rounded.clamp(low, high), (rounded >= low) & (rounded <= high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ARG004
        """Keep where nothing was clamped."""
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Pass the gradient to `x` only."""
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None


def to_codes(values: Tensor, zero_point: Tensor | float, limits: tuple[float, float]) -> Tensor:
    """Return clamp(round(values) + zero point, *limits), straight-through; `values` are in steps of the scale."""
    shift = torch.as_tensor(zero_point, dtype=values.dtype, device=values.device)
    codes: Tensor = StraightThrough.apply(values, shift, *limits)[0]
    return codes


def limits_of(zero_point: Tensor) -> tuple[float, float]:
    """Return the range of the type that a zero point stands for."""
    if zero_point.dtype not in RANGES:
        raise ModelError(f"quantizes to {zero_point.dtype}, expected 8 or 16-bit integers")
    return RANGES[zero_point.dtype]


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
        if output_dtype not in OUTPUT_TYPES:
            raise ModelError(f"quantizes to type {output_dtype}, expected 8 or 16-bit integers")
        y_zero_point = torch.zeros((), dtype=OUTPUT_TYPES[output_dtype], device=x.device)
    values = x / along(axis, y_scale.detach(), x)
    return to_codes(values, along(axis, y_zero_point, x), limits_of(y_zero_point))


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
    return centred(x, x_zero_point, axis).to(x_scale.dtype) * along(axis, x_scale.detach(), x)


def dynamic_quantize_linear(x: Tensor, *, outputs: int = 3) -> tuple[Tensor, ...]:  # noqa: ARG001 - always three
    """DynamicQuantizeLinear: 8 bits over the range of `x` and 0; also returns scale and zero point.

    The range follows the values, so none counts as clamped, although rounding may put the outermost one step outside.
    """
    low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = torch.where(high == low, torch.ones_like(high), (high - low) / 255)
    zero_point = (-low / scale).clamp(0, 255).round()
    codes = to_codes(x / scale, zero_point, ANY)
    return codes + (codes.clamp(0, 255) - codes).detach(), scale, zero_point


def centred(x: Tensor, zero_point: Tensor | None, axis: int = 1) -> Tensor:
    """Return x - zero point, exactly; constants of integers stay integers, which float32 need not be able to hold."""
    if not x.is_floating_point():
        x = x.to(torch.int32)
    return x if zero_point is None else x - along(axis, zero_point.to(x), x)


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
