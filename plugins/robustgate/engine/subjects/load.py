"""Which runtime executes a model file."""

from __future__ import annotations

from pathlib import Path

import torch

from robustgate.compression.artifact import missing_runtime, runtime_of
from robustgate.core.components import Reading
from robustgate.core.errors import ModelError
from robustgate.engine.subjects.executorch import ExecuTorchSubject
from robustgate.engine.subjects.exported import ExportedSubject
from robustgate.engine.subjects.litert import LiteRtSubject
from robustgate.engine.subjects.onnx import OnnxSubject
from robustgate.engine.subjects.subject import Subject
from robustgate.engine.subjects.torchscript import TorchScriptSubject


def load_file(path: Path, reading: Reading, name: str, device: torch.device, threads: int) -> Subject:
    """Load a model file by the runtime that its suffix names; `name` is the variant's, for messages.

    Raises ModelError for an unknown suffix, a runtime that is not installed and a file that cannot be run.
    """
    try:
        runtime, missing = runtime_of(path), missing_runtime(path)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    if missing is not None:
        raise ModelError(f"{name}: {missing}")
    match runtime:
        case "torchscript":
            return TorchScriptSubject(path, name, device, reading)
        case "exported":
            return ExportedSubject(path, name, device, reading)
        case "litert":
            return LiteRtSubject(path, name, device, threads, reading)
        case "executorch":
            return ExecuTorchSubject(path, name, device, threads, reading)
        case "onnx":
            return OnnxSubject(path, name, device, threads, reading)
