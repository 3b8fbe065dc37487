"""Constraints kept: zeros stay zero and equal weights stay equal, whatever trains the network.

While a recipe runs, a constrained parameter is a parametrization (torch.nn.utils.parametrize) of what may still move:
the weights behind a mask, or the values that a cluster's weights share. No recipe needs to know of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from robustgate.core.components import ConstraintKind, Network
from robustgate.core.errors import CompressionError


class ZerosKept(nn.Module):
    """The weights behind a mask of what was zero."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", weight != 0)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights, zero where the mask says so."""
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what is trained: all weights."""
        return weight


class ClustersKept(nn.Module):
    """Weights that share values: the values are trained, who has which stays.

    A value moves by the mean of its members' gradients: that is the projection of the step of all weights on those
    that keep the clusters, so a learning rate means the same as without clusters. With `keep_zero` a value of zero
    does not move.
    """

    place: Tensor
    free: Tensor

    def __init__(self, weight: Tensor, *, keep_zero: bool) -> None:
        super().__init__()
        values = different(weight)
        # 32 bits: a classifier of a hundred million weights has as many places.
        self.register_buffer("place", torch.bucketize(weight.detach(), values, out_int32=True).flatten())
        self.register_buffer("free", (values != 0) if keep_zero else torch.ones_like(values, dtype=torch.bool))
        self.shape = weight.shape

    def forward(self, values: Tensor) -> Tensor:
        """Return the weights."""
        weight: Tensor = SharedValues.apply(values, self.place, self.free)
        return weight.view(self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what is trained: the values, in order."""
        return different(weight)


class SharedValues(torch.autograd.Function):
    """values[place], whose gradient to a value is the mean over its members, and zero where it is not free."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, place: Tensor, free: Tensor) -> Tensor:
        """Look the weights (flat) up."""
        ctx.save_for_backward(place, free)
        return values.index_select(0, place)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Average the members' gradients."""
        place, free = ctx.saved_tensors
        members = torch.bincount(place, minlength=len(free))
        sums = torch.bincount(place, weights=gradients[0], minlength=len(free))
        return (sums / members).to(gradients[0].dtype) * free, None, None


@contextmanager
def held(network: Network) -> Iterator[None]:
    """Keep a network's constraints inside the block, whatever trains it there."""
    zeros, clusters = network.constrained("zeros"), network.constrained("clusters")
    places = []
    for name in dict.fromkeys([*zeros, *clusters]):
        owner, weight = _find(network.module, name)
        keeper = ClustersKept(weight, keep_zero=name in zeros) if name in clusters else ZerosKept(weight)
        parametrize.register_parametrization(owner, name.rpartition(".")[2], keeper)
        places.append((owner, name.rpartition(".")[2]))
    try:
        yield
    finally:
        for owner, attribute in places:
            parametrize.remove_parametrizations(owner, attribute, leave_parametrized=True)


def check_kept(before: Network, after: Network, method: str) -> None:
    """Raise CompressionError where a step did not keep, or did not pass on, what `before` was bound to."""
    kinds: tuple[ConstraintKind, ...] = ("zeros", "clusters")
    for kind in kinds:
        lost = set(before.constrained(kind)) - set(after.constrained(kind))
        if lost:
            raise CompressionError(f"{method}: it was to keep the {kind} of {sorted(lost)[0]!r}, and passes none on")
    for name in before.constrained("zeros"):
        old, new = _find(before.module, name)[1], _find(after.module, name)[1]
        # Where filters were removed, places cannot be compared; what was cut out of zeros is still zeros.
        if old.shape == new.shape and (new[old == 0] != 0).any():
            raise CompressionError(f"{method}: {name!r} was zero in places where it no longer is")
    for name in before.constrained("clusters"):
        most, found = (len(different(_find(one.module, name)[1])) for one in (before, after))
        if found > most:
            raise CompressionError(f"{method}: {name!r} had {most} different values, and now has {found}")


def different(weight: Tensor) -> Tensor:
    """Return the values that occur in a tensor, each once, in order."""
    values: Tensor = weight.detach().unique()  # type: ignore[no-untyped-call]
    return values


def _find(module: nn.Module, name: str) -> tuple[nn.Module, Tensor]:
    path, _, attribute = name.rpartition(".")
    try:
        owner = module.get_submodule(path)
        return owner, getattr(owner, attribute).detach()
    except AttributeError as error:
        raise CompressionError(f"a constraint names the parameter {name!r}, which the network does not have") from error
