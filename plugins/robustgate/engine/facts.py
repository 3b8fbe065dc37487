"""What is known exactly of an artifact: its weights, its bytes, its multiplications."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from robustgate.core.counts import count_macs
from robustgate.core.files import sha256
from robustgate.core.records import ArtifactFormat
from robustgate.engine.subjects.reading import Read

if TYPE_CHECKING:
    from onnx import GraphProto

Count = tuple[int, int]
"""How many weights there are, and how many of them are not zero."""

# Inputs of a node, by place, that say how it computes and are no weights: scales, zero points, sizes, bounds.
SETTINGS = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "Clip": (1, 2),
    "Resize": (1, 2, 3),
}
# Where a quantized weight stands among a node's inputs, where its zero point does, and the axis that has one each.
ZERO_POINTS = {
    "DequantizeLinear": (0, 2, 1),
    "QLinearConv": (3, 5, 0),
    "QLinearMatMul": (3, 5, 1),
    "ConvInteger": (1, 3, 0),
    "MatMulInteger": (1, 3, 1),
}
# Buffers of a saved program that are no weights: statistics of batch normalisation, and how a quantizer computes.
NO_WEIGHTS = ("running_mean", "running_var", "num_batches_tracked", "scale", "zero_point")


def torch_facts(module: nn.Module, example: Tensor, file: Path) -> dict[str, Any]:
    """Return the facts of a torch network whose weights are kept in `file`; `example` is a batch of its images."""
    return _facts("torch", file, _counted(module.parameters()), count_macs(module, example))


def file_facts(file: Path, form: ArtifactFormat, module: nn.Module | None, example: Tensor) -> dict[str, Any]:
    """Return the facts of a file that a runtime executes.

    `module` is what gradients are taken through: an ONNX file's twin, or one of torch's own programs as it was loaded.
    Multiplications are counted in it; without one they are not measured. Weights are counted in ONNX files and in
    torch's programs; those of others are not measured.
    """
    if form == "onnx":
        return _facts(form, file, _onnx_count(file), _macs(module, example))
    count = _program_count(module) if module is not None and form in ("torchscript", "exported") else None
    return _facts(form, file, count, _macs(module, example))


def _facts(form: ArtifactFormat, file: Path, count: Count | None, macs: int | None) -> dict[str, Any]:
    content = file.read_bytes()
    deflated = len(zlib.compress(content, 6))
    parameters, nonzero = count or (None, None)
    return {
        "format": form,
        "artifact_sha256": sha256(file),
        "parameters": parameters,
        "nonzero_parameters": nonzero,
        "size_bytes": len(content),
        "deflated_bytes": deflated,
        "effective_bits": 8 * deflated / parameters if parameters else None,
        "macs": macs,
    }


def _counted(weights: Iterable[Tensor]) -> Count:
    listed = list(weights)
    return sum(weight.numel() for weight in listed), sum(int(weight.count_nonzero()) for weight in listed)


def _macs(module: nn.Module | None, example: Tensor) -> int | None:
    if module is None:
        return None
    macs = count_macs(module, example)
    if isinstance(module, Read):  # a file that is made for a batch runs a whole one
        macs //= getattr(module.module, "batch", None) or (module.passage.shape or (None,))[0] or 1
    return macs or None  # none at all: they are in operators that the counter does not know


def _program_count(module: nn.Module) -> Count | None:
    """Count the tensors of a loaded program; one that keeps its weights elsewhere, packed or frozen, has no count."""
    named = [*module.named_parameters(), *module.named_buffers()]
    weights = [value for name, value in named if not name.rstrip("0123456789_").endswith(NO_WEIGHTS)]
    return _counted(weights) if weights else None


def _onnx_count(file: Path) -> Count:
    """Count the weights of an ONNX file: its constants, less scales, zero points, shapes, bounds and single numbers.

    The six numbers of a normalisation are constants of the file like others. A quantized weight is zero where it is
    its zero point.
    """
    import onnx

    graph = onnx.load(file).graph
    arrays = _constants(graph)
    settings = {
        name for node in graph.node for place in SETTINGS.get(node.op_type, ()) for name in node.input[place:][:1]
    }
    total = nonzero = 0
    zeros = _zeros(graph, arrays)
    for name, array in arrays.items():
        if name in settings or array.dtype == np.int64 or not array.ndim:
            continue
        total += array.size
        nonzero += int(np.count_nonzero(array != zeros[name] if name in zeros else array))
    return total, nonzero


def _constants(graph: GraphProto) -> dict[str, Any]:
    """Return the arrays of a graph by name: its initializers and its Constant nodes."""
    from onnx.numpy_helper import to_array

    arrays = {constant.name: to_array(constant) for constant in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            arrays[node.output[0]] = to_array(node.attribute[0].t)
    return arrays


def _zeros(graph: GraphProto, arrays: dict[str, Any]) -> dict[str, Any]:
    """Return for each quantized weight, by name, its zero point, shaped to be compared with it."""
    zeros = {}
    for node in graph.node:
        weight, zero, axis = ZERO_POINTS.get(node.op_type, (0, len(node.input), 0))
        if zero >= len(node.input) or node.input[weight] not in arrays or node.input[zero] not in arrays:
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), axis)
        point, array = arrays[node.input[zero]], arrays[node.input[weight]]
        shape = [-1 if place == axis % array.ndim else 1 for place in range(array.ndim)]
        zeros[node.input[weight]] = point.reshape(shape) if point.size > 1 else point.reshape(())
    return zeros
