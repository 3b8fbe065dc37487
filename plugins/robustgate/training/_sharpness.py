"""Training that looks for flat minima: the gradient is taken where the loss is highest nearby."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.training._descent import Descent, Run, fixed_statistics

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SharpnessAware(Descent):
    """A descent whose gradients are those of perturbed weights: two passes a step, and twice the time.

    The second pass does not count in the running statistics of batch normalisation, which are of the weights that
    stay.
    """

    def gradients(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        """Leave the gradients at the perturbed weights, the weights being as before, and return the loss at these."""
        import torch

        loss = super().gradients(run, images, labels)
        moving = [(name, one) for name, one in run.module.named_parameters() if one.grad is not None]
        before = [parameter.detach().clone() for _, parameter in moving]
        with torch.no_grad():
            for (_, parameter), change in zip(moving, self.perturbation(run, moving), strict=True):
                parameter.add_(change)
        run.optimizer.zero_grad(set_to_none=True)
        with fixed_statistics(run.module):
            super().gradients(run, images, labels)
        with torch.no_grad():
            # Put back, not subtracted: a sum and a difference do not undo each other to the last bit.
            for (_, parameter), weight in zip(moving, before, strict=True):
                parameter.copy_(weight)
        return loss

    def perturbation(self, run: Run, moving: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
        """Return what to add to each of the named parameters, whose gradients are in `.grad`."""
        raise NotImplementedError


def globally(directions: Sequence[Tensor]) -> Tensor:
    """Return the l2 norm of all values together; one in place of zero, where there is no direction to go."""
    import torch

    norm: Tensor = torch.stack([one.norm() for one in directions]).norm()
    return norm.where(norm > 0, torch.ones_like(norm))
