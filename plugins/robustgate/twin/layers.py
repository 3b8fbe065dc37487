"""Convolutions, pools and normalisation as ONNX defines them, in torch.

A function takes a node's inputs by position and its attributes by name, under ONNX's own names; an optional input
that a node leaves out is None. What a function cannot do, it refuses with ModelError; it never does something near.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from robustgate.core.errors import ModelError

Sizes = Sequence[int] | None


def window_padding(x: Tensor, reach: Sequence[int], strides: Sequence[int], pads: Sizes, auto_pad: str) -> list[int]:
    """Return the padding of `x`'s spatial axes, ONNX's order: all beginnings, then all ends.

    `reach` is how many pixels a window spans along each axis, dilation included.
    """
    if auto_pad == "NOTSET":
        return list(pads) if pads else [0] * (2 * len(reach))
    if auto_pad == "VALID":
        return [0] * (2 * len(reach))
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise ModelError(f"has auto_pad = {auto_pad!r}")
    sizes = zip(x.shape[2:], reach, strides, strict=True)
    totals = [max((math.ceil(size / stride) - 1) * stride + span - size, 0) for size, span, stride in sizes]
    smaller, larger = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return smaller + larger if auto_pad == "SAME_UPPER" else larger + smaller


def pad_spatial(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float) -> Tensor:
    """Pad the spatial axes of `x`, or crop where a number is negative."""
    if not any(begins) and not any(ends):
        return x
    # torch counts axes from the last, and puts beginning and end of one side by side.
    flat = [amount for pair in zip(reversed(begins), reversed(ends), strict=True) for amount in pair]
    return functional.pad(x, flat, value=value)


def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sizes = None,
    group: int = 1,
    kernel_shape: Sizes = None,  # noqa: ARG001 - the weights say it
    pads: Sizes = None,
    strides: Sizes = None,
) -> Tensor:
    """Conv, in one to three dimensions."""
    kernel = w.shape[2:]
    strides = tuple(strides or [1] * len(kernel))
    dilations = tuple(dilations or [1] * len(kernel))
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    amounts = window_padding(x, reach, strides, pads, auto_pad)
    begins, ends = amounts[: len(kernel)], amounts[len(kernel) :]
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(kernel) - 1]
    if begins == ends:
        return convolve(x, w, b, strides, tuple(begins), dilations, group)
    return convolve(pad_spatial(x, begins, ends, 0.0), w, b, strides, 0, dilations, group)


def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sizes = None,
    group: int = 1,
    kernel_shape: Sizes = None,  # noqa: ARG001 - the weights say it
    output_padding: Sizes = None,
    output_shape: Sizes = None,
    pads: Sizes = None,
    strides: Sizes = None,
) -> Tensor:
    """ConvTranspose, in one to three dimensions: all that the windows reach, cut to the size asked for."""
    rank = w.dim() - 2
    strides, dilations = tuple(strides or [1] * rank), tuple(dilations or [1] * rank)
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(w.shape[2:], dilations, strict=True)]
    more = list(output_padding or [0] * rank)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and not output_shape:
        output_shape = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if output_shape:
        sizes = zip(x.shape[2:], strides, more, reach, list(output_shape)[-rank:], strict=True)
        totals = [max(stride * (old - 1) + extra + span - new, 0) for old, stride, extra, span, new in sizes]
        smaller, larger = [total // 2 for total in totals], [total - total // 2 for total in totals]
        pads = smaller + larger if auto_pad == "SAME_UPPER" else larger + smaller
    elif auto_pad not in ("NOTSET", "VALID"):
        raise ModelError(f"has auto_pad = {auto_pad!r}")
    pads = list(pads or [0] * (2 * rank))
    convolve = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[rank - 1]
    spread = convolve(x, w, None, strides, 0, 0, group, dilations)
    ends = [extra - end for extra, end in zip(more, pads[rank:], strict=True)]
    cut = pad_spatial(spread, [-begin for begin in pads[:rank]], ends, 0.0)
    return cut if b is None else cut + b.reshape(-1, *[1] * rank)


def pool_ends(
    x: Tensor, reach: Sequence[int], strides: Sequence[int], padding: Sequence[int], *, ceil: bool
) -> list[int]:
    """Return the padding behind each spatial axis that makes exactly as many windows as ONNX asks for.

    With `ceil` the last window may reach beyond the declared padding, but starts in the image or before it.
    """
    ends = []
    for axis, (span, stride) in enumerate(zip(reach, strides, strict=True)):
        size, begin, end = x.shape[2 + axis], padding[axis], padding[len(reach) + axis]
        steps = (size + begin + end - span) / stride
        count = (math.ceil(steps) if ceil else math.floor(steps)) + 1
        if ceil and (count - 1) * stride >= size + begin:
            count -= 1
        ends.append((count - 1) * stride + span - size - begin)
    return ends


def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sizes = None,
    pads: Sizes = None,
    storage_order: int = 0,  # noqa: ARG001 - of the indices, which are refused
    strides: Sizes = None,
) -> Tensor:
    """MaxPool, without its second output."""
    rank = len(kernel_shape)
    strides, dilations = tuple(strides or [1] * rank), tuple(dilations or [1] * rank)
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel_shape, dilations, strict=True)]
    padding = window_padding(x, reach, strides, pads, auto_pad)
    ends = pool_ends(x, reach, strides, padding, ceil=bool(ceil_mode))
    pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
    padded = pad_spatial(x, padding[:rank], ends, -math.inf)
    pooled: Tensor = pool(padded, tuple(kernel_shape), strides, 0, dilations)
    return pooled


def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sizes = None,
    pads: Sizes = None,
    strides: Sizes = None,
) -> Tensor:
    """AveragePool. Pixels that don't count are zero in the mean, whose divisor is then put right."""
    if dilations and set(dilations) != {1}:
        raise ModelError(f"averages over a dilated window (dilations = {list(dilations)})")
    rank = len(kernel_shape)
    strides, kernel = tuple(strides or [1] * rank), tuple(kernel_shape)
    padding = window_padding(x, kernel, strides, pads, auto_pad)
    begins = padding[:rank]
    ends = pool_ends(x, kernel, strides, padding, ceil=bool(ceil_mode))
    pool = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
    averages: Tensor = pool(pad_spatial(x, begins, ends, 0.0), kernel, strides)
    counts = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    if count_include_pad:
        declared = [min(end, most) for end, most in zip(ends, padding[rank:], strict=True)]
        counts = pad_spatial(counts, begins, declared, 1.0)
        begins, ends = [0] * rank, [end - most for end, most in zip(ends, declared, strict=True)]
    if not any(begins) and all(end <= 0 for end in ends):
        return averages
    shares: Tensor = pool(pad_spatial(counts, begins, ends, 0.0), kernel, strides)
    return averages / shares


