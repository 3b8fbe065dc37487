"""A subject as an attack sees it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustgate.core.errors import MeasurementError
from robustgate.engine.subjects.subject import Subject, check_logits


class CountedTarget:
    """A subject as an attack sees it (`AttackTarget`): every call counted, every answer checked."""

    def __init__(self, subject: Subject, classes: int, name: str) -> None:
        self.subject = subject
        self.classes = classes
        self.name = name
        self.queries = 0
        self.gradients = 0

    def logits(self, images: Tensor) -> Tensor:
        """Return the artifact's logits (N, classes), checked."""
        self.queries += len(images)
        return check_logits(self.subject.logits(images.detach()), len(images), self.classes, self.name)

    def gradient(self, images: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return the artifact's logits and the gradient of the summed loss to the images, checked."""
        module = self.subject.differentiable()
        self.gradients += len(images)
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            logits = module(leaf)
            # A gradient that is silently zero would look like perfect robustness: its absence is an error.
            gradient = None
            if logits.requires_grad:
                (gradient,) = torch.autograd.grad(loss(logits).sum(), leaf, allow_unused=True)
        if gradient is None:
            raise MeasurementError(
                f"{self.name}: a white-box attack needs gradients, and none flow from the logits to the images"
            )
        if not gradient.isfinite().all():
            raise MeasurementError(f"{self.name}: the gradient holds NaN or infinity")
        if self.subject.has_own_gradient:
            self.queries += len(images)
            return check_logits(logits.detach(), len(images), self.classes, self.name), gradient
        return self.logits(images), gradient
