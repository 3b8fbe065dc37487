"""Plain supervised training: SGD with momentum, a one-cycle learning rate, light augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robustgate.core.components import Objective, Samples

__all__ = ["Supervised"]


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """Minimise the objective by SGD with Nesterov momentum.

    `lr` is the peak of one cycle over all steps (Smith and Topin 2018, arXiv 1708.07120): three tenths of them up,
    the others down. `shift` moves each training image by up to so many pixels (edge-replicated), `flip` mirrors half
    of them. An objective of a compression's own takes the place of cross-entropy and of its `label_smoothing`. The
    papers that this project follows do not give their fine-tuning settings; these are sound defaults for small
    networks.
    """

    epochs: int
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    label_smoothing: float = 0.0
    shift: int = 2
    flip: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr:g}")
        if not 0 < self.momentum < 1:
            raise ValueError(f"momentum must be above 0 and below 1, got {self.momentum:g}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be below 0, got {self.weight_decay:g}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2 (batch normalisation), got {self.batch_size}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be a share in [0, 1), got {self.label_smoothing:g}")
        if self.shift < 0:
            raise ValueError(f"shift must not be below 0, got {self.shift}")

    def train(
        self,
        module: nn.Module,
        samples: Samples,
        *,
        seed: int,
        device: torch.device,
        objective: Objective | None = None,
    ) -> None:
        """Train `module` in place on `samples`, in an order and with shifts that `seed` decides."""
        import torch
        from torch.nn import functional

        def cross_entropy(_: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
            return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

        with torch.random.fork_rng():
            torch.manual_seed(seed)  # dropout draws from the global stream
            module.train()
            self._descend(module, samples, torch.Generator().manual_seed(seed), device, objective or cross_entropy)
            module.eval()

    def _descend(
        self, module: nn.Module, samples: Samples, generator: torch.Generator, device: torch.device, loss_of: Objective
    ) -> None:
        import torch

        batches = max(1, len(samples) // self.batch_size)
        optimizer = torch.optim.SGD(
            module.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(share_of_peak, steps=self.epochs * batches))
        for _ in range(self.epochs):
            order = torch.randperm(len(samples), generator=generator)
            for batch in range(batches):
                rows = order[batch * self.batch_size : (batch + 1) * self.batch_size].numpy()
                images = torch.from_numpy(samples.images[rows]).permute(0, 3, 1, 2).float().div(255)
                images = self._augment(images, generator).to(device)
                labels = torch.from_numpy(samples.labels[rows]).to(device)
                optimizer.zero_grad(set_to_none=True)
                loss_of(images, module(images), labels).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        optimizer.zero_grad(set_to_none=True)

    def _augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        import torch
        from torch.nn import functional

        count, _, height, width = images.shape
        if self.flip:
            mirrored = torch.rand(count, generator=generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if self.shift:
            padded = functional.pad(images, (self.shift,) * 4, mode="replicate")
            offsets = torch.randint(0, 2 * self.shift + 1, (count, 2), generator=generator)
            rows = offsets[:, :1] + torch.arange(height)
            columns = offsets[:, 1:] + torch.arange(width)
            index = torch.arange(count)[:, None, None]
            # Advanced indexing puts the channels last: (N, H, W, 3).
            images = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return images.contiguous()


def share_of_peak(step: int, steps: int) -> float:
    """Return the learning rate of a step as a share of its peak: half a cosine up, half a cosine down, once."""
    up = max(1, round(0.3 * steps))
    place = (step + 1) / up if step < up else 1 + (step + 1 - up) / (steps + 1 - up)
    return (1 - math.cos(math.pi * place)) / 2
