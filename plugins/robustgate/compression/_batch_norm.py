"""Batch normalisation folded into the layer before it, with a record of what it multiplies each channel with."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustgate.compression._onnx_export import obstacle
from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, fx, nn

LAYERS = {"linear", *(f"conv{kind}{rank}d" for kind in ("", "_transpose") for rank in (1, 2, 3))}
# What multiplies a channel is never quite zero, so that one can divide by it.
SMALLEST_FACTOR = 1e-12


@dataclass(frozen=True, kw_only=True)
class Folded:
    """A copy of a network, on the CPU, without the batch normalisations that follow a convolution or linear layer.

    `weights` names the weights of all convolutions and linear layers that the network uses; `factors` holds, for
    those that were folded, what the batch normalisation multiplies each output channel with.
    """

    module: nn.Module
    weights: tuple[str, ...]
    factors: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A layer and the batch normalisation that alone reads its output, by their names in the network."""

    layer: str
    norm: str


def fold(module: nn.Module, example: Tensor, *, method: str) -> Folded:
    """Fold batch normalisations in a copy. Raises CompressionError naming `method`, the step that asks."""
    import torch

    copied = copy.deepcopy(module).cpu().to(memory_format=torch.contiguous_format).eval()
    try:
        program = torch.export.export(copied, (example.detach().cpu().contiguous(),), strict=False)
    except Exception as error:
        raise CompressionError(f"{method}: the network cannot be exported: {obstacle(error)}") from error
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    layers = [node for node in program.graph.nodes if operator(node) in LAYERS]
    for node in layers:
        if node.args[1].op != "placeholder":
            raise CompressionError(
                f"{method}: expected weights that are parameters, got one that is computed ({node.args[1]}, a "
                "parametrization, weight or spectral norm): remove it first"
            )
    weights = [names[node.args[1].name] for node in layers if node.args[1].name in signature.inputs_to_parameters]
    pairs = [pair for node in layers if (pair := pair_of(node, names, copied)) is not None]
    factors = {f"{pair.layer}.weight": fold_pair(copied, pair) for pair in pairs}
    return Folded(module=copied, weights=tuple(dict.fromkeys(weights)), factors=factors)


def operator(node: fx.Node) -> str:
    """Return the name of the operator that a node calls, without its namespace and overload."""
    return str(node.target).split(".")[1] if node.op == "call_function" else ""


def pair_of(node: fx.Node, names: Mapping[str, str], module: nn.Module) -> Pair | None:
    """Return the pair that a layer's node begins, or None where folding would change what another node reads."""
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    if len(node.users) != 1:
        return None
    (norm,) = node.users
    # A batch normalisation without running statistics takes those of the batch: its sixth argument says so.
    if operator(norm) != "batch_norm" or norm.args[0] is not node or norm.args[5]:
        return None
    own: tuple[Any, ...] = (*node.args[1:3], *norm.args[1:4])
    if any(value is not None and len(value.users) != 1 for value in own):
        return None
    pair = Pair(layer=_path(names, node.args[1]), norm=_path(names, norm.args[3]))
    layer = module.get_submodule(pair.layer)
    if not isinstance(module.get_submodule(pair.norm), _BatchNorm):
        return None
    if isinstance(layer, nn.Linear):
        # Behind an axis more, a batch normalisation's channels are not the layer's.
        return pair if node.meta["val"].dim() == 2 else None
    return pair if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) else None


def _path(names: Mapping[str, str], value: object) -> str:
    return names.get(getattr(value, "name", ""), "").rpartition(".")[0]


def fold_pair(module: nn.Module, pair: Pair) -> Tensor:
    """Fold one batch normalisation in place; return its factors."""
    import torch
    from torch import nn

    layer: Any = module.get_submodule(pair.layer)
    norm: Any = module.get_submodule(pair.norm)
    with torch.no_grad():
        factor = (norm.running_var.double() + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight
        bias = -norm.running_mean if layer.bias is None else layer.bias - norm.running_mean
        bias = bias * factor + (0 if norm.bias is None else norm.bias)
        sign = torch.where(factor < 0, -1.0, 1.0)
        factor = sign * factor.abs().clamp(min=SMALLEST_FACTOR)
        weight = layer.weight * factor.view(-1, *[1] * (layer.weight.dim() - 1))
    layer.weight, layer.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
    module.set_submodule(pair.norm, nn.Identity())
    folded: Tensor = factor.float()
    return folded
