"""The bench of one step: what the engine gives to whatever compresses or trains a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustgate.core.components import Network, Objective, Recipe, Samples, Split
from robustgate.core.errors import CompressionError
from robustgate.core.records import Variant
from robustgate.engine import networks
from robustgate.engine.constraints import held
from robustgate.engine.course import Course, Surroundings
from robustgate.engine.data import as_tensor

if TYPE_CHECKING:
    from robustgate.engine.artifacts import Foundry

BATCH = 250


class Bench:
    """The `Workshop` of one step; `kept` is where it keeps the epochs of its trainings."""

    def __init__(self, foundry: Foundry, variant: Variant, seed: int, folder: Path, kept: Path) -> None:
        self.foundry = foundry
        self.variant = variant
        self.seed = seed
        self.folder = folder
        self.kept = kept
        self._trainings = 0

    @property
    def example(self) -> Tensor:
        """A batch of two images of the source domain."""
        return self.foundry.example(self.variant.source)

    @property
    def model(self) -> str:
        """The name of the model that is compressed."""
        return self.variant.model

    @property
    def source(self) -> str:
        """The name of its source domain."""
        return self.variant.source

    def samples(self, split: Split) -> Samples:
        """Return a split of the source domain."""
        return self.foundry.library.samples(self.source, split)

    def configured(self, model: str) -> Network:
        """Return another model of the configuration, uncompressed, with its weights for the same source domain."""
        configured = self.foundry.configuration.models[model]
        network = networks.load_reference(configured, model, self.source, self.example.cpu())
        return replace(network, module=network.module.to(self.foundry.device))

    def accuracy(self, network: Network, split: Split) -> float:
        """Return the share of a split that `network` classifies right."""
        if split == "test":
            raise CompressionError("the test split judges: no step may choose by it")
        samples, right = self.samples(split), 0
        with torch.no_grad():
            for start in range(0, len(samples), BATCH):
                images, labels = as_tensor(samples, slice(start, start + BATCH), self.foundry.device)
                right += int((network.module(images).argmax(dim=1) == labels).sum())
        return right / len(samples)

    def build(self, build: str, args: Mapping[str, Any]) -> Network:
        """Build an untrained network by a factory, with the model's normalisation."""
        own = networks.architecture_of(self.foundry.configuration.models[self.variant.model])
        architecture = replace(own, build=build, args=dict(args))
        module = networks.build(architecture, self.example.cpu()).to(self.foundry.device)
        return Network(module=module, architecture=architecture)

    def train(self, network: Network, recipe: Recipe, objective: Objective | None = None) -> Network:
        """Return `network` trained on the source domain's train split, under its constraints.

        A training that was broken off goes on: its epochs are kept in a folder of its own, the k-th of this step.
        """
        surroundings = Surroundings(
            samples=self.samples,
            unlabelled=lambda domain: self.foundry.library.samples(domain, "train"),
            teacher=lambda model: self.configured(model or self.model),
            folder=self.kept / str(self._trainings),
            pupil=self.foundry.pupil,
        )
        self._trainings += 1
        doing = f"{self.variant.name}: {type(recipe).__name__.lower()}"
        course = Course(surroundings, example=self.example, seed=self.seed, doing=doing, objective=objective)
        with held(network):
            trained = recipe.train(network, course)
        bad = [key for key, value in trained.module.state_dict().items() if not value.isfinite().all()]
        if bad:
            raise CompressionError(f"training diverged: {bad[0]!r} holds NaN or infinity; lower lr")
        return trained


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed torch's global streams inside the block, and leave them outside as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
