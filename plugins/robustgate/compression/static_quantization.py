"""8-bit post-training quantization: exported to ONNX, quantized by ONNX Runtime, in QDQ form.

The file that comes out is what ships, and what is judged. The first convolution's activations are quantized after
normalisation, which stays in float32 inside the file.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from robustgate.core.components import ModelFile
from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto
    from torch import Tensor, nn

    from robustgate.core.components import ConstraintKind, Network, Workshop

__all__ = ["StaticQuantization"]

# Every runtime that reads QDQ files with one scale a channel (13) in wide use also reads 18, the exporter's own.
OPSET = 18
BATCH = 10
NAME = "static_quantization"


@dataclass(frozen=True, kw_only=True)
class StaticQuantization:
    """Quantize weights to int8 and activations to 8 bits; ends the chain with an ONNX file.

    The ranges of activations are taken from at most `calibration_images` of the source domain's calibration split,
    spread evenly over it (many data sets are stored class by class): their extremes, or a percentile (99.999), or the
    range that loses least information (`calibration`). `per_channel` gives each filter its own scale. `reduce_range`
    leaves weights one bit of room: the advice of ONNX Runtime for processors without VNNI, where 8-bit products may
    saturate.
    """

    product: ClassVar[Literal["network", "file"]] = "file"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset()
    keeps: ClassVar[frozenset[ConstraintKind]] = frozenset({"zeros"})

    per_channel: bool = True
    calibration_images: int = 200
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    activations: Literal["uint8", "int8"] = "uint8"
    reduce_range: bool = False

    def __post_init__(self) -> None:
        if self.calibration_images < 1:
            raise ValueError(f"calibration_images must be at least 1, got {self.calibration_images}")

    def apply(self, network: Network, workshop: Workshop) -> ModelFile:
        """Write the quantized file into the workshop's folder. The same network and images give the same bytes."""
        images = self._calibration(workshop)
        exported, product = workshop.folder / "float.onnx", workshop.folder / "int8.onnx"
        with silence():
            save(export(network.module, workshop.example), exported)
            self._quantize(exported, product, images)
        return ModelFile(path=product)

    def _calibration(self, workshop: Workshop) -> NDArray[np.uint8]:
        import numpy as np

        images = workshop.samples("calibration").images
        count = min(self.calibration_images, len(images))
        return images[np.arange(count) * len(images) // count]

    def _quantize(self, exported: Path, product: Path, images: NDArray[np.uint8]) -> None:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        prepared = exported.with_name("prepared.onnx")
        methods = quantization.CalibrationMethod
        try:
            quant_pre_process(exported, prepared)
            quantization.quantize_static(
                prepared,
                product,
                CalibrationBatches(images, onnx.load(prepared).graph.input[0].name),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                weight_type=quantization.QuantType.QInt8,
                activation_type={"uint8": quantization.QuantType.QUInt8, "int8": quantization.QuantType.QInt8}[
                    self.activations
                ],
                calibrate_method={
                    "minmax": methods.MinMax,
                    "percentile": methods.Percentile,
                    "entropy": methods.Entropy,
                }[self.calibration],
                # One batch at a time: otherwise the activations of all images are held at once.
                extra_options={"CalibStridedMinMax": 1},
            )
        except Exception as error:
            raise CompressionError(f"{NAME}: ONNX Runtime cannot quantize the network: {first_line(error)}") from error
        finally:
            prepared.unlink(missing_ok=True)
        save(onnx.load(product), product)


class CalibrationBatches:
    """The calibration images, as ONNX Runtime asks for them: it counts batches, and sets a range of them."""

    def __init__(self, images: NDArray[np.uint8], input_name: str) -> None:
        self.images = images
        self.input_name = input_name
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return -(-len(self.images) // BATCH)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Read batches `start_index` up to `end_index`, not included, from now on."""
        self.pending = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next batch as the file's input, or None behind the last."""
        import numpy as np

        batch = next(self.pending, None)
        if batch is None:
            return None
        pixels = self.images[batch * BATCH : (batch + 1) * BATCH].transpose(0, 3, 1, 2)
        return {self.input_name: np.ascontiguousarray(pixels, dtype=np.float32) / np.float32(255)}


def export(module: nn.Module, example: Tensor) -> ModelProto:
    """Return the network as an ONNX model whose batch size varies. Raises CompressionError naming the obstacle."""
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
        raise CompressionError(f"{NAME}: the network cannot be exported to ONNX: {obstacle(error)}") from error
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
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)
