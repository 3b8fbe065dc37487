"""Networks from their description: factory, normalisation, edits, weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from robustgate.config import Model
from robustgate.core.catalog import import_factory, shelf
from robustgate.core.components import Architecture, Network
from robustgate.core.errors import ModelError, nearest


class Normalized(nn.Module):
    """A network behind its normalisation: maps images in [0, 1] to logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) in [0, 1] to logits (N, classes)."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def architecture_of(model: Model) -> Architecture:
    """Return the architecture of a configured model, uncompressed."""
    if model.normalize == "inside":
        return Architecture(build=model.build, args=model.args, mean=(0.0,) * 3, std=(1.0,) * 3)
    return Architecture(build=model.build, args=model.args, mean=model.normalize.mean, std=model.normalize.std)


def build(architecture: Architecture, example: Tensor) -> nn.Module:
    """Build the network without its weights, in eval mode, and make its edits again.

    `example` is a batch of images of the size that the network is for. Initial weights come from the current torch
    random stream. Raises ModelError where the factory fails.
    """
    factory = import_factory(architecture.build)
    try:
        network = factory(**architecture.args)
    except Exception as error:
        raise ModelError(f"factory {architecture.build!r} with {dict(architecture.args)} failed: {error}") from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"factory {architecture.build!r} must return a torch module, got {type(network).__name__}")
    module: nn.Module = Normalized(network, architecture.mean, architecture.std).eval()
    for edit in architecture.edits:
        module = shelf("compression").component(edit.method).redo(module, edit, example)  # type: ignore[attr-defined]
    return module


def load_reference(model: Model, name: str, source: str, example: Tensor) -> Network:
    """Build a configured model and load its weights for `source`. Raises ModelError naming file and key."""
    architecture = architecture_of(model)
    module = build(architecture, example)
    file = model.weights[source]
    load_weights(module.network, file, f"models.{name}.weights.{source}")  # type: ignore[arg-type]
    return Network(module=module.eval(), architecture=architecture)


def load_weights(module: nn.Module, file: Path, place: str) -> None:
    """Load a safetensors file, or a torch file of plain tensors, into `module`; every key and shape must fit."""
    state, expected = _read_state(file, place), module.state_dict()
    wrapped = "module."  # torch's DataParallel puts it before every key
    if all(key.startswith(wrapped) for key in state) and not any(key.startswith(wrapped) for key in expected):
        state = {key.removeprefix(wrapped): value for key, value in state.items()}
    # Counters of batch normalisation: many published files leave them out, or have each in a list, as torch 0.4 did;
    # torch reads both.
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    problems = [f"missing {key!r}" for key in expected.keys() - state.keys() - counters]
    problems += [f"unknown {key!r}{nearest(key, expected)}" for key in state.keys() - expected.keys()]
    problems += [
        f"{key!r} expected {tuple(expected[key].shape)}, got {tuple(state[key].shape)}"
        for key in expected.keys() & state.keys()
        if expected[key].shape != state[key].shape and not (key in counters and state[key].shape == (1,))
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ModelError(f"{place}: {file} does not fit the network: {shown}{more}")
    bad = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise ModelError(f"{place}: {file}: {bad[0]!r} holds NaN or infinity")
    module.load_state_dict(state)


def _read_state(file: Path, place: str) -> Mapping[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{place}: no such file: {file}") from None
    except SafetensorError as error:
        raise ModelError(f"{place}: {file} is not a safetensors file: {error}") from error
    except Exception as error:
        # torch wraps the reason in advice to trust the file, and appends more of it.
        cause = error.__context__ or error
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0].partition(". ")[0]
        raise ModelError(
            f"{place}: {file} cannot be read as plain tensors (weights_only): {reason}; "
            "save the state dict as safetensors"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    ):
        raise ModelError(f"{place}: {file} holds {type(found).__name__}, expected a state dict of tensors")
    return found
