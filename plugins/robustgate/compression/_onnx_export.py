"""Networks to ONNX: exporting, writing and keeping quiet, for every step whose product is a file."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor, nn

# Every runtime that reads QDQ files with one scale a channel (13) in wide use also reads 18, the exporter's own.
OPSET = 18


def export(module: nn.Module, example: Tensor, *, method: str) -> ModelProto:
    """Return the network as an ONNX model whose batch size varies.

    Raises CompressionError naming `method`, the step that asks, and the obstacle.
    """
    import torch

    # A copy: exporting moves nothing and leaves no trace in the network itself. Plain memory: images that lie in
    # memory with their channels last make the exporter write strides into the graph, as index arithmetic.
    copied = copy.deepcopy(module).cpu().to(memory_format=torch.contiguous_format).eval()
    try:
        program = torch.onnx.export(
            copied,
            (example.detach().cpu().contiguous(),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    except Exception as error:
        raise CompressionError(f"{method}: the network cannot be exported to ONNX: {obstacle(error)}") from error
    return cast("torch.onnx.ONNXProgram", program).model_proto


def obstacle(error: BaseException) -> str:
    """Return why an export failed: the operator that ONNX does not have, or the first line of the root cause."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    operator = re.search(r"OpOverload\(op='([\w.]+)'", str(error))
    return f"it has no form of the operator {operator[1]}" if operator else first_line(error)


def first_line(error: BaseException) -> str:
    """Return what an error says first, and its kind."""
    return f"{next(iter(str(error).strip().splitlines()), 'no reason given')} ({type(error).__name__})"


def save(model: ModelProto, path: Path) -> None:
    """Write a model without what its maker's machine left in it: stack traces, file names, notes, unused domains."""
    import onnx

    used = {node.domain for node in model.graph.node}
    versions = {entry.domain: entry.version for entry in model.opset_import if entry.domain in used}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in sorted(versions.items()))
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    # Shapes on the way are inferred by whoever loads the file.
    del graph.value_info[:]
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the chatter of exporter and quantizer off the terminal, and their hands off the logging set-up."""
    root, disabled = logging.getLogger(), logging.root.manager.disable
    # Without any handler on the root, logging.warning would install one for good.
    handler = logging.NullHandler()
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    # torch keeps this one from being disabled, and pytest listens to it: a hundred lines below every test that fails.
    trace = logging.getLogger("torch.__trace")
    listeners = [one for one in trace.handlers if not type(one).__module__.startswith("torch.")]
    for listener in listeners:
        trace.removeHandler(listener)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for listener in listeners:
            trace.addHandler(listener)
        logging.disable(disabled)
        root.removeHandler(handler)
