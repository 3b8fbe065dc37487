"""Which filters of a network can only go together, and how they go: Torch-Pruning's dependency graph (2301.12900)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    from torch import Tensor, nn

History = Sequence[Sequence[Any]]
"""What is removed, in a form that JSON keeps: layer, True (its outputs), indices of the channels; in order."""


@dataclass(frozen=True, kw_only=True)
class Producer:
    """A layer whose filters make a group's channels: filter `filters[i]` makes channel `channels[i]`."""

    layer: str
    filters: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FilterGroup:
    """Layers that lose the same channels, because a residual sum or a depthwise convolution ties them.

    `root` is the layer by whose output channels the group is pruned. What can be removed one at a time is a unit:
    one channel, or the same place in each of the `blocks` of a grouped convolution, which stay equally wide.
    """

    root: str
    blocks: int
    units: int
    producers: tuple[Producer, ...]

    @property
    def fewest(self) -> int:
        """The number of units that stay at least: Torch-Pruning takes blocks of one channel for depthwise."""
        return 1 if self.blocks == 1 else 2

    def scores(self, filters: Mapping[str, Tensor]) -> Tensor:
        """Return each unit's score (units,): the mean over its producers' filters, whose scores are by layer."""
        import torch

        total, count = torch.zeros(2, self.blocks * self.units, dtype=torch.float64)
        for producer in self.producers:
            made = filters[producer.layer][list(producer.filters)]
            total.index_add_(0, torch.tensor(producer.channels), made)
            count.index_add_(0, torch.tensor(producer.channels), torch.ones_like(made))
        scores: Tensor = (total / count).view(self.blocks, self.units).mean(dim=0)
        return scores

    def removal(self, units: Sequence[int]) -> list[Any]:
        """Return the entry of a history that removes these units."""
        return [self.root, True, sorted(block * self.units + unit for block in range(self.blocks) for unit in units)]


def find_groups(module: nn.Module, example: Tensor) -> list[FilterGroup]:
    """Return the groups that can be pruned, in a fixed order: all but that of the classifier's outputs."""
    from torch_pruning.pruner import function

    made = (function.prune_conv_out_channels, function.prune_linear_out_channels)
    names = {layer: name for name, layer in module.named_modules()}
    classifier = [layer for layer in module.modules() if hasattr(layer, "weight")][-1]
    groups = []
    with followed():
        for members in _graph(module, example).get_all_groups(ignored_layers=[classifier]):
            producers = tuple(
                Producer(layer=names[item.dep.layer], filters=tuple(item.idxs), channels=tuple(item.root_idxs))
                for item in members
                if item.dep.handler in made
            )
            channels = len(members[0].idxs)
            blocks = max(_blocks(item.dep.layer) for item in members)
            if len({channel for producer in producers for channel in producer.channels}) == channels:
                root = names[members[0].dep.layer]
                groups.append(FilterGroup(root=root, blocks=blocks, units=channels // blocks, producers=producers))
    return groups


def prune(module: nn.Module, example: Tensor, history: History) -> None:
    """Remove channels in place, with all that depends on them. Raises CompressionError where that cannot be."""
    with followed():
        _graph(module, example).load_pruning_history(history)


@contextmanager
def followed() -> Iterator[None]:
    """Turn whatever goes wrong inside into a CompressionError."""
    try:
        yield
    except Exception as error:
        raise CompressionError(
            f"filter_pruning: Torch-Pruning cannot follow this network: {type(error).__name__}: {error}"
        ) from error


def _blocks(layer: Any) -> int:
    """Return in how many equal blocks a layer wants its channels: those of grouped convolutions and group norms."""
    from torch import nn

    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    groups = layer.groups if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) else 1
    return 1 if groups > 1 and groups == layer.out_channels else groups  # a depthwise one just loses channels


def _graph(module: nn.Module, example: Tensor) -> Any:
    import torch_pruning

    return torch_pruning.DependencyGraph().build_dependency(
        module, example_inputs=(example,), customized_pruners=_own_pruners(module), verbose=False
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
