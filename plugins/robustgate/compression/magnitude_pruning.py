"""Magnitude pruning (Han et al. 2015, arXiv 1506.02626): single weights become zero, the smallest first."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.compression._layers import constrained, weights_of
from robustgate.core.components import ConstraintKind, Network

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.core.components import Workshop

__all__ = ["MagnitudePruning"]


@dataclass(frozen=True, kw_only=True)
class MagnitudePruning:
    """Set the weights of smallest magnitude to zero until `sparsity`, a share of them, is zero.

    Counted are the weights of convolutions and linear layers, in each of them or over all (`scope`); biases and
    normalisation are left alone. Of n weights at least ceil(sparsity n) are zero afterwards, and no more than that
    unless more were zero before; among equal magnitudes the first go.

    With `rounds` R the target is reached in R steps, each followed by the step's fine-tuning: a round with r rounds
    to go turns the share of kept weights k into k (target / k)^(1/r), so that each removes the same share of what is
    left. Han et al. prune in rounds and leave their shares open; Zhu and Gupta (2017, arXiv 1710.01878) let the
    sparsity itself follow a cubic. One round at 0.5 is the ConstantSparsity(0.5) of arXiv 2512.24971.
    """

    product: ClassVar[Literal["network", "file"]] = "network"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset({"zeros"})
    # What is zero already has the smallest magnitude there is, and stays. Equal weights may be torn apart.
    keeps: ClassVar[frozenset[ConstraintKind]] = frozenset({"zeros"})

    sparsity: float
    scope: Literal["layer", "global"] = "layer"
    rounds: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity must be above 0 and below 1, got {self.sparsity:g}")
        if self.scope not in ("layer", "global"):
            raise ValueError(f"scope must be 'layer' or 'global', got {self.scope!r}")
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")

    def apply(self, network: Network, workshop: Workshop) -> Network:  # noqa: ARG002
        """Return a copy with more zeros, after one round. Raises CompressionError where there is nothing to prune."""
        import torch

        module = copy.deepcopy(network.module)
        weights = weights_of(module, "magnitude_pruning")
        groups = [list(weights.values())] if self.scope == "global" else [[weight] for weight in weights.values()]
        with torch.no_grad():
            for group in groups:
                magnitudes = torch.cat([weight.abs().flatten() for weight in group])
                zeros = self._zeros(len(magnitudes), int((magnitudes == 0).sum()))
                parts = torch.split(_smallest(magnitudes, zeros), [weight.numel() for weight in group])
                for weight, part in zip(group, parts, strict=True):
                    weight[part.view_as(weight)] = 0.0
        constraints = constrained(network, "zeros", tuple(weights))
        return Network(module=module, architecture=network.architecture, constraints=constraints)

    def next_round(self) -> MagnitudePruning | None:
        """Return the step with one round less to go, or None after the last."""
        return replace(self, rounds=self.rounds - 1) if self.rounds > 1 else None

    def _zeros(self, total: int, present: int) -> int:
        """Return how many of `total` weights this round leaves zero, where `present` are zero already."""
        # In exact decimals: as floats, 0.07 of 100 weights would be a little more than 7, hence 8.
        target = math.ceil(Fraction(str(self.sparsity)) * total)
        if present >= target:
            return present
        kept = total - present
        share: float = ((total - target) / kept) ** (1 / self.rounds)
        return target if self.rounds == 1 else min(target, math.ceil(total - kept * share))


def _smallest(magnitudes: Tensor, count: int) -> Tensor:
    """Return a mask (N,) of exactly `count` smallest of N numbers, the first ones where there are equals."""
    threshold = magnitudes.kthvalue(max(count, 1)).values
    mask = magnitudes < threshold
    equals = (magnitudes == threshold).nonzero().flatten()
    mask[equals[: count - int(mask.sum())]] = True
    return mask
