"""ExecuTorch programs, run by its runtime."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from robustgate.core.components import Reading
from robustgate.core.errors import ModelError
from robustgate.engine.subjects.file import FileSubject

METHOD = "forward"
FLOAT = 6  # of executorch/runtime/core/portable_type/scalar_type.h


class ExecuTorchSubject(FileSubject):
    """An ExecuTorch program (.pte) run on the CPU, as it ships, at the largest batch size that it was made for."""

    def __init__(self, path: Path, name: str, device: torch.device, threads: int, reading: Reading) -> None:
        with warnings.catch_warnings():
            # The runtime calls its own Python interface experimental.
            warnings.filterwarnings("ignore", "This API is experimental and subject to change")
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime

        # The runtime has one pool of threads for the whole process; nothing runs in it here.
        portable_lib._unsafe_reset_threadpool(threads)
        try:
            # Kept: the method's memory is the program's.
            self.program = Runtime.get().load_program(path)
            self.method = self.program.load_method(METHOD)
        except Exception as error:
            raise ModelError(f"{name}: ExecuTorch cannot load {path}: {error}") from error
        described = self.method.metadata
        inputs, outputs = described.num_inputs(), described.num_outputs()
        if (inputs, outputs) != (1, 1):
            raise ModelError(f"{name}: {path}: expected one input and one output, got {inputs} and {outputs}")
        entry, output = described.input_tensor_meta(0), described.output_tensor_meta(0)
        if (entry.dtype(), output.dtype()) != (FLOAT, FLOAT):
            raise ModelError(f"{name}: {path}: expected a float32 input and output, got {entry} and {output}")
        super().__init__(path, name, device, reading, tuple(entry.sizes()))

    def run(self, inputs: Tensor) -> Tensor:
        """Return the runtime's output."""
        output: Tensor = self.method.execute([inputs.cpu().contiguous()])[0]
        return output.detach().float()
