"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from robustgate.core.components import Reading
from robustgate.core.errors import ModelError
from robustgate.engine.subjects.file import FileSubject, check_ends
from robustgate.engine.subjects.reading import Encoding, Read
from robustgate.twin.graph import Twin, takes_ranges

TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}


class OnnxSubject(FileSubject):
    """An ONNX file run by ONNX Runtime on the CPU, as it ships; its twin gives the gradients.

    A file that takes or gives integers names no scale for them: they are the numbers themselves.
    """

    def __init__(
        self, path: Path, name: str, device: torch.device, threads: int, reading: Reading | None = None
    ) -> None:
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
        check_ends(inputs, outputs, path, name)
        unknown = {end.type for end in (*inputs, *outputs)} - TYPES.keys()
        if unknown:
            raise ModelError(f"{name}: {path}: expected tensors of one of {', '.join(TYPES)}, got {min(unknown)}")
        self.input = inputs[0].name
        self.encoding, self.decoding = (Encoding(dtype=np.dtype(TYPES[end.type])) for end in (inputs[0], outputs[0]))
        # A size that varies is a name or None; a file that names no sizes at all has an empty list.
        sizes = tuple(size if isinstance(size, int) and size > 0 else None for size in inputs[0].shape)
        if sizes and sizes[0] is None and takes_ranges(onnx.load(path, load_external_data=False).graph):
            sizes = (1, *sizes[1:])  # otherwise an image's answer would depend on its neighbours
        super().__init__(path, name, device, reading or Reading(), sizes or None)
        self._twin: nn.Module | None = None

    def run(self, inputs: Tensor) -> Tensor:
        """Return ONNX Runtime's output."""
        (output,) = self.session.run(None, {self.input: self.encoding.encode(inputs)})
        return self.decoding.decode(output)

    def ready(self, inputs: Tensor) -> Callable[[], object]:
        """Return what runs the session on an array that is ready."""
        feed = {self.input: self.encoding.encode(inputs)}
        return lambda: self.session.run(None, feed)

    def differentiable(self) -> nn.Module:
        """Return the twin: the file's own graph in torch, straight-through at its quantize nodes."""
        if self._twin is None:
            try:
                twin = Twin.from_file(self.path)
            except ModelError as error:
                raise self.without_gradient(error) from error
            # The twin itself knows how many images go together, and runs many such batches at once.
            shape = None if self.passage.shape is None else (None, *self.passage.shape[1:])
            self._twin = Read(twin, replace(self.passage, shape=shape)).to(self.device).eval()
        return self._twin
