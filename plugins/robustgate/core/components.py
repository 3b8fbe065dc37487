"""The nouns and contracts that the shelves and the engine share.

A component is a frozen, keyword-only dataclass: its fields are its parameters, its configuration keys and its entry
in the report. It imports what is heavy inside its methods, so that a plan can be made without torch.

Images are float32 tensors (N, 3, H, W), RGB, in [0, 1]. Normalisation is part of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from robustgate.core.records import VariantRecord

Split = Literal["train", "calibration", "test", "whole"]
Norm = Literal["linf", "l2"]

Objective = Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]
"""A training loss: (images, logits, labels) -> scalar."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Labelled images of one split of one domain, in a fixed order.

    `images` is uint8 (N, H, W, 3), RGB, and may be memory-mapped; `labels` is int64 (N,), each an index into
    `classes`; `names` says where each sample comes from.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


class Domain(Protocol):
    """A component of domains/: a labelled data set."""

    def load(self, split: Split) -> Samples:
        """Return the samples of a split; ``whole`` is all of them. Raises DomainError."""


class Draws(Protocol):
    """Random numbers, one independent stream for each of N samples.

    A sample's numbers depend on its own stream only: not on the batch that it is in.
    """

    def normal(self, *shape: int) -> Tensor:
        """Return (N, *shape) standard normal float32 numbers."""

    def uniform(self, *shape: int) -> Tensor:
        """Return (N, *shape) float32 numbers uniform in [0, 1)."""

    def take(self, rows: Tensor) -> Draws:
        """Return the streams of the samples `rows` (int64 indices), continuing where they are."""


class Corruption(Protocol):
    """A component of corruptions/: a change of the images at severities 1 to 5."""

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return the corrupted images, same shape; the engine clips them to [0, 1] and truncates to 8 bits."""


class AttackTarget(Protocol):
    """The variant under attack, as an attack may use it. Every call is counted."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    def logits(self, images: Tensor) -> Tensor:
        """Return the artifact's logits (N, classes); no gradient flows."""

    def gradient(self, images: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return the artifact's logits (N, classes) and the gradient of ``loss(logits).sum()`` to `images`.

        `loss` maps logits (N, classes) to one value a sample (N,). Where the artifact has no gradient, its
        differentiable twin gives it, and the logits are still the artifact's own.
        """


class Attack(Protocol):
    """A component of attacks/."""

    needs_gradient: ClassVar[bool]

    @property
    def norm(self) -> Norm:
        """The norm that bounds the perturbation."""

    @property
    def eps(self) -> float:
        """The budget, in [0, 1] units."""

    def run(self, target: AttackTarget, images: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """Return for each image the best perturbed one found within the budget, or the image itself.

        The engine projects to the budget, clips to [0, 1] and itself counts success on the artifact.
        """


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change of a network's structure that can be made again: which method made it, and its JSON payload."""

    method: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How to build a network without its weights: factory, its arguments, normalisation, then edits in order."""

    build: str
    args: Mapping[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    edits: tuple[Edit, ...] = ()

    def edited(self, edit: Edit) -> Architecture:
        """Return this architecture with one more edit."""
        return replace(self, edits=(*self.edits, edit))


@dataclass(frozen=True, kw_only=True)
class Network:
    """A trained torch network and how to build it again. `module` maps images in [0, 1] to logits."""

    module: nn.Module
    architecture: Architecture


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """An ONNX file that maps float32 images (N, 3, H, W) in [0, 1] to logits (N, classes)."""

    path: Path


class Workshop(Protocol):
    """What the engine gives to a compression step."""

    @property
    def example(self) -> Tensor:
        """A batch of two images of the source domain, on the network's device."""

    @property
    def seed(self) -> int:
        """The seed of this step."""

    @property
    def folder(self) -> Path:
        """An empty folder, for files that the step makes on its way."""

    def samples(self, split: Split) -> Samples:
        """Return a split of the source domain."""

    def build(self, build: str, args: Mapping[str, Any]) -> Network:
        """Build an untrained network by a factory, with the model's normalisation."""

    def train(self, network: Network, recipe: Recipe, objective: Objective | None = None) -> None:
        """Train `network` in place on the source domain's train split. Default objective: cross-entropy."""


class Compression(Protocol):
    """A component of compression/: one step of a chain."""

    product: ClassVar[Literal["network", "onnx"]]
    """What it gives back: a network, which further steps may change, or a file, which ends the chain."""

    def apply(self, network: Network, workshop: Workshop) -> Network | OnnxFile:
        """Return the compressed network or file; `network` itself is left as it was. Raises CompressionError."""


class Restructuring(Compression, Protocol):
    """A compression that leaves edits in the architecture, and can make them again."""

    @staticmethod
    def redo(module: nn.Module, edit: Edit, example: Tensor) -> nn.Module:
        """Repeat on a freshly built module the structural change that `edit` describes."""


class Recipe(Protocol):
    """A component of training/: how a network is trained."""

    def train(
        self,
        module: nn.Module,
        samples: Samples,
        *,
        seed: int,
        device: torch.device,
        objective: Objective | None = None,
    ) -> None:
        """Train `module` in place; it is in eval mode afterwards. Touches no global random stream."""


class VariantRule(Protocol):
    """A component of rules/: a limit on one figure of a variant."""

    metric: ClassVar[str]
    limit_kind: ClassVar[Literal["min", "max"]]

    @property
    def limit(self) -> float:
        """The limit, in the figure's own unit."""

    def value(self, record: VariantRecord) -> float:
        """Return the variant's figure."""

    def show(self, value: float) -> str:
        """Return the figure as a person reads it: ``2.9 MB``."""
