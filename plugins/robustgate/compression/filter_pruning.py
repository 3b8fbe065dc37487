"""Filter pruning: whole filters are removed, the weakest first (Li et al. 2017, arXiv 1608.08710)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from robustgate.compression._filter_groups import FilterGroup, find_groups, followed, prune
from robustgate.core.components import ConstraintKind, Edit, Network
from robustgate.core.counts import count_macs, count_parameters, read_count
from robustgate.core.errors import CompressionError, listing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustgate.core.components import Materials

__all__ = ["FilterPruning"]

FEWEST = 0.01  # what a target leaves of each layer at least, where every layer loses the same share
CLOSE = 0.99  # a count this near to its target is not brought nearer
SLACK = 1e-9  # numbers of filters are whole but for a float's last digits
BATCH = 64  # images at a time through the network for Taylor scores; their gradients are summed


@dataclass(frozen=True, kw_only=True)
class FilterPruning:
    """Remove the weakest filters, until a share of them is gone or the network is small enough.

    `criterion` says what a filter's strength is:
      ``l1``, ``l2``: the norm of its weights (Li et al. 2017 rank by L1);
      ``taylor``: (sum of gradient x weight)^2, the first-order estimate of Molchanov et al. 2019 (arXiv 1906.10771),
      with the gradient of the mean cross-entropy on `taylor_images` images spread evenly over the train split. The
      paper averages the squares over the batches of a training run; here the network is in eval mode and at rest;
      ``random``: drawn with the step's seed; what a criterion is worth shows against it.
    `scope` says which filters are compared: those of one ``layer``, of which each loses the same share (Li et al.),
    or all (``global``). Then the scores of each layer are divided by their mean, since layers differ in scale, and
    at least the share `keep` of each layer's filters stays. At least one filter of a layer always stays.

    Give one target: `ratio`, the share of the filters to remove; or `parameters` or `macs`, the most that the network
    may hold or compute afterwards (``"4.51M"``): filters go one by one in the order of their strength (in scope
    ``layer``, of their rank in their layer) until it is met.
    In several `rounds`, each followed by the step's fine-tuning, each round removes the same share of what is there;
    the last one leaves as many filters, or reaches the same target, as one round would.

    Layers that a residual sum or a depthwise convolution ties together lose the same channels; the mean of the scores
    of the filters that make a channel ranks it. A grouped convolution loses the same places of each block. The
    classifier's outputs stay. A layer of one's own that knows its channels can be pruned with the rest if it has the
    attributes `in_channels` and `out_channels` and the methods `keep_inputs(kept)` and `keep_outputs(kept)`.

    Li et al. prune in one shot and retrain; they leave open how layers under a residual sum are ranked together.
    """

    product: ClassVar[Literal["network", "file"]] = "network"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset()
    keeps: ClassVar[frozenset[ConstraintKind]] = frozenset({"zeros", "clusters"})

    ratio: float | None = None
    parameters: str | int | None = None
    macs: str | int | None = None
    criterion: Literal["l1", "l2", "taylor", "random"] = "l1"
    scope: Literal["layer", "global"] = "layer"
    rounds: int = 1
    keep: float = 0.1
    taylor_images: int = 256

    def __post_init__(self) -> None:
        given = [key for key in ("ratio", "parameters", "macs") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of ratio, parameters and macs, got {listing(given)}")
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise ValueError(f"ratio must be above 0 and below 1, got {self.ratio:g}")
        if self.parameters is not None:
            read_count(self.parameters, "parameters")
        if self.macs is not None:
            read_count(self.macs, "macs")
        if self.criterion not in ("l1", "l2", "taylor", "random"):
            raise ValueError(f"criterion must be l1, l2, taylor or random, got {self.criterion!r}")
        if self.scope not in ("layer", "global"):
            raise ValueError(f"scope must be layer or global, got {self.scope!r}")
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep must be a share in [0, 1), got {self.keep:g}")
        if self.taylor_images < 1:
            raise ValueError(f"taylor_images must be at least 1, got {self.taylor_images}")

    def apply(self, network: Network, workshop: Materials) -> Network:
        """Return a smaller copy of the network, after one round. Raises CompressionError where that cannot be."""
        module, example = copy.deepcopy(network.module).eval(), workshop.example
        groups = find_groups(module, example)
        removals = self._rank(groups, self._score(module, groups, workshop))
        if self.ratio is not None:
            chosen = self._share(groups, removals)
        else:
            chosen = self._within_target(module, example, groups, removals)
        if not chosen:  # a round between, whose share is less than a filter
            return replace(network, module=module)
        history = _history(groups, chosen)
        before = _output_shape(module, example)
        prune(module, example, history)
        with followed():
            after = _output_shape(module, example)
        if after != before:
            raise CompressionError(f"filter_pruning: the output's shape changed from {before} to {after}")
        edit = Edit(method="filter_pruning", payload={"history": history})
        return replace(network, module=module, architecture=network.architecture.edited(edit))

    def next_round(self) -> FilterPruning | None:
        """Return the step that removes what this round leaves to remove, or None after the last round."""
        if self.rounds == 1:
            return None
        left = (self.rounds - 1) / self.rounds
        ratio = None if self.ratio is None else 1 - (1 - self.ratio) ** left
        keep = self.keep**left if self.scope == "global" else self.keep
        return replace(self, ratio=ratio, keep=keep, rounds=self.rounds - 1)

    @staticmethod
    def redo(module: nn.Module, edit: Edit, example: Tensor) -> nn.Module:
        """Remove the same filters from a freshly built module."""
        prune(module, example, edit.payload["history"])
        return module

    def _score(self, module: nn.Module, groups: list[FilterGroup], workshop: Materials) -> list[list[float]]:
        """Return the scores of each group's units."""
        import torch

        if self.criterion == "random":
            generator = torch.Generator().manual_seed(workshop.seed)
            return [torch.rand(group.units, generator=generator).tolist() for group in groups]
        names = {producer.layer for group in groups for producer in group.producers}
        layers = {name: layer for name, layer in module.named_modules() if name in names}
        if self.criterion == "taylor":
            filters = self._taylor(module, layers, workshop)
        else:
            order = 1 if self.criterion == "l1" else 2
            filters = {
                name: _rows(layer, layer.get_parameter("weight")).norm(p=order, dim=1) for name, layer in layers.items()
            }
        return [group.scores(filters).tolist() for group in groups]

    def _taylor(self, module: nn.Module, layers: Mapping[str, nn.Module], workshop: Materials) -> dict[str, Tensor]:
        import torch
        from torch.nn import functional

        samples = workshop.samples("train")
        count = min(self.taylor_images, len(samples))
        rows = [i * len(samples) // count for i in range(count)]
        device = workshop.example.device
        weights = [layer.get_parameter("weight") for layer in layers.values()]
        totals = [torch.zeros_like(weight) for weight in weights]
        for start in range(0, count, BATCH):
            batch = rows[start : start + BATCH]
            images = torch.from_numpy(samples.images[batch]).permute(0, 3, 1, 2).float().div(255).to(device)
            labels = torch.from_numpy(samples.labels[batch]).to(device)
            loss = functional.cross_entropy(module(images), labels, reduction="sum") / count
            for total, gradient in zip(totals, torch.autograd.grad(loss, weights), strict=True):
                total += gradient
        return {
            name: (_rows(layer, weight) * _rows(layer, total)).sum(dim=1).square()
            for (name, layer), weight, total in zip(layers.items(), weights, totals, strict=True)
        }

    def _rank(self, groups: list[FilterGroup], scores: list[list[float]]) -> list[Removal]:
        """Return all that may be removed, in the order in which it goes."""
        equal_shares = FEWEST if self.ratio is None else 0.0
        share = self.keep ** (1 / self.rounds) if self.scope == "global" else equal_shares
        removals = []
        for place, (group, score) in enumerate(zip(groups, scores, strict=True)):
            mean = sum(score) / len(score) or 1.0  # a layer of zeros is left at zero
            weakest_first = sorted(range(group.units), key=score.__getitem__)
            staying = max(group.fewest, math.ceil(share * group.units - SLACK))
            for rank, unit in enumerate(weakest_first[: max(0, group.units - staying)]):
                key = rank / group.units if self.scope == "layer" else score[unit] / mean
                removals.append(Removal(key, place, rank, unit))
        return sorted(removals)

    def _share(self, groups: list[FilterGroup], removals: list[Removal]) -> list[Removal]:
        """Return what goes for `ratio`."""
        total = sum(group.units for group in groups)
        wanted = self._removed(total)
        if self.scope == "layer":
            chosen = [one for one in removals if one.rank < self._removed(groups[one.group].units)]
        elif wanted > len(removals):
            raise CompressionError(
                f"filter_pruning: ratio {self.ratio:g} is {wanted:,} of {total:,} filters, "
                f"but keep = {self.keep:g} lets only {len(removals):,} go"
            )
        else:
            chosen = removals[:wanted]
        if not chosen and self.rounds == 1:
            raise CompressionError(f"filter_pruning: ratio {self.ratio:g} removes no filter from this network")
        return chosen

    def _removed(self, count: int) -> int:
        """Return how many of `count` filters go in this round.

        So many that the next round, which knows only what it finds, still ends at the filter at which one round would.
        """
        stays = 1 - (self.ratio or 0.0)
        left = max(1, math.floor(count * stays + SLACK))
        following = self.next_round()
        if following is not None:
            later = 1 - (following.ratio or 0.0)
            left = max(math.ceil(left / later - SLACK), math.floor(count * stays / later + SLACK))
        return count - left

    def _within_target(
        self, module: nn.Module, example: Tensor, groups: list[FilterGroup], removals: list[Removal]
    ) -> list[Removal]:
        """Return the removals, the weakest first, that leave a count within this round's goal, and near it."""
        key = "parameters" if self.parameters is not None else "macs"
        written = getattr(self, key)

        def count(network: nn.Module) -> int:
            return count_parameters(network) if key == "parameters" else count_macs(network, example)

        def count_after(chosen: list[Removal]) -> int:
            smaller = copy.deepcopy(module)
            prune(smaller, example, _history(groups, chosen))
            return count(smaller)

        present, target = count(module), read_count(written, key)
        if present <= target:
            raise CompressionError(f"filter_pruning: {key} = {written!r}, but the network has only {present:,}")
        goal: int = min(present - 1, round(present * (target / present) ** (1 / self.rounds)))
        if count_after(removals) > goal:
            most = f"ratio {1 - FEWEST}" if self.scope == "layer" else f"keep = {self.keep:g} of each layer"
            raise CompressionError(f"filter_pruning: even {most} leaves more than {written} {key}")
        chosen = _nearest(removals, goal, count_after)
        # A channel of a residual sum may lead past the target: before the last round that would leave none to reach.
        while self.rounds > 1 and chosen and count_after(chosen) <= target:
            chosen = chosen[:-1]
        return chosen


class Removal(NamedTuple):
    """A unit of a group that may go. They go in the order of `key`; `rank` is its place in its group, from 0."""

    key: float
    group: int
    rank: int
    unit: int


def _nearest(removals: list[Removal], goal: int, count_after: Callable[[list[Removal]], int]) -> list[Removal]:
    """Return the fewest removals, in their order, that leave at most `goal`, less those that need not go then."""
    low, high = 0, len(removals)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count_after(removals[:middle]) <= goal else (middle, high)
    chosen = removals[:high]
    found = count_after(chosen)
    # One channel of a residual sum can be several percent of a small network: if that was the last to go, the last
    # ones of other groups come back.
    last_of_each = {one.group: one for one in chosen}.values()
    for one in sorted(last_of_each, reverse=True)[1:]:
        if found >= CLOSE * goal:
            break
        fewer = [other for other in chosen if other != one]
        count = count_after(fewer)
        if count <= goal:
            chosen, found = fewer, count
    return chosen


def _history(groups: Sequence[FilterGroup], removals: Sequence[Removal]) -> list[list[object]]:
    units: dict[int, list[int]] = {}
    for one in removals:
        units.setdefault(one.group, []).append(one.unit)
    return [groups[place].removal(units[place]) for place in sorted(units)]


def _rows(layer: nn.Module, values: Tensor) -> Tensor:
    """Return the weights of a layer, or their gradients, as float64 (filters, weights of one) on the CPU."""
    first = values.transpose(0, 1) if getattr(layer, "transposed", False) else values
    return first.detach().flatten(1).cpu().double()


def _output_shape(module: nn.Module, example: Tensor) -> tuple[int, ...]:
    import torch

    with torch.no_grad():
        return tuple(module(example).shape)
