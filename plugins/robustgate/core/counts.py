"""Counts of a network: how they are written, and how they are taken."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def read_count(written: str | int, key: str) -> int:
    """Return the number that ``80000``, ``"80000"``, ``"4.51M"`` or ``"1.2G"`` stands for. Raises ValueError."""
    text = str(written)
    if not re.fullmatch(r"\d+(\.\d+)?[kMG]?", text):
        raise ValueError(f"{key} must be a count such as 80000 or '4.51M', got {written!r}")
    unit = text[-1] if text[-1] in UNITS else ""
    return round(float(text.removesuffix(unit)) * UNITS[unit])


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, example: Tensor) -> int:
    """Return the multiplications of one image (multiply-accumulates of convolutions and matrix products)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(example[:1])
    return int(counter.get_total_flops()) // 2  # it counts a multiplication and an addition each
