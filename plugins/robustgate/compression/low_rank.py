"""Low-rank factorisation (Denton et al. 2014, arXiv 1404.0736; Zhang et al. 2016, arXiv 1505.06798)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robustgate.compression._layers import weights_of
from robustgate.core.components import ConstraintKind, Edit, Network
from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustgate.core.components import Workshop

__all__ = ["LowRank"]

METHOD = "low_rank"
GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "padding_mode")


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Replace a layer by two thinner ones, whose product is the nearest matrix of a lower rank (truncated SVD).

    A linear layer's matrix is (out, in), an ungrouped convolution's is (out, in * kh * kw): r filters of the old
    shape, then a 1x1 convolution of them (Zhang et al.; Denton et al. factorise other unfoldings as well). Both
    factors carry the square roots of the singular values. Give either `energy`, the share of the squared singular
    values that each layer keeps (its rank is the smallest that reaches it), or `ratio`, the rank as a share of the
    full one, min(out, in * kh * kw), rounded, at least 1.

    A layer is replaced only where that saves parameters; grouped convolutions and subclasses of the two layers,
    whose weights others may read, are left alone. The papers choose each layer's rank by its accuracy and fit it to
    responses; one energy for all layers, and fitting weights, is this step's choice.
    """

    product: ClassVar[Literal["network", "file"]] = "network"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset()
    # The factors are new weights: neither the zeros nor the shared values of the old ones are in them.
    keeps: ClassVar[frozenset[ConstraintKind]] = frozenset()

    energy: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        if (self.energy is None) == (self.ratio is None):
            raise ValueError("give either energy or ratio")
        for key, share in (("energy", self.energy), ("ratio", self.ratio)):
            if share is not None and not 0 < share < 1:
                raise ValueError(f"{key} must be above 0 and below 1, got {share:g}")

    def apply(self, network: Network, workshop: Workshop) -> Network:
        """Return a copy of fewer parameters. Raises CompressionError where no layer can be replaced."""
        import torch

        module = copy.deepcopy(network.module)
        ranks: dict[str, int] = {}
        with torch.no_grad():
            for name, layer in _factorable(module).items():
                matrix = layer.weight.flatten(1).double()
                energies, vectors = _directions(matrix)
                rank = self._rank(energies)
                if rank * sum(matrix.shape) < matrix.numel():
                    module.set_submodule(name, _factorized(layer, matrix, vectors[:, :rank]))
                    ranks[name] = rank
            if not ranks:
                wish = f"ratio {self.ratio:g}" if self.energy is None else f"energy {self.energy:g}"
                raise CompressionError(f"{METHOD}: expected a layer that becomes smaller at {wish}, found none")
            try:
                module(workshop.example)
            except Exception as error:
                raise CompressionError(f"{METHOD}: the network does not run with layers replaced: {error}") from error
        edit = Edit(method=METHOD, payload={"ranks": ranks})
        return Network(module=module, architecture=network.architecture.edited(edit))

    @staticmethod
    def redo(module: nn.Module, edit: Edit, example: Tensor) -> nn.Module:  # noqa: ARG004
        """Replace the same layers of a freshly built module; the new ones' weights are still to be loaded."""
        for name, rank in edit.payload["ranks"].items():
            module.set_submodule(name, _pair(module.get_submodule(name), rank))
        return module

    def _rank(self, energies: Tensor) -> int:
        """Return the rank for a matrix of these squared singular values, descending."""
        if self.energy is None:
            return max(1, round((self.ratio or 0.0) * len(energies)))
        reached = energies.cumsum(0)
        return int((reached < self.energy * reached[-1]).sum()) + 1


def _factorable(module: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the layers that may be replaced, by name. Raises CompressionError for weights that are not finite."""
    from torch import nn

    found: dict[str, nn.Linear | nn.Conv2d] = {}
    for key in weights_of(module, METHOD):
        name = key.removesuffix(".weight")
        layer = module.get_submodule(name)
        if type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1):
            found[name] = layer
    return found


def _directions(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared singular values, descending, and the singular vectors of the shorter side as columns.

    They are the eigenvalues and eigenvectors of the Gram matrix: in double precision that is exact enough for
    float32 weights, and several times faster than a decomposition of the whole for a wide classifier.
    """
    import torch

    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    energies, vectors = torch.linalg.eigh(short @ short.T)
    return energies.flip(0).clamp(min=0), vectors.flip(1)


def _factorized(layer: nn.Linear | nn.Conv2d, matrix: Tensor, vectors: Tensor) -> nn.Sequential:
    """Return the two layers for a matrix and the singular vectors (columns) that are kept of its shorter side."""
    import torch

    wide = matrix.shape[0] <= matrix.shape[1]
    projected = vectors.T @ (matrix if wide else matrix.T)
    # Each row's norm is its singular value; where that is zero, so is the row.
    roots = projected.norm(dim=1).sqrt()
    long = projected / roots.clamp(min=torch.finfo(roots.dtype).tiny)[:, None]
    short = vectors * roots
    pair = _pair(layer, len(roots))
    for part, weight in zip(pair, (long, short) if wide else (short.T, long.T), strict=True):
        weights = part.get_parameter("weight")
        weights.copy_(weight.reshape(weights.shape))
    if layer.bias is not None:
        pair[1].get_parameter("bias").copy_(layer.bias)
    return pair


def _pair(layer: nn.Module, rank: int) -> nn.Sequential:
    """Return the two layers that stand for a linear layer or a convolution at a rank, their weights not yet set."""
    import torch
    from torch import nn

    # On meta nothing is initialised, so no random numbers are drawn.
    with torch.device("meta"):
        if isinstance(layer, nn.Linear):
            first: nn.Module = nn.Linear(layer.in_features, rank, bias=False)
            second: nn.Module = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
        elif isinstance(layer, nn.Conv2d):
            geometry: dict[str, Any] = {key: getattr(layer, key) for key in GEOMETRY}
            first = nn.Conv2d(layer.in_channels, rank, bias=False, **geometry)
            second = nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None)
        else:
            raise CompressionError(f"{METHOD}: expected a linear layer or a convolution, got {type(layer).__name__}")
    weight = layer.get_parameter("weight")
    return nn.Sequential(first, second).to_empty(device=weight.device).to(weight.dtype).train(layer.training)
