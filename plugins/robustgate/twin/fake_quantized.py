"""A quantized ONNX file's graph whose weights are float parameters: what quantization-aware training trains.

It computes with the weights, biases and activations that its file will hold, rounded with straight-through gradients,
and writes that file itself.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx
import torch
from onnx import ModelProto, NodeProto, numpy_helper
from torch import Tensor, nn

from robustgate.twin.graph import DOMAINS, Twin, compile_nodes
from robustgate.twin.quantization import along, to_codes

CODES = "_quantized"
FACTOR = "_factor"
# A layer of zeros has no scale of its own.
SMALLEST_STEP = 1e-12
# Half of what 32 bits hold: the other half is room for the products that are added to a bias.
LARGEST_BIAS = 2.0**30


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A weight that the file holds as 8-bit codes with one scale a channel, and its bias of 32 bits.

    `weight` and `bias` are the names of the parameters; the file's tensors have them too, with an ending. `shape` is
    the weight's, `axis` counts its output channels, `input_scale` is the scale of what it is multiplied with.
    `shared`: the codes of all channels are steps of one size, so that equal weights have equal codes.
    """

    weight: str
    shape: tuple[int, ...]
    axis: int
    shared: bool
    bias: str | None
    input_scale: float

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return self.shape[self.axis]


