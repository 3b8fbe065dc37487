"""TorchScript files, run by torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from robustgate.core.components import Reading
from robustgate.core.errors import ModelError
from robustgate.engine.subjects.file import ModuleSubject, check_ends, to_the_end

ADVICE = (
    "a plain pickle (torch.save) is not loaded, since it can run any code: save the weights as safetensors and give "
    "the model a build factory, or write the file by torch.jit.save"
)


class TorchScriptSubject(ModuleSubject):
    """A TorchScript file, frozen, in eval mode. What was traced in training mode stays so: trace in eval mode.

    Its reader executes no Python of the file.
    """

    def __init__(self, path: Path, name: str, device: torch.device, reading: Reading) -> None:
        with warnings.catch_warnings():
            # torch deprecates the format; the files that are out there must be judged all the same.
            warnings.filterwarnings("ignore", r"`torch\.jit\.load` is", FutureWarning)
            try:
                module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
            except (RuntimeError, ValueError) as error:
                reason = str(error).partition("\n")[0]
                raise ModelError(f"{name}: {path} is no TorchScript archive: {reason}; {ADVICE}") from error
        inputs = [argument for argument in module.forward.schema.arguments[1:] if not argument.has_default_value()]
        outputs = [str(output.type) for output in module.forward.schema.returns]
        check_ends(inputs, outputs, path, name)
        if outputs != ["Tensor"]:
            raise ModelError(f"{name}: {path}: expected an output that is a tensor, got {outputs[0]}")
        self.program = module.eval()
        super().__init__(Interpreted(self.program), path, name, device, reading)

    def ready(self, inputs: Tensor) -> Callable[[], object]:
        """Return what runs the file as its users do: with the executor's optimisations."""
        return to_the_end(self.program, inputs)


class Interpreted(nn.Module):
    """A TorchScript module without the executor's optimisations, which set in at a later call and move last digits."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the module's output: the same at every call."""
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            output: Tensor = self.module(inputs)
        return output