def batch_normalization(
    x: Tensor,
    scale: Tensor,
    b: Tensor,
    input_mean: Tensor,
    input_var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,  # noqa: ARG001 - of training
    spatial: int = 1,
    training_mode: int = 0,
) -> Tensor:
    """BatchNormalization by its stored statistics."""
    if training_mode or not spatial:
        raise ModelError("normalises by the statistics of the batch, or each pixel by its own")
    return functional.batch_norm(x, input_mean, input_var, scale, b, training=False, eps=epsilon)


def layer_normalization(
    x: Tensor,
    scale: Tensor,
    b: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,  # noqa: ARG001 - float32, as all here
) -> Tensor:
    """LayerNormalization over `axis` and all behind it, without its other outputs."""
    return functional.layer_norm(x, x.shape[axis:], scale, b, epsilon)


def group_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,  # noqa: ARG001 - float32, as all here
) -> Tensor:
    """GroupNormalization; scale and bias are of each channel, or (before opset 21) of each group."""
    if len(scale) != x.shape[1]:
        scale, bias = (values.repeat_interleave(x.shape[1] // num_groups) for values in (scale, bias))
    return torch.group_norm(x, num_groups, scale, bias, epsilon)


def instance_normalization(x: Tensor, scale: Tensor, b: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """InstanceNormalization."""
    return torch.group_norm(x, x.shape[1], scale, b, epsilon)


def local_response_normalization(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    """LRN: each value over the squares of `size` channels around it."""
    squares = functional.pad(x.square(), [0, 0] * (x.dim() - 2) + [(size - 1) // 2, size // 2])
    around = sum(squares.narrow(1, place, x.shape[1]) for place in range(size))
    return x / (bias + alpha / size * around) ** beta


def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """LpNormalization; a vector of zeros stays as it is."""
    length = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return x / torch.where(length == 0, torch.ones_like(length), length)
