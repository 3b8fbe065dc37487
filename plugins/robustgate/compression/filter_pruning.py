"""L1-norm filter pruning (Li et al. 2017, arXiv 1608.08710): whole filters removed, ranked inside each layer."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robustgate.core.components import Edit, Network
from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustgate.core.components import ConstraintKind, Workshop

__all__ = ["FilterPruning"]

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True, kw_only=True)
class FilterPruning:
    """Remove the filters of smallest L1 norm, sum_j |F_ij|, the same share of every layer.

    Give `ratio`, the share of filters to remove from each layer, or `parameters`, the most that the network may
    hold afterwards (``"4.51M"``; the smallest ratio that meets it is found by bisection). Layers that a residual
    sum ties together lose the same channels; the mean of their norms ranks them. The classifier's outputs stay.
    A layer of one's own that knows its channels can be pruned with the rest if it has the attributes
    `in_channels` and `out_channels` and the methods `keep_inputs(kept)` and `keep_outputs(kept)`.

    The paper prunes in one shot and retrains; it leaves open how layers under a residual sum are ranked together.
    """

    product: ClassVar[Literal["network", "file"]] = "network"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset()
    keeps: ClassVar[frozenset[ConstraintKind]] = frozenset({"zeros", "clusters"})

    ratio: float | None = None
    parameters: str | int | None = None

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.parameters is None):
            raise ValueError("give either ratio or parameters")
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise ValueError(f"ratio must be above 0 and below 1, got {self.ratio:g}")
        if self.parameters is not None and not re.fullmatch(r"\d+(\.\d+)?[kMG]?", str(self.parameters)):
            raise ValueError(f"parameters must be a count such as 80000 or '4.51M', got {self.parameters!r}")

    def apply(self, network: Network, workshop: Workshop) -> Network:
        """Return a smaller copy of the network. Raises CompressionError where nothing can be removed."""
        ratio = self.ratio if self.ratio is not None else self._ratio_for_target(network.module, workshop.example)
        module = copy.deepcopy(network.module)
        history = _prune(module, workshop.example, ratio)
        if not history:
            raise CompressionError(f"filter_pruning: ratio {ratio:g} removes no filter from this network")
        edit = Edit(method="filter_pruning", payload={"history": history})
        architecture = network.architecture
        return Network(module=module, architecture=architecture.edited(edit))

    @staticmethod
    def redo(module: nn.Module, edit: Edit, example: Tensor) -> nn.Module:
        """Remove the same filters from a freshly built module."""
        _graph(module, example).load_pruning_history(edit.payload["history"])
        return module

    def _ratio_for_target(self, module: nn.Module, example: Tensor) -> float:
        text = str(self.parameters)
        unit = text[-1] if text[-1] in UNITS else ""
        target = float(text.removesuffix(unit)) * UNITS[unit]
        if _count(module) <= target:
            raise CompressionError(
                f"filter_pruning: parameters = {self.parameters!r}, but the network has only {_count(module):,}"
            )

        def fits(ratio: float) -> bool:
            pruned = copy.deepcopy(module)
            _prune(pruned, example, ratio)
            return _count(pruned) <= target

        low, high = 0.0, 0.99
        if not fits(high):
            raise CompressionError(f"filter_pruning: even ratio {high} leaves more than {self.parameters} parameters")
        # One filter of a 512-filter layer is 0.002 of it: ten halvings go below that.
        for _ in range(10):
            middle = (low + high) / 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _graph(module: nn.Module, example: Tensor) -> Any:
    import torch_pruning

    return torch_pruning.DependencyGraph().build_dependency(
        module, example_inputs=example, customized_pruners=_own_pruners(module), verbose=False
    )


def _own_pruners(module: nn.Module) -> dict[type, Any]:
    """Return a pruner for each class of layer that knows its own channels."""
    import torch_pruning

    class OwnChannels(torch_pruning.BasePruningFunc):  # type: ignore[misc]
        def prune_out_channels(self, layer: Any, idxs: list[int]) -> Any:
            layer.keep_outputs([i for i in range(layer.out_channels) if i not in set(idxs)])
            return layer

        def prune_in_channels(self, layer: Any, idxs: list[int]) -> Any:
            layer.keep_inputs([i for i in range(layer.in_channels) if i not in set(idxs)])
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.out_channels)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.in_channels)

    own = {
        type(layer) for layer in module.modules() if hasattr(layer, "keep_inputs") and hasattr(layer, "keep_outputs")
    }
    return dict.fromkeys(own, OwnChannels())


def _filter_norms(group: Any) -> Tensor | None:
    """Return for each channel of a dependency group the mean L1 norm of the filters that produce it."""
    import torch
    from torch_pruning.pruner import function

    producers = (function.prune_conv_out_channels, function.prune_linear_out_channels)
    total = torch.zeros(len(group[0].idxs))
    count = 0
    for item in group:
        if item.dep.pruning_fn in producers:
            norms = item.dep.layer.weight.detach().abs().flatten(1).sum(dim=1).cpu()
            total.index_add_(0, torch.as_tensor(item.root_idxs), norms[item.idxs])
            count += 1
    return total / count if count else None


def _prune(module: nn.Module, example: Tensor, ratio: float) -> list[Any]:
    """Prune in place; return what was removed, in a form that JSON keeps and `load_pruning_history` replays."""
    import torch
    import torch_pruning

    with torch.no_grad():
        shape = module(example).shape
    classifier = [layer for layer in module.modules() if hasattr(layer, "weight")][-1]
    pruner = torch_pruning.pruner.BasePruner(
        module,
        example,
        importance=_filter_norms,
        pruning_ratio=ratio,
        ignored_layers=[classifier],
        customized_pruners=_own_pruners(module),
    )
    pruner.step()
    with torch.no_grad():
        after = module(example).shape
    if after != shape:
        raise CompressionError(f"filter_pruning: the output's shape changed from {tuple(shape)} to {tuple(after)}")
    return [[name, bool(is_out), [int(i) for i in idxs]] for name, is_out, idxs in pruner.DG.pruning_history()]
