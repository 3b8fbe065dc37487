"""A subject as an attack sees it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from robustgate.core.components import Loss
from robustgate.core.errors import MeasurementError
from robustgate.engine.subjects.subject import Subject, check_logits
from robustgate.engine.subjects.swift import swift


class CountedTarget:
    """A subject under attack (`AttackTarget`): every call counted, every answer checked.

    Gradients are taken through the subject's own network, or through its twin; `mixed` lets them be computed in
    bfloat16 on a GPU, where torch thinks it safe. Logits that decide anything are the artifact's, in full precision.
    """

    def __init__(self, subject: Subject, classes: int, name: str, *, mixed: bool = False) -> None:
        self.subject = subject
        self.classes = classes
        self.name = name
        self.mixed = mixed
        self.queries = 0
        self.gradients = 0
        self._swift: nn.Module | None = None

    def logits(self, images: Tensor) -> Tensor:
        """Return the artifact's logits (N, classes), checked."""
        self.queries += len(images)
        return check_logits(self.subject.logits(images.detach()), len(images), self.classes, self.name)

    def glance(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of the module that gradients are taken through, checked."""
        self.queries += len(images)
        with torch.no_grad():
            logits = self._module(images)(images.detach().to(memory_format=torch.channels_last))
        return check_logits(logits, len(images), self.classes, self.name)

    def gradient(self, images: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes), of the module that gradients are taken through, and the gradients, checked.

        They are (N, 3, H, W), or (N, K, 3, H, W) for a loss of K values a sample. Raises MeasurementError where none
        flow: silently zero, they would look like perfect robustness.
        """
        module = self._module(images)
        self.gradients += len(images)
        with torch.enable_grad(), self._precision(images):
            leaf = images.detach().to(memory_format=torch.channels_last).requires_grad_()
            logits = module(leaf).float()
            gradients = self._flow(loss(logits), leaf) if logits.requires_grad else None
        if gradients is None:
            raise MeasurementError(
                f"{self.name}: a white-box attack needs gradients, and none flow from the logits to the images"
            )
        if not gradients.isfinite().all():
            raise MeasurementError(f"{self.name}: the gradient holds NaN or infinity")
        return check_logits(logits.detach(), len(images), self.classes, self.name), gradients

    def module(self, *, gradient: bool = True) -> nn.Module:
        """Return the module that gradients are taken through, or else the artifact, as a module; calls are counted."""
        return _Watched(self, self.subject.differentiable() if gradient else None)

    def _module(self, images: Tensor) -> nn.Module:
        if self._swift is None:
            module = self.subject.differentiable()
            self._swift = swift(module, images) if self.subject.has_own_gradient else module
        return self._swift

    def _flow(self, values: Tensor, leaf: Tensor) -> Tensor | None:
        """Return the gradient of each column of the summed values, or None where one does not reach the images."""
        columns = values.flatten(1).sum(dim=0) if values.dim() > 1 else values.sum()[None]
        flows: list[Tensor] = []
        for place, column in enumerate(columns):
            if not column.requires_grad:
                return None
            (flow,) = torch.autograd.grad(column, leaf, retain_graph=place + 1 < len(columns), allow_unused=True)
            if flow is None:
                return None
            flows.append(flow.contiguous())
        return flows[0] if values.dim() == 1 else torch.stack(flows, dim=1)

    def _precision(self, images: Tensor) -> AbstractContextManager[object]:
        return torch.autocast(images.device.type, torch.bfloat16) if self.mixed and images.is_cuda else nullcontext()


class _Watched(nn.Module):
    """A target as a torch module: what a library calls."""

    def __init__(self, target: CountedTarget, inner: nn.Module | None) -> None:
        super().__init__()
        self.target = target
        self.inner = inner
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes); gradients flow."""
        if self.inner is None:
            return self.target.logits(images)
        self.target.queries += len(images)
        if images.requires_grad:
            self.target.gradients += len(images)
        logits: Tensor = self.inner(images)
        return check_logits(logits, len(images), self.target.classes, self.target.name)
