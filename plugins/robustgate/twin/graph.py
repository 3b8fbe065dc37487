"""The twin of an ONNX file: the file's own graph, run in torch, so that a gradient reaches the images.

It is what a white-box attack on a quantized artifact differentiates. Success is never counted on the twin: it computes
in float32 where ONNX Runtime may use integer kernels, so the two differ in a last digit now and then.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data
from torch import Tensor, nn

from robustgate.core.errors import ModelError
from robustgate.twin.operators import OPERATORS
from robustgate.twin.qoperators import GIVE_CODES, PASS_CODES, TAKE_RANGES

DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One node: a function bound to its attributes, and the names of the tensors that it reads and writes."""

    title: str
    function: Callable[..., Tensor | tuple[Tensor, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this node's outputs by name. An error says which node it was."""
        try:
            # An empty name is an optional input that is left out.
            found = self.function(*(tensors[name] if name else None for name in self.inputs))
        except Exception as error:
            error.add_note(f"in {self.title}")
            raise
        results = (found,) if isinstance(found, Tensor) else found
        return {name: result for name, result in zip(self.outputs, results, strict=True) if name}


class Twin(nn.Module):
    """Maps images (N, 3, H, W) in [0, 1] to what the file's one output holds; nothing in it is trained.

    A file whose batch size is fixed is run on as many images at a time as it was made for, and one that takes ranges
    from the images on one at a time: see `images_at_once`.
    """

    def __init__(self, graph: onnx.GraphProto, steps: Sequence[Step]) -> None:
        super().__init__()
        self.batch = images_at_once(graph)
        constants = {value.name: to_tensor(value) for value in graph.initializer}
        self.input, self.shape = image_input(graph, constants)
        self.output = only_output(graph)
        self.steps, folded = fold(steps, constants)
        needed = {name for step in self.steps for name in step.inputs} | {self.output}
        # Shapes, axes and indices stay on the host; a module's buffer may have no dot in its name.
        self.integers = {name: value for name, value in folded.items() if name in needed and is_count(value)}
        self.values = [name for name, value in folded.items() if name in needed and not is_count(value)]
        for place, name in enumerate(self.values):
            self.register_buffer(f"constant_{place}", folded[name], persistent=False)
        self.eval()

    @classmethod
    def from_file(cls, path: Path) -> Twin:
        """Read an ONNX file. Raises ModelError naming every operator that has no differentiable counterpart."""
        model = read(path)
        version = next(entry.version for entry in model.opset_import if entry.domain in DOMAINS)
        # Whoever loads it may be measuring, without gradients.
        with torch.inference_mode(mode=False), torch.enable_grad(), refusal(path):
            twin = cls(model.graph, compile_nodes(model.graph.node, version))
            twin.rehearse()
        return twin

    def forward(self, images: Tensor) -> Tensor:
        """Return the file's output for `images`."""
        if self.batch is None or len(images) == self.batch:
            return self.walk(images)
        missing = -len(images) % self.batch
        filled = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])
        # Side by side, yet each part as if it were alone.
        parts = filled.reshape(-1, self.batch, *images.shape[1:])
        found: Tensor = torch.vmap(self.walk)(parts)
        return found.flatten(0, 1)[: len(images)]

    def walk(self, images: Tensor) -> Tensor:
        """Run the steps that are left, in the graph's order."""
        tensors = {self.input: images, **self.known()}
        for step in self.steps:
            tensors |= step.run(tensors)
        return tensors[self.output]

    def known(self) -> dict[str, Tensor]:
        """Return the tensors that do not depend on the images, by name."""
        return self.integers | {name: self.get_buffer(f"constant_{place}") for place, name in enumerate(self.values)}

    def rehearse(self) -> None:
        """Run grey images once, so that what cannot run, or has no gradient, is found now and not in the middle."""
        if self.shape is None or None in self.shape[1:]:
            return
        images = torch.full([size or 1 for size in self.shape], 0.5, requires_grad=True)
        if not self(images).requires_grad:
            raise ModelError(f"no gradient reaches its output {self.output!r}")


