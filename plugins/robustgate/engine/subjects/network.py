"""A torch network as it runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustgate.engine.subjects.file import to_the_end


class TorchSubject:
    """A torch network, frozen, in eval mode."""

    has_own_gradient: ClassVar[bool] = True

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.device = device
        # A copy: neither a hook of the caller nor a later training can change what is measured.
        self.module = copy.deepcopy(module).to(device).eval().requires_grad_(False)

    def logits(self, images: Tensor) -> Tensor:
        """Return the network's logits (N, classes)."""
        with torch.no_grad():
            logits: Tensor = self.module(images)
        return logits

    def runner(self, images: Tensor) -> Callable[[], object]:
        """Return what runs the network on images."""
        return to_the_end(self.module, images)

    def differentiable(self) -> nn.Module:
        """Return the network itself."""
        return self.module
