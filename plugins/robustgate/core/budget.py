"""The ball that a perturbation must stay in. Only tensor methods: nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.core.components import Draws, Norm

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Budget:
    """All images in [0, 1] whose distance from a given one is at most `eps` in `norm`."""

    norm: Norm
    eps: float

    def project(self, points: Tensor, centres: Tensor) -> Tensor:
        """Return the nearest points (N, C, H, W) of the balls around `centres`, clipped to [0, 1]."""
        offset = points - centres
        if self.norm == "linf":
            offset = offset.clamp(-self.eps, self.eps)
        else:
            offset = offset * (self.eps / self.size(offset).clamp_min(1e-20)).clamp_max(1)[:, None, None, None]
        return (centres + offset).clamp(0, 1)

    def size(self, offset: Tensor) -> Tensor:
        """Return the norm (N,) of each perturbation."""
        flat = offset.flatten(1)
        return flat.abs().amax(dim=1) if self.norm == "linf" else flat.norm(dim=1)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the steepest ascent of unit norm (N, C, H, W); zeros where the gradient is zero."""
        if self.norm == "linf":
            return gradient.sign()
        # Scaled first: the squares of a saturated network's tiny gradients are zero in float32.
        gradient = gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-38)
        return gradient / self.size(gradient).clamp_min(1e-20)[:, None, None, None]

    def random_point(self, centres: Tensor, draws: Draws) -> Tensor:
        """Return a point drawn uniformly from each ball, clipped to [0, 1]."""
        shape = centres.shape[1:]
        if self.norm == "linf":
            return (centres + self.eps * (2 * draws.uniform(*shape) - 1)).clamp(0, 1)
        # Uniform in an l2 ball: a uniform direction, and a radius whose dimension-th power is uniform.
        radius = draws.uniform(1, 1, 1) ** (1 / centres[0].numel())
        return (centres + self.eps * radius * self.direction(draws.normal(*shape))).clamp(0, 1)
