"""From a float network to a fake-quantized one, and from that to its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robustgate.compression._batch_norm import fold
from robustgate.compression._onnx_export import save, silence
from robustgate.core.components import ModelFile
from robustgate.core.errors import CompressionError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto
    from torch import Tensor

    from robustgate.compression._calibration import CalibratedQuantizer
    from robustgate.core.components import Network, Workshop
    from robustgate.twin.fake_quantized import FakeQuantized, Layer


def fake_quantized(
    network: Network, workshop: Workshop, settings: CalibratedQuantizer, *, method: str
) -> FakeQuantized:
    """Return the network as the quantized file that ONNX Runtime makes of it computes, its weights trainable.

    Its parameters have the names of the network's own, and its weights are the network's. Raises CompressionError
    naming `method` where the file does not show a weight of a convolution or linear layer under its name.
    """
    import onnx

    from robustgate.twin.fake_quantized import FACTOR, FakeQuantized
    from robustgate.twin.graph import refusal

    with silence():
        folded = fold(network.module, workshop.example, method=method)
    path = settings.quantize(folded.module, workshop, per_channel=True, method=method)
    model = onnx.load(path)
    state = folded.module.state_dict()
    clusters = network.constrained("clusters")
    for name in (*network.constrained("zeros"), *clusters):
        if name not in folded.weights:
            raise CompressionError(f"{method}: {name!r} is constrained, but no convolution or linear layer uses it")
    graph = QuantizedGraph(model, state, method)
    layers = [graph.layer(name, shared=name in clusters) for name in folded.weights]
    graph.strip(layers)
    try:
        with refusal(path):
            module = FakeQuantized(model, layers, settings.largest_code)
            module.rehearse()
    except ModelError as error:
        raise CompressionError(f"{method}: {error}") from error
    original = network.module.state_dict()
    values = {layer.weight: original[layer.weight] for layer in layers}
    values |= {layer.bias: state[layer.bias] for layer in layers if layer.bias}
    values |= {f"{name}{FACTOR}": factor for name, factor in folded.factors.items()}
    module.load_state_dict(module.state_dict() | values)
    return module.to(workshop.example.device)


def simulation(network: Network, *, method: str) -> FakeQuantized:
    """Return the module of a network under quantizers. Raises CompressionError where it is of another kind."""
    from robustgate.twin.fake_quantized import FakeQuantized

    if not isinstance(network.module, FakeQuantized):
        raise CompressionError(
            f"{method}: expected a network that quantization_aware_training made, got {type(network.module).__name__}"
        )
    return network.module


def write(network: Network, path: Path, *, method: str) -> ModelFile:
    """Write the file of a fake-quantized network. Raises CompressionError where it does not keep the constraints."""
    save(simulation(network, method=method).to_onnx(), path)
    check_file(path, network, method=method)
    return ModelFile(path=path)


def check_file(path: Path, network: Network, *, method: str) -> None:
    """Raise CompressionError where a file does not keep the zeros and clusters of the network that it was made of."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    stored = {value.name: numpy_helper.to_array(value) for value in onnx.load(path).graph.initializer}
    weights = network.module.state_dict()
    for name in network.constrained("zeros"):
        zero = (weights[name] == 0).cpu().numpy()
        if not any((codes[zero] == 0).all() for codes in stored_as(name, zero.shape, stored)):
            raise CompressionError(f"{method}: {name!r} is zero in places where the codes in the file are not")
    for name in network.constrained("clusters"):
        most, shape = len(weights[name].unique()), tuple(weights[name].shape)
        if not any(len(np.unique(codes)) <= most for codes in stored_as(name, shape, stored)):
            raise CompressionError(f"{method}: {name!r} has {most} different values, its codes in the file have more")


def stored_as(name: str, shape: tuple[int, ...], stored: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Return what a file may hold a weight as, in the weight's own shape."""
    from robustgate.twin.fake_quantized import CODES

    for key in (f"{name}{CODES}", name):
        if key in stored:
            return [stored[key]]
    # The exporter transposes some matrices, and names them anew.
    return [values.T for values in stored.values() if values.ndim == 2 and values.T.shape == shape]


class QuantizedGraph:
    """A file in QDQ form, as ONNX Runtime writes it, and where the parameters of a network are in it.

    `state` is the state dict of the network that was exported.
    """

    def __init__(self, model: ModelProto, state: Mapping[str, Tensor], method: str) -> None:
        self.graph = model.graph
        self.state = state
        self.method = method
        self.made = {name: node for node in model.graph.node for name in node.output}
        self.shapes = {value.name: tuple(value.dims) for value in model.graph.initializer}

    def layer(self, weight: str, *, shared: bool) -> Layer:
        """Return the layer of a weight. Raises CompressionError where it is not as expected."""
        from onnx import helper, numpy_helper

        from robustgate.twin.fake_quantized import CODES, Layer

        codes, shape = f"{weight}{CODES}", tuple(self.state[weight].shape)
        (dequantize,) = self._readers(codes, weight)
        (user,) = self._readers(dequantize.output[0], weight)
        axis = next(helper.get_attribute_value(one) for one in dequantize.attribute if one.name == "axis")
        source = self.made.get(user.input[0])
        if self.shapes[codes] != shape or user.input[1] != dequantize.output[0] or source is None:
            raise self._unexpected(weight, f"{user.op_type} of a weight of shape {self.shapes[codes]}")
        if source.op_type != "DequantizeLinear":
            raise self._unexpected(weight, f"{user.op_type} whose input is not quantized")
        bias = None
        if len(user.input) > 2:
            bias = self.made[user.input[2]].input[0].removesuffix(CODES) if user.input[2] in self.made else ""
            if self.shapes.get(f"{bias}{CODES}") != (shape[axis],) or bias not in self.state:
                raise self._unexpected(weight, f"{user.op_type} whose bias {user.input[2]!r} is not quantized")
        (scale,) = (value for value in self.graph.initializer if value.name == source.input[1])
        return Layer(
            weight=weight,
            shape=shape,
            axis=axis,
            shared=shared,
            bias=bias,
            input_scale=numpy_helper.to_array(scale).item(),
        )

    def strip(self, layers: list[Layer]) -> None:
        """Take the codes and scales of `layers` out of the file."""
        from robustgate.twin.fake_quantized import CODES

        owned = {f"{name}{CODES}" for layer in layers for name in (layer.weight, layer.bias) if name}
        owned |= {node.input[1] for node in self.graph.node if node.input[0] in owned}
        kept = [value for value in self.graph.initializer if value.name not in owned]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _readers(self, name: str, weight: str) -> list[NodeProto]:
        found = [node for node in self.graph.node if name in node.input]
        if not found:
            raise CompressionError(
                f"{self.method}: the quantized file does not show the weight {weight!r} under its name: the exporter "
                "has transposed or merged it"
            )
        if len(found) > 1:
            raise self._unexpected(weight, f"{len(found)} of them")
        return found

    def _unexpected(self, weight: str, got: str) -> CompressionError:
        return CompressionError(
            f"{self.method}: {weight!r}: expected one quantized layer that multiplies with it, got {got}"
        )
