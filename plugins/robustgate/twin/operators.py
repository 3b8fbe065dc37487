"""The operators that a twin can run: ONNX's names, and for each a torch function.

A function takes a node's inputs by position and its attributes by name, under ONNX's own names. What older versions
of an operator give as an attribute and newer ones as an input (axes, pads, ...) is one parameter here, and serves
both. A function that needs them also takes `opset`, the version of the operator set, `outputs`, how many outputs its
node has, and `codes`, whether its first input is a quantized tensor. Integers are shapes, axes and indices, and stay
on the host.

Missing on purpose is what has no useful gradient (Sign, ArgMax, TopK, NonMaxSuppression, ...): a file with it is
refused, since a gradient that is silently zero would look like robustness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robustgate.core.errors import ModelError
from robustgate.twin import activations, layers, shapes
from robustgate.twin.arithmetic import (
    Operator,
    binary,
    clip,
    divide,
    einsum,
    gemm,
    mean,
    modulo,
    norm,
    reduction,
    rounding,
    unary,
    variadic,
)
from robustgate.twin.qoperators import MICROSOFT, QOPERATORS
from robustgate.twin.resize import resize, upsample

# TensorProto.DataType.
TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}


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


def cast(x: Tensor, *, to: int, saturate: int = 1, codes: bool = False) -> Tensor:  # noqa: ARG001 - of float8 only
    """Cast to float, integer or truth value. Codes are integers already, and stay what they are carried as."""
    if to not in TYPES:
        raise ModelError(f"casts to type {to}, expected one of {sorted(TYPES)}")
    kind = TYPES[to]
    if codes and kind in (torch.int32, torch.int64):
        return x
    if x.requires_grad and not kind.is_floating_point:
        raise ModelError(f"makes {kind} of numbers that depend on the image: no gradient passes")
    return x.to(kind)


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Where."""
    return torch.where(condition.to(x.device), x, y)


def fused_conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    z: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    **attributes: Any,
) -> Tensor:
    """FusedConv: a convolution, to which `z` is added, and an activation."""
    sums = layers.conv(x, w, b, **attributes)
    if activation not in FUSED:
        raise ModelError(f"is fused with the activation {activation!r}, expected one of {sorted(FUSED)}")
    return FUSED[activation](sums if z is None else sums + z, *activation_params)


# The parameters of a fused activation stand in the order of its attributes' names.
FUSED: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "": lambda x: x,
        "Clip": clip,
        "HardSigmoid": lambda x, alpha, beta: activations.hard_sigmoid(x, alpha=alpha, beta=beta),
        "LeakyRelu": functional.leaky_relu,
        "Relu": torch.relu,
        "Sigmoid": torch.sigmoid,
        "Tanh": torch.tanh,
    }
)


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "Abs": unary(torch.abs),
        "Add": binary(torch.add),
        "And": binary(torch.logical_and),
        "AveragePool": layers.average_pool,
        "BatchNormalization": layers.batch_normalization,
        "Cast": cast,
        "Ceil": rounding(torch.ceil),
        "Celu": activations.celu,
        "Clip": clip,
        "Concat": shapes.concat,
        "Constant": constant,
        "ConstantOfShape": shapes.constant_of_shape,
        "Conv": layers.conv,
        "ConvTranspose": layers.conv_transpose,
        "Cos": unary(torch.cos),
        "DepthToSpace": shapes.depth_to_space,
        "Div": divide,
        "Dropout": dropout,
        "Einsum": einsum,
        "Elu": activations.elu,
        "Equal": binary(torch.eq),
        "Erf": unary(torch.erf),
        "Exp": unary(torch.exp),
        "Expand": shapes.expand,
        "Flatten": shapes.flatten,
        "Floor": rounding(torch.floor),
        "Gather": shapes.gather,
        "GatherND": shapes.gather_nd,
        "Gelu": activations.gelu,
        "Gemm": gemm,
        "GlobalAveragePool": unary(lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True)),
        "GlobalMaxPool": unary(lambda x: x.amax(tuple(range(2, x.dim())), keepdim=True)),
        "Greater": binary(torch.gt),
        "GreaterOrEqual": binary(torch.ge),
        "GroupNormalization": layers.group_normalization,
        "HardSigmoid": activations.hard_sigmoid,
        "HardSwish": unary(functional.hardswish),
        "Identity": unary(lambda x: x),
        "InstanceNormalization": layers.instance_normalization,
        "LRN": layers.local_response_normalization,
        "LayerNormalization": layers.layer_normalization,
        "LeakyRelu": activations.leaky_relu,
        "Less": binary(torch.lt),
        "LessOrEqual": binary(torch.le),
        "Log": unary(torch.log),
        "LogSoftmax": activations.log_softmax,
        "LpNormalization": layers.lp_normalization,
        "MatMul": binary(torch.matmul),
        "Max": variadic(torch.maximum),
        "MaxPool": layers.max_pool,
        "Mean": mean,
        "Min": variadic(torch.minimum),
        "Mish": unary(functional.mish),
        "Mod": modulo,
        "Mul": binary(torch.mul),
        "Neg": unary(torch.neg),
        "Not": unary(torch.logical_not),
        "Or": binary(torch.logical_or),
        "PRelu": activations.prelu,
        "Pad": shapes.pad,
        "Pow": binary(torch.pow),
        "Range": spread,
        "Reciprocal": unary(torch.reciprocal),
        "ReduceL1": reduction(norm(1)),
        "ReduceL2": reduction(norm(2)),
        "ReduceLogSumExp": reduction(torch.logsumexp),
        "ReduceMax": reduction(torch.amax),
        "ReduceMean": reduction(torch.mean),
        "ReduceMin": reduction(torch.amin),
        "ReduceSum": reduction(torch.sum),
        "ReduceSumSquare": reduction(lambda x, dims, keepdim: x.square().sum(dims, keepdim)),
        "Relu": unary(torch.relu),
        "Reshape": shapes.reshape,
        "Resize": resize,
        "Round": rounding(torch.round),
        "Selu": activations.selu,
        "Shape": shapes.shape,
        "Sigmoid": unary(torch.sigmoid),
        "Sin": unary(torch.sin),
        "Slice": shapes.slice_,
        "Softmax": activations.softmax,
        "Softplus": unary(functional.softplus),
        "Softsign": unary(functional.softsign),
        "SpaceToDepth": shapes.space_to_depth,
        "Split": shapes.split,
        "Sqrt": unary(torch.sqrt),
        "Squeeze": shapes.squeeze,
        "Sub": binary(torch.sub),
        "Sum": variadic(torch.add),
        "Tanh": unary(torch.tanh),
        "ThresholdedRelu": activations.thresholded_relu,
        "Tile": shapes.tile,
        "Transpose": shapes.transpose,
        "Unsqueeze": shapes.unsqueeze,
        "Upsample": upsample,
        "Where": where,
        "Xor": binary(torch.logical_xor),
        MICROSOFT + "FusedConv": fused_conv,
        MICROSOFT + "Gelu": activations.gelu,
        MICROSOFT + "QuickGelu": activations.quick_gelu,
        **QOPERATORS,
    }
)
