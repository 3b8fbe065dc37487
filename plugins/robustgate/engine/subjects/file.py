"""A model file as it ships: what the runtimes have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sized
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustgate.core.components import Reading
from robustgate.core.errors import MeasurementError, ModelError
from robustgate.engine.subjects.reading import Passage, Read, Shape


class FileSubject(ABC):
    """A model file that one runtime executes, between its reading of the images and its logits."""

    has_own_gradient: ClassVar[bool] = False

    def __init__(self, path: Path, name: str, device: torch.device, reading: Reading, shape: Shape | None) -> None:
        self.path = path
        self.name = name
        self.device = device
        self.passage = Passage(reading=reading, shape=shape, name=name)

    def logits(self, images: Tensor) -> Tensor:
        """Return the file's logits (N, classes), on `device`."""
        with torch.no_grad():
            return self.passage.through(self.run, images.detach()).to(self.device)

    @abstractmethod
    def run(self, inputs: Tensor) -> Tensor:
        """Return the file's output, float32, for inputs as it wants them: as many as it was made for, if fixed."""

    def runner(self, images: Tensor) -> Callable[[], object]:
        """Return what runs the file on images that are read already, in as many parts as it takes them."""
        programs: list[Callable[[], object]] = []

        def keep(inputs: Tensor) -> Tensor:
            programs.append(self.ready(inputs))
            return self.run(inputs)

        with torch.no_grad():
            self.passage.through(keep, images.detach())

        def run() -> None:
            for program in programs:
                program()

        return run

    def ready(self, inputs: Tensor) -> Callable[[], object]:
        """Return what runs the file on inputs as it wants them, what can be done to them before being done."""
        return to_the_end(self.run, inputs)

    def differentiable(self) -> nn.Module:
        """Return the module that gradients are taken through. Raises MeasurementError where there is none."""
        raise self.without_gradient("only an ONNX file, a TorchScript file and an exported program can have one")

    def without_gradient(self, reason: object) -> MeasurementError:
        """Return the error that says that this file has no gradient."""
        return MeasurementError(
            f"{self.name}: a white-box attack needs gradients, {self.path.name} has none and no twin can be made of "
            f"it: {reason}"
        )


class ModuleSubject(FileSubject):
    """A model file that loads as a torch module: its own graph gives the gradients."""

    has_own_gradient: ClassVar[bool] = True

    def __init__(
        self,
        module: nn.Module,
        path: Path,
        name: str,
        device: torch.device,
        reading: Reading,
        shape: Shape | None = None,
    ) -> None:
        super().__init__(path, name, device, reading, shape)
        self.module = Read(module.requires_grad_(False), self.passage)

    def run(self, inputs: Tensor) -> Tensor:
        """Return the module's output."""
        output: Tensor = self.module.module(inputs)
        return output

    def differentiable(self) -> nn.Module:
        """Return the file's own module, with its reading of the images."""
        return self.module


def to_the_end(program: Callable[[Tensor], object], inputs: Tensor) -> Callable[[], object]:
    """Return what runs a torch program without gradients and waits for it: a device computes on after the call."""

    def run() -> None:
        with torch.inference_mode():
            program(inputs)
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)

    return run


def check_ends(inputs: Sized, outputs: Sized, path: Path, name: str) -> None:
    """Raise ModelError unless a file has one input and one output."""
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(f"{name}: {path}: expected one input and one output, got {len(inputs)} and {len(outputs)}")
