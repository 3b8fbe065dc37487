"""Artifacts as they run: what ships answers, and where it has no gradient its twin gives one."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robustgate.core.errors import MeasurementError, ModelError
from robustgate.twin.graph import Twin


class Subject(Protocol):
    """An artifact, loaded. Images are float32 (N, 3, H, W) in [0, 1], on `device`."""

    device: torch.device

    def logits(self, images: Tensor) -> Tensor:
        """Return the artifact's logits (N, classes)."""

    def differentiable(self) -> nn.Module:
        """Return the module that gradients are taken through. Raises MeasurementError where there is none."""


class TorchSubject:
    """A torch network, frozen, in eval mode."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.device = device
        # A copy: neither a hook of the caller nor a later training can change what is measured.
        self.module = copy.deepcopy(module).to(device).eval().requires_grad_(False)

    def logits(self, images: Tensor) -> Tensor:
        """Return the network's logits (N, classes)."""
        with torch.no_grad():
            logits: Tensor = self.module(images)
        return logits

    def differentiable(self) -> nn.Module:
        """Return the network itself."""
        return self.module


class OnnxSubject:
    """An ONNX file run by ONNX Runtime on the CPU, as it ships; its twin gives the gradients."""

    def __init__(self, path: Path, name: str, device: torch.device, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"{name}: ONNX Runtime cannot load {path}: {error}") from error
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(f"{name}: {path}: expected one input and one output, got {len(inputs)} and {len(outputs)}")
        self.input = inputs[0].name
        self.path = path
        self.name = name
        self.device = device
        self._twin: nn.Module | None = None

    def logits(self, images: Tensor) -> Tensor:
        """Return ONNX Runtime's logits (N, classes)."""
        (logits,) = self.session.run(None, {self.input: images.detach().cpu().numpy()})
        return torch.from_numpy(logits).to(self.device)

    def differentiable(self) -> nn.Module:
        """Return the twin: the file's own graph in torch, straight-through at its quantize nodes."""
        if self._twin is None:
            try:
                self._twin = Twin.from_file(self.path).to(self.device).eval()
            except ModelError as error:
                raise MeasurementError(
                    f"{self.name}: a white-box attack needs gradients, {self.path.name} has none and no twin can be "
                    f"made of it: {error}"
                ) from error
        return self._twin


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
        if isinstance(self.subject, TorchSubject):
            self.queries += len(images)
            return check_logits(logits.detach(), len(images), self.classes, self.name), gradient
        return self.logits(images), gradient


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
