"""What the recipes' tests share: a problem that is learnt in seconds, a network with everything that has a state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustgate.core.components import Architecture, Network, Objective, Samples
from robustgate.engine.course import Course, Pupil, Surroundings, unheard
from robustgate.engine.data import as_tensor

SIZE = 6


def samples_of(images: np.ndarray, labels: np.ndarray) -> Samples:
    names = tuple(map(str, range(len(labels))))
    return Samples(images=images, labels=labels.astype(np.int64), classes=("left", "right"), names=names)


def sides(count: int = 96) -> Samples:
    """Noise; the half that the label names is brighter."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (count, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(count) % 2
    half = SIZE // 2
    images[labels == 0, :, :half] += 120
    images[labels == 1, :, half:] += 120
    return samples_of(images, labels)


def network(seed: int = 0, dropout: float = 0.5) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * SIZE * SIZE, 2),
    )


def doubled(module: nn.Module) -> nn.Module:
    """Compute in double precision: no rounding hides a difference of formulas."""
    module.double().register_forward_pre_hook(lambda _module, args: (args[0].double(),))
    return module


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def network_of(module: nn.Module) -> Network:
    return Network(module=module, architecture=Architecture(build="", args={}, mean=(0.0,) * 3, std=(1.0,) * 3))


def course_of(
    samples: Samples,
    *,
    seed: int = 0,
    objective: Objective | None = None,
    teachers: Mapping[str | None, nn.Module] | None = None,
    folder: Path | None = None,
    pupil: Pupil = unheard,
) -> Course:
    """A course as a recipe gets it, for a look at its single steps."""
    surroundings = Surroundings(
        samples=lambda _: samples,
        unlabelled=lambda _: samples,
        teacher=lambda model: network_of((teachers or {})[model]),
        folder=folder,
        pupil=pupil,
    )
    example = as_tensor(samples, slice(0, 2), torch.device("cpu"))[0]
    return Course(surroundings, example=example, seed=seed, doing="test", objective=objective)
