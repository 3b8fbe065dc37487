"""The small network of the published, provably robust MNIST weights (Wong and Kolter 2018, arXiv 1711.00851)."""

from __future__ import annotations

from torch import Tensor, nn


class Grey(nn.Sequential):
    """Layers for grey images, given as RGB."""

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, 28, 28) in [0, 1] of three equal channels to logits (N, 10)."""
        logits: Tensor = super().forward(x[:, :1])
        return logits


def mnist_network() -> Grey:
    """Build the network; its parameters' names are the places of its layers."""
    return Grey(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
