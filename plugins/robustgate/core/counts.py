"""Counts of a network: how they are written, and how they are taken."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

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

    with torch.no_grad():
        try:
            with _counter() as counter:
                module(example[:1])
            count = counter.count
        except RuntimeError:
            # Control flow of torch's own (torch.cond) is traced by its compiler, which cannot look into that counter;
            # what a network raises itself, it raises here again.
            with FlopCounterMode(display=False) as whole:
                module(example[:1])
            count = whole.get_total_flops()
    return int(count) // 2  # a multiplication and an addition each


def _counter() -> Any:
    """Return a mode that counts as torch's FlopCounterMode does, without that one's import of the compiler."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Counted:
        count = 0

        def __torch_dispatch__(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if formula := flop_registry.get(func._overloadpacket):
                found = func(*args, **kwargs)
                self.count += formula(*args, **kwargs, out_val=found)
                return found
            with self:
                found = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if found is NotImplemented else found

    # torch wraps the method that a mode defines, so that its compiler passes it by, and at the first call imports the
    # compiler for that: a second and a half in every process. One that is inherited stays as it is.
    return type("Counter", (Counted, TorchDispatchMode), {})()
