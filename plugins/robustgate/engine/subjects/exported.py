"""Programs of torch.export, run by torch."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from robustgate.core.components import Reading
from robustgate.core.errors import ModelError
from robustgate.engine.subjects.file import ModuleSubject, check_ends
from robustgate.engine.subjects.reading import Shape

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# What an archive may hold beside its graph and its weights, and what would run as it is loaded.
PICKLES = ("data/constants/custom_obj", "data/constants/opaque_obj")
COMPILED = "data/aotinductor/"


class ExportedSubject(ModuleSubject):
    """An exported program (.pt2), as its graph says; a batch size that it fixes or bounds is the size it is run at.

    Tensors in it are read by torch's restricted reader, whatever else it pickles or has compiled is refused. That is
    no sandbox: torch evaluates expressions of the graph while it loads it.
    """

    def __init__(self, path: Path, name: str, device: torch.device, reading: Reading) -> None:
        from torch.export import load
        from torch.export.passes import move_to_device_pass

        try:
            refuse_code(path)
            with tensors_only():
                program = load(path)
        except Exception as error:
            raise ModelError(f"{name}: torch.export cannot load {path}: {error}") from error
        signature = program.graph_signature
        check_ends(signature.user_inputs, signature.user_outputs, path, name)
        try:
            shape = input_shape(program)
            refuse_training(program)
        except ModelError as error:
            raise ModelError(f"{name}: {path}: {error}") from error
        module: nn.Module = move_to_device_pass(program, device).module()
        super().__init__(module, path, name, device, reading, shape)


def refuse_code(path: Path) -> None:
    """Raise ModelError where an archive holds what would run as it is loaded; know the operators that it needs."""
    archive = torch._C.PyTorchFileReader(str(path))
    for record in archive.get_all_records():
        # The reader finds a record whatever its case.
        if record.lower().startswith(PICKLES):
            raise ModelError(f"holds a pickled object ({record}), which can run any code; expected tensors only")
        if record.lower().startswith(COMPILED):
            raise ModelError(f"holds compiled code ({record}), expected a program as torch.export.save writes it")
    if b"quantized_decomposed" in archive.get_record("models/model.json"):
        # The operators of programs quantized by PT2E are known once this module is imported.
        importlib.import_module("torch.ao.quantization.fx._decomposed")


@contextmanager
def tensors_only() -> Iterator[None]:
    """Have torch read tensors by its restricted unpickler only, where it would fall back to the full one."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def input_shape(program: ExportedProgram) -> Shape:
    """Return the sizes of a program's one input; a batch that is bounded has the largest size that it may have."""
    (entry,), (output,) = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    nodes = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    value = nodes.get(str(entry))
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        raise ModelError(f"expected one float32 input, the images, got {getattr(value, 'dtype', value)}")
    if not isinstance(nodes.get(str(output)), torch.Tensor) or not _is_tensor(program):
        raise ModelError("expected one output, a tensor, got a structure")
    batch, *sizes = value.shape
    most = batch if isinstance(batch, int) else _bound(program, batch)
    return (most, *(size if isinstance(size, int) else None for size in sizes))


def _is_tensor(program: ExportedProgram) -> bool:
    spec = program.call_spec.out_spec
    return spec is not None and spec.is_leaf()


def _bound(program: ExportedProgram, size: torch.SymInt) -> int | None:
    limits = program.range_constraints.get(size.node.expr)
    return int(limits.upper) if limits is not None and math.isfinite(limits.upper) else None


def refuse_training(program: ExportedProgram) -> None:
    """Raise ModelError where a program was exported in training mode: its logits would be drawn by lot."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema is not None else []
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        if given.get("training") is True or given.get("train") is True:
            raise ModelError(f"{node.name} is in training mode; export the network after network.eval()")
