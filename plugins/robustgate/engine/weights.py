"""Weights of a configured model, trained by a recipe: as an artifact is built, whose only step is that recipe."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustgate.config import Configuration, Step
from robustgate.core.components import Recipe
from robustgate.core.errors import ConfigurationError, listing, nearest
from robustgate.core.records import Variant
from robustgate.core.seeds import derive
from robustgate.engine import networks
from robustgate.engine.artifacts import WEIGHTS, Foundry
from robustgate.engine.bench import isolated
from robustgate.engine.course import Pupil, unheard
from robustgate.engine.data import Library, as_tensor
from robustgate.engine.gate import resolve_device, steady
from robustgate.engine.store import Store

TRAINED = "trained"
# Where a network stands behind its normalisation; weights that a configuration names are those of the bare one.
BARE = "network."


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The weights of the bare network, and whether an earlier call left them whole."""

    state: Mapping[str, Tensor]
    kept: bool


def check_trainable(configuration: Configuration, model: str, source: str, recipe: Recipe, *, scratch: bool) -> None:
    """Raise ConfigurationError where a recipe cannot give weights of a model for a source domain.

    Only fresh weights can be trained on a domain that the model has none for.
    """
    problems = unknown(configuration, recipe)
    known: Mapping[str, object] = configuration.domains if scratch else configuration.models[model].weights
    if source not in known:
        noun = "domain" if scratch else "source domain"
        problems.append(f"models.{model}: no {noun} {source!r}{nearest(source, known)}; known: {listing(known)}")
    for name in Step(method=None, component=None, finetune=recipe).models:
        if name in configuration.models and source not in configuration.models[name].weights:
            problems.append(f"recipe: the model {name!r} has no weights for {source!r}")
    name = type(recipe).__name__.lower()
    if getattr(recipe, "control", recipe) != recipe:
        problems.append(
            f"recipe: {name} makes the network smaller, and weights alone do not tell its new shape: make it a step of "
            "a compression, steps = [{ finetune = { recipe = ... } }]"
        )
    if scratch and getattr(recipe, "teacher", name) is None:
        problems.append("recipe: with fresh weights there is no network to learn from: name another, teacher = ...")
    if problems:
        raise ConfigurationError(problems)


def unknown(configuration: Configuration, recipe: Recipe) -> list[str]:
    """Return a complaint of each model and domain that a recipe asks for and the configuration does not have."""
    step = Step(method=None, component=None, finetune=recipe)
    asked: list[tuple[str, tuple[str, ...], Mapping[str, object]]] = [
        ("model", step.models, configuration.models),
        ("domain", step.domains, configuration.domains),
    ]
    return [
        f"recipe: no {noun} {name!r}{nearest(name, known)}; known: {listing(known)}"
        for noun, names, known in asked
        for name in names
        if name not in known
    ]


def train_weights(
    configuration: Configuration,
    model: str,
    source: str,
    recipe: Recipe,
    *,
    scratch: bool = False,
    pupil: Pupil = unheard,
) -> Trained:
    """Train a model from its weights for `source`, or from fresh ones that the run's seed decides.

    Epochs are kept in the cache: what was broken off goes on. Raises RobustgateError.
    """
    check_trainable(configuration, model, source, recipe, scratch=scratch)
    gate = configuration.gate
    store = Store(gate.cache)
    library = Library(configuration.domains, store)
    chains = {TRAINED: (Step(method=None, component=None, finetune=recipe),)}
    variant = Variant(model=model, source=source, compression=TRAINED)
    with steady(gate.threads), tempfile.TemporaryDirectory() as folder:
        if scratch:
            own = configuration.models[model]
            example = as_tensor(library.samples(source, "train"), slice(0, 2), torch.device("cpu"))[0]
            with isolated(derive(gate.seed, "fresh", model, source)):
                module = networks.build(networks.architecture_of(own), example)
            file = Path(folder) / WEIGHTS
            save_file(_bare(module.state_dict()), file)
            fresh = replace(own, weights={**own.weights, source: file})
            configuration = replace(configuration, models={**configuration.models, model: fresh})
        foundry = Foundry(configuration, chains, store, library, resolve_device(gate.device), pupil)
        artifact = foundry.artifact(variant)
    return Trained(state=_bare(load_file(artifact.file)), kept=artifact.kept)


def _bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(BARE): value.contiguous() for key, value in state.items()}