@contextmanager
def refusal(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong into a ModelError that says of which file, and in which node."""
    try:
        yield
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, ModelError) as error:
        places = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        raise ModelError(f"{path}: no differentiable twin: {error}{places}") from error


def is_count(value: Tensor) -> bool:
    """Say whether a constant is a shape, an axis or an index, rather than a quantity."""
    return value.dtype in (torch.int64, torch.bool)


def read(path: Path) -> ModelProto:
    """Read an ONNX model that is complete in one file."""
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:
        # protobuf's own error class has no public home.
        raise ModelError(f"{path}: not an ONNX file: {error}") from error
    if not any(entry.domain in DOMAINS for entry in model.opset_import):
        raise ModelError(f"{path}: not an ONNX file: it names no operator set")
    outside = [tensor.name for tensor in model.graph.initializer if uses_external_data(tensor)]
    if outside:
        raise ModelError(f"{path}: weights are kept in another file ({len(outside)} tensors, {outside[0]!r} first)")
    if model.graph.sparse_initializer:
        raise ModelError(f"{path}: weights are kept as sparse tensors, expected dense ones")
    return model


def to_tensor(value: TensorProto) -> Tensor:
    """Return an ONNX tensor as a torch tensor that owns its memory."""
    return torch.from_numpy(numpy_helper.to_array(value).copy())


def images_at_once(graph: onnx.GraphProto) -> int | None:
    """Return how many images a file is to be run on at a time, or None where it does not matter.

    As many as its input's shape fixes. Where ranges are taken from what is run (dynamic quantization), an image's
    answer depends on the others of its batch: one, so that it has one answer.
    """
    shape = image_input(graph, {value.name for value in graph.initializer})[1]
    if shape and shape[0]:
        return shape[0]
    return 1 if takes_ranges(graph) else None


def takes_ranges(graph: onnx.GraphProto) -> bool:
    """Say whether a file takes ranges of activations from what it is run on."""
    return any(named(node) in TAKE_RANGES for node in graph.node)


def image_input(graph: onnx.GraphProto, constants: Container[str]) -> tuple[str, tuple[int | None, ...] | None]:
    """Return the name and shape of the graph's one input; a size that varies is None, as is an unknown shape."""
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        names = ", ".join(f"{value.name!r}" for value in inputs)
        raise ModelError(f"expected one float32 input, the images, found {names or 'none'}")
    kind = inputs[0].type.tensor_type
    if not kind.HasField("shape"):
        return inputs[0].name, None
    return inputs[0].name, tuple(size.dim_value or None for size in kind.shape.dim)


def only_output(graph: onnx.GraphProto) -> str:
    """Return the name of the graph's one output."""
    if len(graph.output) != 1:
        names = ", ".join(f"{value.name!r}" for value in graph.output)
        raise ModelError(f"expected one output, found {len(graph.output)} ({names})")
    name: str = graph.output[0].name
    return name


def compile_nodes(nodes: Sequence[NodeProto], opset: int) -> list[Step]:
    """Return a step for each node. Raises ModelError naming all operators that are unknown, and their nodes."""
    unknown: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        if named(node) not in OPERATORS:
            unknown[named(node)].append(label(node))
    if unknown:
        listed = "; ".join(f"{name} (node {', '.join(places[:3])})" for name, places in sorted(unknown.items()))
        raise ModelError(f"unknown operator {listed}")
    steps = []
    coded: set[str] = set()
    for node in nodes:
        codes = bool(node.input) and node.input[0] in coded
        if named(node) in GIVE_CODES or (codes and named(node) in PASS_CODES):
            coded.update(node.output)
        steps.append(compile_node(node, opset, codes=codes))
    return steps


def named(node: NodeProto) -> str:
    """Return a node's operator as the table names it, with its domain where that is not ONNX's own."""
    return f"{node.domain}::{node.op_type}" if node.domain not in DOMAINS else node.op_type


def label(node: NodeProto) -> str:
    """Return how a message names a node; one without a name by what it writes."""
    return repr(node.name or f"-> {node.output[0]}")


def compile_node(node: NodeProto, opset: int, *, codes: bool) -> Step:
    """Bind a node's function to its attributes, and check that it takes them."""
    function = OPERATORS[named(node)]
    title = f"node {label(node)} ({named(node)})"
    taken = inspect.signature(function).parameters
    attributes = {attribute.name: plain(helper.get_attribute_value(attribute)) for attribute in node.attribute}
    known = {"opset": opset, "outputs": len(node.output), "codes": codes}
    # A quantized operator of another domain names the version that it was made of itself.
    attributes = {name: value for name, value in known.items() if name in taken} | attributes
    try:
        inspect.signature(function).bind(*node.input, **attributes)
    except TypeError as error:
        raise ModelError(f"{title}: {error}") from error
    if len([name for name in node.output if name]) > 1 and "outputs" not in taken:
        raise ModelError(f"{title}: only its first output is known")
    outputs = tuple(node.output) if "outputs" in taken else tuple(node.output[:1])
    return Step(title=title, function=partial(function, **attributes), inputs=tuple(node.input), outputs=outputs)


def plain(value: Any) -> Any:
    """Return an attribute's value as Python and torch know it."""
    if isinstance(value, TensorProto):
        return to_tensor(value)
    return value.decode() if isinstance(value, bytes) else value


def fold(steps: Sequence[Step], constants: Mapping[str, Tensor]) -> tuple[list[Step], dict[str, Tensor]]:
    """Run what depends on constants alone; return the steps that are left, and every constant."""
    known = dict(constants)
    left = []
    for step in steps:
        if all(name in known for name in step.inputs if name):
            known |= step.run(known)
        else:
            left.append(step)
    return left, known
