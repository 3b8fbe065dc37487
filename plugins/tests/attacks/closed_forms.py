"""Networks whose nearest adversarial input has a closed form, and samples on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustgate.core.components import Attack, Samples
from robustgate.engine.adversarial import Terms, measure_adversarial
from robustgate.engine.measure import Outcome
from robustgate.engine.subjects import TorchSubject

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Two logits, 0 and w·x + b; the plane goes through the grey image.

    Summed in double precision: the decision is then exact, and the same in a batch of any size.
    """

    def __init__(self, values: int, seed: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(values, generator=torch.Generator().manual_seed(seed)))
        self.bias = nn.Parameter(-0.5 * self.weight.detach().sum())

    def score(self, x: Tensor) -> Tensor:
        return x.flatten(1).double() @ self.weight.double() + self.bias.double()

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x).float()
        return torch.stack([torch.zeros_like(score), score], dim=1)

    def distance(self, x: Tensor, norm: str) -> Tensor:
        weight = self.weight.detach().double()
        return self.score(x).detach().abs() / (weight.norm() if norm == "l2" else weight.abs().sum())


class Sphere(nn.Module):
    """Two logits, 0 and |x - centre|² - radius², scaled: class 0 inside, class 1 outside. For images inside."""

    def __init__(self, values: int, radius: float) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.full((values,), 0.5))
        self.radius = radius

    def forward(self, x: Tensor) -> Tensor:
        offset = x.flatten(1).double() - self.centre
        score = (20 * (offset.square().sum(dim=1) - self.radius**2)).float()
        return torch.stack([torch.zeros_like(score), score], dim=1)

    def distance(self, x: Tensor, norm: str) -> Tensor:
        offset = (x.flatten(1) - self.centre.detach()).abs().double()
        if norm == "l2":
            return self.radius - offset.norm(dim=1)
        # The largest |v| + t in every coordinate: n t² + 2 t Σ|v| + |v|² = radius².
        count, total = offset.shape[1], offset.sum(dim=1)
        rest = self.radius**2 - offset.square().sum(dim=1)
        return ((total**2 + count * rest).sqrt() - total) / count


@dataclass(frozen=True)
class Ground:
    """A network with samples it gets right, far enough from 0 and 1 that no nearest point is clipped."""

    subject: TorchSubject
    samples: Samples
    images: Tensor

    def nearest(self, norm: str) -> Tensor:
        """Return each sample's distance (N,) to the decision boundary, in double precision."""
        return self.subject.module.distance(self.images, norm)  # type: ignore[operator]

    def outcome(self, attack: Attack, *, size: int | None = None, seed: int = 7) -> Outcome:
        terms = Terms(size=size)
        return measure_adversarial(self.subject, self.samples, "case", lambda *_: None, attack, seed, terms=terms)


def ground(kind: str, side: int | tuple[int, int] = 4, count: int = 24, seed: int = 2) -> Ground:
    """Return samples on a "linear" or "sphere" network of images of `side` (height, width)."""
    height, width = side if isinstance(side, tuple) else (side, side)
    values = 3 * height * width
    network = Linear(values) if kind == "linear" else Sphere(values, radius=0.12 * values**0.5)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(90, 166, (count, height, width, 3), generator=generator, dtype=torch.uint8)
    images = pixels.permute(0, 3, 1, 2).contiguous().float() / 255
    labels = network(images).argmax(dim=1)
    samples = Samples(
        images=pixels.numpy(), labels=labels.numpy().astype(np.int64), classes=("no", "yes"), names=("",) * count
    )
    return Ground(TorchSubject(network, CPU), samples, images)
