"""The operators that a twin can run: ONNX's names, and for each a torch function.

A function takes a node's inputs by position and its attributes by name, under ONNX's own names. What older versions
of an operator give as an attribute and newer ones as an input (axes, pads, ...) is one parameter here, and serves
both. A function that needs them also takes `opset`, the version of the operator set, and `outputs`, how many
outputs its node has. Integers are shapes, axes and indices, and stay on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robustgate.core.errors import ModelError
from robustgate.twin import layers, shapes
from robustgate.twin.quantization import dequantize_linear, quantize_linear
from robustgate.twin.resize import resize, upsample
from robustgate.twin.shapes import Integers, listed

Operator = Callable[..., Tensor | tuple[Tensor, ...]]

# TensorProto.DataType. Signed and unsigned 8-bit numbers that carry a gradient never pass a Cast in practice.
TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}


def unary(function: Callable[[Tensor], Tensor]) -> Operator:
    """Make an operator of a torch function of one tensor."""

    def operator(x: Tensor) -> Tensor:
        return function(x)

    return operator


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Make an operator of a torch function of two tensors, which broadcast."""

    def operator(a: Tensor, b: Tensor) -> Tensor:
        return function(a, b)

    return operator


def reduction(function: Callable[..., Tensor]) -> Operator:
    """Make an operator of a torch function that reduces axes."""

    def operator(
        data: Tensor, axes: Integers | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        dims = listed(axes)
        if not dims and noop_with_empty_axes:
            return data
        return function(data, dims or list(range(data.dim())), keepdim=bool(keepdims))

    return operator


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Div; of integers it cuts the fraction off."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def clip(x: Tensor, min: Tensor | float | None = None, max: Tensor | float | None = None) -> Tensor:  # noqa: A002
    """Clip; the gradient passes where the value lies inside, limits included."""
    for limit, clamp in ((min, torch.clamp_min), (max, torch.clamp_max)):
        if limit is not None:
            x = clamp(x, limit.to(x) if isinstance(limit, Tensor) else limit)
    return x


def matrix(a: Tensor, b: Tensor, c: Tensor | None, alpha: float, beta: float) -> Tensor:
    """Return alpha * a @ b + beta * c."""
    product = a @ b if alpha == 1 else alpha * (a @ b)
    return product if c is None else product + (c if beta == 1 else beta * c)


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - ONNX's name
    transB: int = 0,  # noqa: N803
) -> Tensor:
    """Gemm."""
    return matrix(a.T if transA else a, b.T if transB else b, c, alpha, beta)


def softmax(x: Tensor, *, axis: int | None = None, opset: int) -> Tensor:
    """Softmax; before opset 13 over all axes from `axis` on, taken as one."""
    if opset >= 13:
        return torch.softmax(x, -1 if axis is None else axis)
    start = 1 if axis is None else axis % max(x.dim(), 1)
    return torch.softmax(x.flatten(start), -1).reshape(x.shape)


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """HardSigmoid."""
    return (alpha * x + beta).clamp(0, 1)


def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """LeakyRelu."""
    return functional.leaky_relu(x, alpha)


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Elu."""
    return functional.elu(x, alpha)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """Gelu."""
    return functional.gelu(x, approximate=approximate)


def dropout(x: Tensor, *_: Tensor, ratio: float = 0.5, seed: int = 0) -> Tensor:  # noqa: ARG001 - of training
    """Dropout does nothing at inference."""
    return x


def constant(**values: Any) -> Tensor:
    """Constant, in any of its spellings."""
    known = {"value": None, "value_float": torch.float32, "value_floats": torch.float32}
    known |= {"value_int": torch.int64, "value_ints": torch.int64}
    (spelling, value), *more = values.items()
    if more or spelling not in known:
        raise ModelError(f"is a constant of {', '.join(sorted(values))}")
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=known[spelling])


def spread(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Range."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:  # noqa: ARG001 - of float8 only
    """Cast to float, integer or truth value."""
    if to not in TYPES:
        raise ModelError(f"casts to type {to}, expected one of {sorted(TYPES)}")
    return x.to(TYPES[to])


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Where."""
    return torch.where(condition.to(x.device), x, y)


def extreme(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Make an operator of any number of tensors of a torch function of two."""

    def operator(first: Tensor, *others: Tensor) -> Tensor:
        return reduce(function, others, first)

    return operator


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "Abs": unary(torch.abs),
        "Add": binary(torch.add),
        "AveragePool": layers.average_pool,
        "BatchNormalization": layers.batch_normalization,
        "Cast": cast,
        "Clip": clip,
        "Concat": shapes.concat,
        "Constant": constant,
        "ConstantOfShape": shapes.constant_of_shape,
        "Conv": layers.conv,
        "DequantizeLinear": dequantize_linear,
        "Div": divide,
        "Dropout": dropout,
        "Elu": elu,
        "Equal": binary(torch.eq),
        "Erf": unary(torch.erf),
        "Exp": unary(torch.exp),
        "Expand": shapes.expand,
        "Flatten": shapes.flatten,
        "Gather": shapes.gather,
        "Gelu": gelu,
        "Gemm": gemm,
        "GlobalAveragePool": unary(lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True)),
        "GlobalMaxPool": unary(lambda x: x.amax(tuple(range(2, x.dim())), keepdim=True)),
        "HardSigmoid": hard_sigmoid,
        "HardSwish": unary(functional.hardswish),
        "Identity": unary(lambda x: x),
        "LayerNormalization": layers.layer_normalization,
        "LeakyRelu": leaky_relu,
        "MatMul": binary(torch.matmul),
        "Max": extreme(torch.maximum),
        "MaxPool": layers.max_pool,
        "Min": extreme(torch.minimum),
        "Mul": binary(torch.mul),
        "Neg": unary(torch.neg),
        "PRelu": binary(lambda x, slope: torch.where(x < 0, x * slope, x)),
        "Pad": shapes.pad,
        "Pow": binary(torch.pow),
        "QuantizeLinear": quantize_linear,
        "Range": spread,
        "ReduceMax": reduction(torch.amax),
        "ReduceMean": reduction(torch.mean),
        "ReduceMin": reduction(torch.amin),
        "ReduceSum": reduction(torch.sum),
        "Relu": unary(torch.relu),
        "Reshape": shapes.reshape,
        "Resize": resize,
        "Shape": shapes.shape,
        "Sigmoid": unary(torch.sigmoid),
        "Slice": shapes.slice_,
        "Softmax": softmax,
        "Split": shapes.split,
        "Sqrt": unary(torch.sqrt),
        "Squeeze": shapes.squeeze,
        "Sub": binary(torch.sub),
        "Tanh": unary(torch.tanh),
        "Transpose": shapes.transpose,
        "Unsqueeze": shapes.unsqueeze,
        "Upsample": upsample,
        "Where": where,
    }
)
