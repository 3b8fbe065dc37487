"""The weights of convolutions and linear layers, and the constraints on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustgate.core.components import Constraint
from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    from torch import nn

    from robustgate.core.components import ConstraintKind, Network


def weights_of(module: nn.Module, method: str) -> dict[str, nn.Parameter]:
    """Return the weights of all convolutions and linear layers by their names in the state dict; a shared one once.

    `method` is the step that asks. Raises CompressionError where there are none, where a weight is not a parameter
    but computed from others, and where one holds NaN or infinity.
    """
    from torch import nn

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)}
    for name, layer in layers.items():
        if not isinstance(layer.weight, nn.Parameter):
            raise CompressionError(
                f"{method}: {name}: expected a weight that is a parameter, got one that is computed (a "
                "parametrization, weight or spectral norm): remove it first"
            )
        if not layer.weight.isfinite().all():
            raise CompressionError(f"{method}: {name}.weight: expected finite numbers, got NaN or infinity")
    owned = {id(layer.weight) for layer in layers.values()}
    weights = {name: one for name, one in module.named_parameters() if id(one) in owned}
    if not weights:
        raise CompressionError(f"{method}: expected convolutions or linear layers, the network has none")
    return weights


def constrained(network: Network, kind: ConstraintKind, names: tuple[str, ...]) -> tuple[Constraint, ...]:
    """Return a network's constraints with one more: those of its own kind become one with it."""
    others = tuple(one for one in network.constraints if one.kind != kind)
    united = tuple(dict.fromkeys((*network.constrained(kind), *names)))
    return (*others, Constraint(kind=kind, parameters=united))
