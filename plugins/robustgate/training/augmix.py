"""AugMix, training on mixed augmentations (Hendrycks et al. 2020, arXiv 1912.02781)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustgate.training._descent import Descent

if TYPE_CHECKING:
    from torch import Tensor

    from robustgate.training._descent import Run

__all__ = ["AugMix"]


@dataclass(frozen=True, kw_only=True)
class AugMix(Descent):
    """Minimise CE(z, y) + `consistency` JS(p; p_1; p_2), p_1 and p_2 being the answers to two mixtures of an image.

    A mixture is torchvision's AugMix: of `mixture_width` chains, each of `chain_depth` operations (without it, 1 to 3),
    whose strength `severity` (1 to 10) limits. They shear, move, rotate, posterize, solarize, equalize, and stretch
    contrast to the full range. Brightness, colour, contrast and sharpness are left out, as by the authors: they come
    near the corruptions of the benchmark, which are to stay unseen.

    The image itself and both mixtures go through the network in one batch, as with the authors: batch normalisation
    sees all three. Only the image itself is held to its label, so that the loss falls to zero where all three answers
    are sure and right. The defaults are the authors' for CIFAR-10.
    """

    severity: int = 3
    mixture_width: int = 3
    chain_depth: int | None = None
    consistency: float = 12.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.severity <= 10:
            raise ValueError(f"severity must be in [1, 10], got {self.severity}")
        if self.mixture_width < 1:
            raise ValueError(f"mixture_width must be at least 1, got {self.mixture_width}")
        if self.chain_depth is not None and self.chain_depth < 1:
            raise ValueError(f"chain_depth must be at least 1, got {self.chain_depth}")
        if self.consistency < 0:
            raise ValueError(f"consistency must not be below 0, got {self.consistency:g}")

    def gradients(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        """Leave the gradients of a batch's cross-entropy and consistency, and return their sum."""
        import torch

        views = run.logits(torch.cat([images, self._mixed(images), self._mixed(images)])).chunk(3)
        loss = run.loss_of(images, views[0], labels) + self.consistency * jensen_shannon(views)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def _mixed(self, images: Tensor) -> Tensor:
        """Return a mixture of each image (N, 3, H, W), which is at 8-bit levels."""
        import torch
        from torchvision.transforms import v2

        mix = v2.AugMix(self.severity, self.mixture_width, self.chain_depth or -1, all_ops=False)
        levels = images.mul(255).round().to("cpu", torch.uint8)
        # One at a time: of a batch, all would be changed by the same operations.
        return torch.stack([mix(image) for image in levels]).to(images).div(255)


def jensen_shannon(views: tuple[Tensor, ...]) -> Tensor:
    """Return the mean Jensen-Shannon divergence, in nats, of answers to the same images: logits (N, classes) a view."""
    import torch
    from torch.nn import functional

    answers = torch.stack([functional.log_softmax(logits, dim=1) for logits in views])
    mixture = answers.logsumexp(dim=0) - math.log(len(views))
    divergences = [functional.kl_div(mixture, one, reduction="batchmean", log_target=True) for one in answers]
    return torch.stack(divergences).mean()
