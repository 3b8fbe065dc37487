"""ONNX files of a few nodes, and what ONNX Runtime and the twin make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from robustgate.twin.graph import Twin

Arrays = dict[str, np.ndarray]
SHAPE = (2, 3, 7, 8)


def write_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: Arrays | None = None,
    *,
    shape: tuple[Any, ...] | None = SHAPE,
    output: int = TensorProto.FLOAT,
    opset: int = 18,
) -> Path:
    """Write a graph from ``images`` to ``found``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("found", output, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    onnx.save(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)], ir_version=9
        ),
        path,
    )
    return path


def run_file(path: Path, images: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of it, node by node: without fusing quantized operators."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def run_twin(path: Path, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return Twin.from_file(path)(torch.from_numpy(images)).numpy()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.5, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)
