"""The ball that a perturbation must stay in. Only tensor methods: nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.components import Draws, Norm

if TYPE_CHECKING:
    from torch import Tensor

# What float32 arithmetic may add to a perturbation that lies on the edge of its budget.
TOLERANCE = 1e-6


def check_eps(eps: float, norm: Norm | None) -> None:
    """Raise ValueError for a budget that no attack can have; an l2 norm may well be above 1."""
    if not eps > 0:
        raise ValueError(f"eps must be above 0, in [0, 1] units, got {eps:g}")
    if norm in ("linf", "l0") and eps > 1:
        divisor = "255" if norm == "linf" else "the number of values"
        raise ValueError(f"eps is in [0, 1] units, got {eps:g}: divide by {divisor}")


@dataclass(frozen=True)
class Budget:
    """All images in [0, 1] whose distance from a given one is at most `eps` in `norm`.

    l0 counts the values (of H x W x 3) that differ, as a share of all.
    """

    norm: Norm
    eps: float

    def project(self, points: Tensor, centres: Tensor) -> Tensor:
        """Return the nearest points (N, C, H, W) of the balls around `centres`, clipped to [0, 1].

        In l0: the largest changes are kept, as many as there may be.
        """
        offset = points - centres
        if self.norm == "linf":
            offset = offset.clamp(-self.eps, self.eps)
        elif self.norm == "l2":
            offset = offset * (self.eps / self.size(offset).clamp_min(1e-20)).clamp_max(1)[:, None, None, None]
        else:
            allowed = int(self.eps * offset.shape[1:].numel() + TOLERANCE)
            order = offset.abs().flatten(1).argsort(dim=1, descending=True, stable=True)[:, :allowed]
            kept = offset.flatten(1).gather(1, order)
            offset = offset.flatten(1).mul(0).scatter(1, order, kept).view_as(offset)
        return (centres + offset).clamp(0, 1)

    def size(self, offset: Tensor) -> Tensor:
        """Return the norm (N,) of each perturbation."""
        flat = offset.flatten(1)
        if self.norm == "linf":
            return flat.abs().amax(dim=1)
        return flat.norm(dim=1) if self.norm == "l2" else (flat != 0).float().mean(dim=1)

    def contains(self, sizes: Tensor) -> Tensor:
        """Say which norms (N,) are within the budget, but for what float32 arithmetic may add."""
        return sizes <= self.eps + TOLERANCE

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the steepest ascent of unit norm (N, C, H, W), linf or l2; zeros where the gradient is zero."""
        if self.norm == "linf":
            return gradient.sign()
        # Scaled first: the squares of a saturated network's tiny gradients are zero in float32.
        gradient = gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-38)
        return gradient / self.size(gradient).clamp_min(1e-20)[:, None, None, None]

    def slope(self, gradient: Tensor) -> Tensor:
        """Return how steep (N,) the steepest ascent of unit norm is: the gradient's dual norm, l1 for linf, l2 for l2.

        Without the squares of tiny numbers, which are zero in float32.
        """
        return (gradient * self.direction(gradient)).flatten(1).sum(dim=1)

    def gain(self, gradient: Tensor, points: Tensor, centres: Tensor) -> Tensor:
        """Return the most (N,) that linear functions with these gradients rise from `points` to anywhere in the balls.

        Exact in linf; in l2 it leaves [0, 1] out of account, and is an upper bound.
        """
        if self.norm == "linf":
            room = self.project(centres + self.eps * gradient.sign(), centres) - points
            return (gradient * room).flatten(1).sum(dim=1).clamp_min(0)
        return ((gradient * (centres - points)).flatten(1).sum(dim=1) + self.eps * self.slope(gradient)).clamp_min(0)

    def random_point(self, centres: Tensor, draws: Draws) -> Tensor:
        """Return a point drawn uniformly from each ball, linf or l2, clipped to [0, 1]."""
        shape = centres.shape[1:]
        if self.norm == "linf":
            return (centres + self.eps * (2 * draws.uniform(*shape) - 1)).clamp(0, 1)
        # Uniform in an l2 ball: a uniform direction, and a radius whose dimension-th power is uniform.
        radius = draws.uniform(1, 1, 1) ** (1 / centres[0].numel())
        return (centres + self.eps * radius * self.direction(draws.normal(*shape))).clamp(0, 1)
