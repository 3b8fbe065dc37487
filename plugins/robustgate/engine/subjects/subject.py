"""What an artifact is to whoever measures it, and the check of its answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from robustgate.core.errors import MeasurementError


class Subject(Protocol):
    """An artifact, loaded. Images are float32 (N, 3, H, W) in [0, 1], on `device`."""

    has_own_gradient: ClassVar[bool]
    """Whether `differentiable` is the artifact itself, not its twin: its logits are then the artifact's."""

    device: torch.device

    def logits(self, images: Tensor) -> Tensor:
        """Return the artifact's logits (N, classes)."""

    def runner(self, images: Tensor) -> Callable[[], object]:
        """Return what runs the artifact on images, with as little around it as its runtime allows: it is timed."""

    def differentiable(self) -> nn.Module:
        """Return the module that gradients are taken through. Raises MeasurementError where there is none."""


def check_logits(logits: Tensor, count: int, classes: int, name: str) -> Tensor:
    """Return `logits` if they are finite and of shape (count, classes). Raises MeasurementError."""
    if tuple(logits.shape) != (count, classes):
        raise MeasurementError(
            f"{name}: expected logits of shape ({count}, {classes}), one column a class, got {tuple(logits.shape)}"
        )
    if not logits.isfinite().all():
        bad = int((~logits.isfinite().all(dim=1)).sum())
        raise MeasurementError(f"{name}: NaN or infinite logits for {bad} of {count} images")
    return logits


def fingerprint(subject: Subject, images: Tensor) -> str:
    """Return a hash of the subject's logits on a few images: it changes when the code behind the network changes."""
    logits: Any = subject.logits(images).detach().cpu().numpy()
    return hashlib.sha256(logits.tobytes()).hexdigest()