class FakeQuantized(Twin):
    """Maps images (N, 3, H, W) in [0, 1] to what the file's output holds; weights and biases are parameters.

    A weight `w` is what the float network multiplies with, before its batch normalisation; the buffer
    ``<weight>_factor`` holds what that multiplies each channel c with, g_c. The layer computes with
    g_c * s_c * round(w / s_c), where s_c is the largest |w| of the channel, or of all channels (`Layer.shared`), over
    `limit`, the largest code. Biases are rounded to steps of the input's scale times g_c * s_c. Steps follow the
    weights while they are trained; the scales of activations are the file's.

    A step is never so small that the bias would not fit into 32 bits. Where the steps are shared, and the codes
    therefore fixed, the channel's factor is raised instead; its weights are then some thousandths of its bias at most.
    """

    def __init__(self, model: ModelProto, layers: Sequence[Layer], limit: int) -> None:
        """Make the module of a file without the codes and scales of `layers`; all weights are zero."""
        owned = {f"{name}{CODES}" for layer in layers for name in (layer.weight, layer.bias) if name}
        weighed = [node for node in model.graph.node if owned.intersection(node.input[:1])]
        others = [node for node in model.graph.node if not owned.intersection(node.input[:1])]
        version = next(entry.version for entry in model.opset_import if entry.domain in DOMAINS)
        super().__init__(model.graph, compile_nodes(others, version))
        self.model = model
        self.layers = tuple(layers)
        self.limit = limit
        self.nodes: Mapping[str, NodeProto] = {node.input[0].removesuffix(CODES): node for node in weighed}
        for layer in layers:
            owner, attribute = self._owner(layer.weight)
            owner.register_parameter(attribute, nn.Parameter(torch.zeros(layer.shape)))
            owner.register_buffer(f"{attribute}{FACTOR}", torch.ones(layer.channels))
            if layer.bias:
                owner, attribute = self._owner(layer.bias)
                owner.register_parameter(attribute, nn.Parameter(torch.zeros(layer.channels)))

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> FakeQuantized:
        """Make the module that `payload` described, without its weights."""
        model = onnx.load_from_string(base64.b64decode(payload["graph"]))
        layers = [Layer(**{**layer, "shape": tuple(layer["shape"])}) for layer in payload["layers"]]
        return cls(model, layers, payload["limit"])

    def payload(self) -> dict[str, Any]:
        """Return what this module is made of, without its weights, in a form that JSON keeps."""
        graph = base64.b64encode(self.model.SerializeToString(deterministic=True)).decode()
        return {"graph": graph, "layers": [asdict(layer) for layer in self.layers], "limit": self.limit}

    def known(self) -> dict[str, Tensor]:
        """Return the tensors that do not depend on the images, the layers' weights and biases among them."""
        tensors = super().known()
        for layer in self.layers:
            weight = self._value(layer.weight)
            step, scale = self._steps(layer)
            codes = self._codes(weight, layer, step)
            tensors[self.nodes[layer.weight].output[0]] = codes * along(layer.axis, scale, weight)
            if layer.bias:
                bias, scale = self._value(layer.bias), scale * layer.input_scale
                rounded = bias_codes(bias, scale).float() * scale
                # Straight-through, and the rounded value to the last bit.
                tensors[self.nodes[layer.bias].output[0]] = rounded + (bias - bias.detach())
        return tensors

    @torch.no_grad()
    def to_onnx(self) -> ModelProto:
        """Return the file: the graph with the codes and scales of the weights and biases as they are now."""
        model = ModelProto()
        model.CopyFrom(self.model)
        for layer in self.layers:
            weight = self._value(layer.weight)
            step, scale = self._steps(layer)
            codes = self._codes(weight, layer, step)
            if not layer.shared:
                # Scales above zero, where codes may take the sign.
                codes = codes * along(layer.axis, scale.sign(), weight)
                scale = scale.abs()
            self._store(model, layer.weight, codes.to(torch.int8), scale)
            if layer.bias:
                scale = scale * layer.input_scale
                self._store(model, layer.bias, bias_codes(self._value(layer.bias), scale), scale)
        return model

    @torch.no_grad()
    def snap(self) -> None:
        """Move each weight to the step that it is rounded to; what the module computes does not change."""
        for layer in self.layers:
            weight = self._value(layer.weight)
            step, _ = self._steps(layer)
            codes, largest = self._codes(weight, layer, step), along(layer.axis, self._largest(layer), weight)
            # The largest weight stays as it is to the last bit: the step is computed from it.
            outermost = codes.abs() == self.limit
            weight.copy_(torch.where(outermost, codes.sign() * largest, codes * along(layer.axis, step, weight)))

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """Return the module that holds the parameter `name`, made where it is missing, and the name inside it."""
        *path, attribute = name.split(".")
        owner: nn.Module = self
        for part in path:
            if part not in dict(owner.named_children()):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        return owner, attribute

    def _value(self, name: str) -> Tensor:
        # Not get_parameter: a parameter may be computed from what is trained (torch.nn.utils.parametrize).
        path, _, attribute = name.rpartition(".")
        value: Tensor = getattr(self.get_submodule(path), attribute)
        return value

    def _largest(self, layer: Layer) -> Tensor:
        """Return the largest |w| of each channel, or of all of them where they share their step."""
        magnitudes = self._value(layer.weight).detach().abs()
        largest = magnitudes.transpose(0, layer.axis).flatten(1).amax(1)
        return largest.max().expand_as(largest) if layer.shared else largest

    def _steps(self, layer: Layer) -> tuple[Tensor, Tensor]:
        """Return s_c, and what a code stands for in the file, g_c * s_c: one of each a channel."""
        step = (self._largest(layer) / self.limit).clamp(min=SMALLEST_STEP)
        factor = self._value(layer.weight + FACTOR)
        least = torch.zeros_like(step)
        if layer.bias:
            bias = self._value(layer.bias).detach().abs()
            least = bias / (LARGEST_BIAS * layer.input_scale) / factor.abs()
        widened = torch.maximum(step, least)
        return (step if layer.shared else widened), factor * widened

    def _codes(self, weight: Tensor, layer: Layer, step: Tensor) -> Tensor:
        limit = float(self.limit)
        return to_codes(weight / along(layer.axis, step, weight), 0.0, (-limit, limit))

    def _store(self, model: ModelProto, name: str, codes: Tensor, scale: Tensor) -> None:
        node = self.nodes[name]
        for place, values in ((0, codes), (1, scale)):
            model.graph.initializer.append(numpy_helper.from_array(values.cpu().numpy(), node.input[place]))


def bias_codes(bias: Tensor, scale: Tensor) -> Tensor:
    """Return round(bias / scale) as 32-bit integers, which float32 could not hold."""
    return (bias.detach().double() / scale.double()).round().to(torch.int32)
