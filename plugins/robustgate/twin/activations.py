"""Activation functions as ONNX defines them, in torch.

A function takes a node's inputs by position and its attributes by name, under ONNX's own names.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def softmax(x: Tensor, *, axis: int | None = None, opset: int) -> Tensor:
    """Softmax; before opset 13 over all axes from `axis` on, taken as one."""
    if opset >= 13:
        return torch.softmax(x, -1 if axis is None else axis)
    start = 1 if axis is None else axis % max(x.dim(), 1)
    return torch.softmax(x.flatten(start), -1).reshape(x.shape)


def log_softmax(x: Tensor, *, axis: int | None = None, opset: int) -> Tensor:
    """LogSoftmax; before opset 13 over all axes from `axis` on, taken as one."""
    if opset >= 13:
        return torch.log_softmax(x, -1 if axis is None else axis)
    start = 1 if axis is None else axis % max(x.dim(), 1)
    return torch.log_softmax(x.flatten(start), -1).reshape(x.shape)


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """HardSigmoid."""
    return (alpha * x + beta).clamp(0, 1)


def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """LeakyRelu."""
    return functional.leaky_relu(x, alpha)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """PRelu, whose slope broadcasts to `x`."""
    return torch.where(x < 0, x * slope, x)


def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """ThresholdedRelu."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Elu."""
    return functional.elu(x, alpha)


def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Celu."""
    return functional.celu(x, alpha)


def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    """Selu."""
    return gamma * functional.elu(x, alpha)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """Gelu."""
    return functional.gelu(x, approximate=approximate)


def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    """QuickGelu of com.microsoft, which with alpha = 1 is SiLU."""
    return x * torch.sigmoid(alpha * x)
