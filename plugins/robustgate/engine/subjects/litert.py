"""TFLite files, run by LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustgate.core.components import Reading
from robustgate.core.errors import ModelError
from robustgate.engine.subjects.file import FileSubject, check_ends
from robustgate.engine.subjects.reading import Encoding


class LiteRtSubject(FileSubject):
    """A TFLite file run by LiteRT on the CPU, as it ships, at the batch size that it was made for.

    A larger batch is not asked for: not every file can be resized, and none gets faster by it.
    """

    def __init__(self, path: Path, name: str, device: torch.device, threads: int, reading: Reading) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            self.interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self.interpreter.allocate_tensors()
        except Exception as error:
            raise ModelError(f"{name}: LiteRT cannot load {path}: {error}") from error
        inputs, outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        check_ends(inputs, outputs, path, name)
        self.input, self.output = inputs[0]["index"], outputs[0]["index"]
        self.encoding, self.decoding = (encoding_of(end, f"{name}: {path}") for end in (inputs[0], outputs[0]))
        super().__init__(path, name, device, reading, tuple(int(size) for size in inputs[0]["shape"]))

    def run(self, inputs: Tensor) -> Tensor:
        """Return LiteRT's output."""
        self.interpreter.set_tensor(self.input, self.encoding.encode(inputs))
        self.interpreter.invoke()
        return self.decoding.decode(self.interpreter.get_tensor(self.output))

    def ready(self, inputs: Tensor) -> Callable[[], object]:
        """Return what runs the interpreter on an array that is ready."""
        stored = self.encoding.encode(inputs)

        def run() -> None:
            self.interpreter.set_tensor(self.input, stored)
            self.interpreter.invoke()

        return run


def encoding_of(end: dict[str, Any], place: str) -> Encoding:
    """Return how a file stores an input or output; a scale of 0 is none: the integers are the numbers themselves."""
    dtype = np.dtype(end["dtype"])
    if dtype.kind not in "fiu":
        raise ModelError(f"{place}: expected an input and output of floats or integers, got {dtype}")
    scale, zero_point = end["quantization"]
    return Encoding(dtype=dtype, scale=float(scale), zero_point=int(zero_point)) if scale else Encoding(dtype=dtype)
