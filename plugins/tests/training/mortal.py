"""A network that dies in the middle of its training."""

from __future__ import annotations

from torch import Tensor, nn


class Killed(BaseException):
    """As an interrupt: nothing that catches errors catches it."""


class Mortal(nn.Module):
    """Calls another network, and dies at its `at`-th call in train mode, counted from 0, where there is such a call."""

    def __init__(self, inner: nn.Module, at: int | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.left = at

    def forward(self, images: Tensor) -> Tensor:
        if self.training and self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed
        logits: Tensor = self.inner(images)
        return logits
