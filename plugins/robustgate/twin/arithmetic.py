"""Arithmetic as ONNX defines it, in torch: elementwise, reductions, products of matrices.

A function takes a node's inputs by position and its attributes by name, under ONNX's own names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from robustgate.twin.shapes import Integers, listed

Operator = Callable[..., Tensor | tuple[Tensor, ...]]


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


def rounding(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Make an operator of a torch function that rounds; straight-through, as rounding is everywhere in a twin.

    Between image and logits it is part of a simulated quantizer; its own gradient is zero.
    """

    def operator(x: Tensor) -> Tensor:
        whole = function(x)
        return whole if not x.is_floating_point() else whole + (x - x.detach())

    return operator


def norm(order: int) -> Callable[..., Tensor]:
    """Make a reduction of a vector norm, whose gradient at zero is zero."""

    def length(x: Tensor, dims: list[int], *, keepdim: bool) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(x, order, dims, keepdim)
        return lengths

    return length


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


def mean(*inputs: Tensor) -> Tensor:
    """Mean."""
    return reduce(torch.add, inputs) / len(inputs)


def modulo(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """Mod; with `fmod` of the dividend's sign, otherwise of the divisor's."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def einsum(*inputs: Tensor, equation: str) -> Tensor:
    """Einsum."""
    product: Tensor = torch.einsum(equation, *inputs)
    return product


def variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Make an operator of any number of tensors of a torch function of two."""

    def operator(first: Tensor, *others: Tensor) -> Tensor:
        return reduce(function, others, first)

    return operator
