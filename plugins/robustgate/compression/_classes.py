"""How many classes a network tells apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def count_classes(module: nn.Module, example: Tensor) -> int:
    """Return the length of the logits that `module`, which is in eval mode, gives for an image of `example`."""
    import torch

    with torch.no_grad():
        logits: Tensor = module(example)
    return logits.shape[-1]
