"""8-bit quantization without calibration: weights ahead, activations over the range that each image has.

The file that comes out is what ships, and what is judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.compression._onnx_export import export, first_line, save, silence
from robustgate.core.components import ConstraintKind, ModelFile
from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto

    from robustgate.core.components import Network, Workshop

__all__ = ["DynamicQuantization"]

NAME = "dynamic_quantization"
# Where the quantized operators have their weight and its zero point.
WEIGHT, ZERO_POINT = 1, 3
CODES, SCALE = "_quantized", "_scale"


@dataclass(frozen=True, kw_only=True)
class DynamicQuantization:
    """Quantize weights to int8, and activations to uint8 as they come; ends the chain with an ONNX file.

    ONNX Runtime's ``quantize_dynamic``: linear layers become DynamicQuantizeLinear and MatMulInteger, and so do
    convolutions (ConvInteger) unless `convolutions` is false; all else, biases too, stays float32. A range is taken
    over all that a layer is given, so that in a batch an image's answer would depend on the other images: the file
    takes one image at a time.

    `per_channel` gives each output channel its own scale. ONNX Runtime's quantizer does so for linear layers only;
    for convolutions it is done here, and costs nothing: ConvInteger needs no scale, it is multiplied in afterwards.
    Codes are symmetric, zero being zero: int8 weights, which the CPU kernels run. Without VNNI, a processor's uint8 x
    int8 products may saturate where weights use all 8 bits; `reduce_range` leaves them one bit of room, so that the
    file answers alike everywhere.

    Batch normalisation is folded into the weights before they are quantized, so clusters are not kept.
    """

    product: ClassVar[Literal["network", "file"]] = "file"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset()
    keeps: ClassVar[frozenset[ConstraintKind]] = frozenset({"zeros"})

    convolutions: bool = True
    per_channel: bool = True
    reduce_range: bool = True

    def apply(self, network: Network, workshop: Workshop) -> ModelFile:
        """Write the quantized file into the workshop's folder. The same network gives the same bytes."""
        import onnx

        exported, prepared = workshop.folder / "float.onnx", workshop.folder / "prepared.onnx"
        product = workshop.folder / "int8.onnx"
        with silence():
            model = export(network.module, workshop.example, method=NAME)
            for end in (model.graph.input[0], model.graph.output[0]):
                end.type.tensor_type.shape.dim[0].dim_value = 1
            save(model, exported)
            try:
                self._quantize(exported, prepared, product)
            except Exception as error:
                raise CompressionError(
                    f"{NAME}: ONNX Runtime cannot quantize the network: {first_line(error)}"
                ) from error
            model = onnx.load(product)
            if self.per_channel:
                quantize_filters(model.graph, onnx.load(prepared), limit=64 if self.reduce_range else 127)
            prepared.unlink()
        check_codes(model.graph)
        check_zeros(model.graph, network)
        save(model, product)
        return ModelFile(path=product)

    def _quantize(self, exported: Path, prepared: Path, product: Path) -> None:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        quant_pre_process(exported, prepared)
        quantization.quantize_dynamic(
            prepared,
            product,
            op_types_to_quantize=["MatMul", *(["Conv"] if self.convolutions else [])],
            per_channel=self.per_channel,
            reduce_range=self.reduce_range,
            weight_type=quantization.QuantType.QInt8,
        )


def quantize_filters(graph: GraphProto, prepared: ModelProto, limit: int) -> None:
    """Give each filter of the quantized convolutions a scale of its own, and codes up to `limit` with it."""
    from onnx import numpy_helper

    floats = {value.name: value for value in prepared.graph.initializer}
    stored = {value.name: value for value in graph.initializer}
    for weight in {node.input[WEIGHT]: None for node in graph.node if node.op_type == "ConvInteger"}:
        name = weight.removesuffix(CODES)
        codes, scales = filter_codes(numpy_helper.to_array(floats[name]), limit)
        stored[weight].CopyFrom(numpy_helper.from_array(codes, weight))
        # Multiplied with images whose channels stand before all other axes.
        shaped = scales.reshape(-1, *[1] * (codes.ndim - 2))
        stored[name + SCALE].CopyFrom(numpy_helper.from_array(shaped, name + SCALE))


def filter_codes(weight: NDArray[np.float32], limit: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return round(w / s) and s, where a filter's scale s is its largest |w| over `limit`; 1 for one of zeros."""
    import numpy as np

    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scales = np.where(largest > 0, largest / np.float32(limit), np.float32(1)).astype(np.float32)
    codes = np.rint(weight / scales.reshape(-1, *[1] * (weight.ndim - 1)))
    return codes.astype(np.int8), scales


def check_codes(graph: GraphProto) -> None:
    """Raise CompressionError where nothing is quantized, or where a weight of zero is not a code of zero."""
    from onnx import numpy_helper

    stored = {value.name: value for value in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("ConvInteger", "MatMulInteger")]
    if not layers:
        raise CompressionError(f"{NAME}: nothing to quantize: the network has no layer of the kinds asked for")
    for node in layers:
        zero_point = stored.get(node.input[ZERO_POINT])
        if zero_point is None or numpy_helper.to_array(zero_point).any():
            raise CompressionError(f"{NAME}: {node.input[WEIGHT]}: a weight of zero is not stored as zero")


def check_zeros(graph: GraphProto, network: Network) -> None:
    """Raise CompressionError where a weight that must stay zero is not zero in the file."""
    from onnx import numpy_helper

    stored = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    for name in network.constrained("zeros"):
        zero = (network.module.state_dict()[name] == 0).cpu().numpy()
        values = stored.get(name + CODES, stored.get(name))
        # Matrices are transposed on the way, and some are named anew.
        held = list(stored.values()) if values is None else [values]
        turned = [one if zero.ndim > 2 else one.T for one in held]
        if not any(one.shape == zero.shape and not one[zero].any() for one in turned):
            raise CompressionError(f"{NAME}: {name!r} is zero in places where its values in the file are not")
