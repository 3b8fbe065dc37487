"""What is known exactly of an artifact's file: its weights, its bytes."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, Literal

from torch import nn

from robustgate.core.files import sha256


def torch_facts(module: nn.Module, file: Path) -> dict[str, Any]:
    parameters = list(module.parameters())
    return _facts(
        "torch",
        file,
        sum(parameter.numel() for parameter in parameters),
        sum(int(parameter.count_nonzero()) for parameter in parameters),
    )


def onnx_facts(file: Path) -> dict[str, Any]:
    """Count the weights of an ONNX file: its constants, less scales, zero points and shapes.

    The six numbers of a normalisation are constants of the file like others.
    """
    import numpy as np
    import onnx

    graph = onnx.load(file).graph
    quantizers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    settings = {name for node in quantizers for name in node.input[1:]}
    zero_points = {node.input[0]: node.input[2] for node in quantizers if len(node.input) > 2}
    arrays = {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}
    total = nonzero = 0
    for name, array in arrays.items():
        if name in settings or array.dtype == np.int64:
            continue
        zero = arrays.get(zero_points.get(name, ""))
        total += array.size
        # What counts as zero is what the stored value stands for: the zero point.
        nonzero += int(np.count_nonzero(array if zero is None or zero.size != 1 else array != zero))
    return _facts("onnx", file, total, nonzero)


def _facts(form: Literal["torch", "onnx"], file: Path, parameters: int, nonzero: int) -> dict[str, Any]:
    content = file.read_bytes()
    return {
        "format": form,
        "artifact_sha256": sha256(file),
        "parameters": parameters,
        "nonzero_parameters": nonzero,
        "size_bytes": len(content),
        "deflated_bytes": len(zlib.compress(content, 6)),
    }
