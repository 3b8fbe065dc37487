"""Variants: built once, kept by content hash, locked against a second builder."""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustgate.config import Configuration, Step
from robustgate.core.catalog import import_factory
from robustgate.core.components import Architecture, Edit, ModelFile, Network, Objective, Recipe, Samples, Split
from robustgate.core.errors import CompressionError, DomainError, ModelError, RobustgateError
from robustgate.core.files import sha256, write_whole
from robustgate.core.records import Variant, VariantRecord
from robustgate.core.seeds import derive
from robustgate.engine import networks
from robustgate.engine.data import Library, as_tensor
from robustgate.engine.facts import onnx_facts, torch_facts
from robustgate.engine.store import Store, code_version
from robustgate.engine.subjects import OnnxSubject, Subject, TorchSubject

WEIGHTS, DESCRIPTION, ONNX, FACTS = "weights.safetensors", "network.json", "model.onnx", "facts.json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A built variant: the folder that holds its file, and what is known of it."""

    folder: Path
    record: VariantRecord


class Foundry:
    """Builds the artifacts of a plan's compressions, and loads them."""

    def __init__(
        self,
        configuration: Configuration,
        chains: Mapping[str, tuple[Step, ...]],
        store: Store,
        library: Library,
        device: torch.device,
    ) -> None:
        self.configuration = configuration
        self.chains = chains
        self.store = store
        self.library = library
        self.device = device
        # A handful of networks is kept loaded: cases come grouped by variant.
        self.subject = lru_cache(maxsize=8)(self._subject)
        self.artifact = lru_cache(maxsize=None)(self._artifact)
        self._failures: dict[str, RobustgateError] = {}

    def _artifact(self, variant: Variant) -> Artifact:
        """Build or fetch a variant. Raises ModelError, DomainError or CompressionError, naming the variant."""
        if variant.name in self._failures:  # what cannot be built is not tried again for every case
            raise self._failures[variant.name]
        try:
            folder = self._entry(variant, self.chains[variant.compression])
        except (ModelError, DomainError, CompressionError) as error:
            self._failures[variant.name] = type(error)(f"{variant.name}: {error}")
            raise self._failures[variant.name] from error
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        record = VariantRecord(**{"name": variant.name, **variant.fields, **facts})
        return Artifact(folder=folder, record=record)

    def _subject(self, variant: Variant) -> Subject:
        """Load a variant so that it can be run."""
        folder = self.artifact(variant).folder
        if (folder / ONNX).exists():
            return OnnxSubject(folder / ONNX, variant.name, self.device, self.configuration.gate.threads)
        return TorchSubject(self._network(folder, variant).module, self.device)

    def example(self, source: str) -> Tensor:
        """Return two test images of a domain (2, 3, H, W), on the device."""
        samples = self.library.samples(source, "test")
        return as_tensor(samples, slice(0, 2), self.device)[0]

    def _network(self, folder: Path, variant: Variant) -> Network:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        edits = tuple(Edit(**edit) for edit in described.pop("edits"))
        mean, std = tuple(described.pop("mean")), tuple(described.pop("std"))
        architecture = Architecture(**described, mean=mean, std=std, edits=edits)
        with isolated(0):  # whatever the factory draws is replaced by the kept weights
            module = networks.build(architecture, self.example(variant.source).cpu())
        module.load_state_dict(load_file(folder / WEIGHTS))
        return Network(module=module.to(self.device).eval(), architecture=architecture)

    def _entry(self, variant: Variant, steps: tuple[Step, ...]) -> Path:
        model = self.configuration.models[variant.model]
        identity = {
            "weights": sha256(model.weights[variant.source]),
            "architecture": asdict(networks.architecture_of(model)),
            "factory": source_of(import_factory(model.build)),
            "seed": self.configuration.gate.seed,
            "names": [variant.model, variant.source],
            "steps": [_step_identity(step) for step in steps],
            "example": list(self.example(variant.source).shape),
            "device": self.device.type,
            "threads": self.configuration.gate.threads,
            "code": code_version(),
        }
        if steps:
            identity["data"] = [self._digest(variant.source, split) for split in ("train", "calibration")]
        folder, _ = self.store.entry("artifacts", identity, lambda place: self._build(place, variant, steps))
        return folder

    def _digest(self, source: str, split: Split) -> str | None:
        try:
            return self.library.digest(source, split)
        except DomainError:
            return None  # a domain need not have a split that no step uses; one that does will say so itself

    def _build(self, folder: Path, variant: Variant, steps: tuple[Step, ...]) -> None:
        began = time.perf_counter()
        seed = derive(self.configuration.gate.seed, "step", variant.model, variant.source, len(steps))
        with isolated(seed), tempfile.TemporaryDirectory() as scratch:
            if steps:
                product = self._apply(variant, steps, Bench(self, variant, seed, Path(scratch)))
            else:
                model, example = self.configuration.models[variant.model], self.example(variant.source).cpu()
                product = networks.load_reference(model, variant.model, variant.source, example)
            if isinstance(product, ModelFile):
                shutil.move(product.path, folder / ONNX)
        if isinstance(product, ModelFile):
            facts = onnx_facts(folder / ONNX)
        else:
            state = {key: value.detach().cpu().contiguous() for key, value in product.module.state_dict().items()}
            save_file(state, folder / WEIGHTS)
            write_whole(folder / DESCRIPTION, json.dumps(asdict(product.architecture), sort_keys=True))
            facts = torch_facts(product.module, folder / WEIGHTS)
        facts["seconds_to_build"] = round(time.perf_counter() - began, 3)
        write_whole(folder / FACTS, json.dumps(facts))

    def _apply(self, variant: Variant, steps: tuple[Step, ...], bench: Bench) -> Network | ModelFile:
        *earlier, step = steps
        product: Network | ModelFile = self._network(self._entry(variant, tuple(earlier)), variant)
        if step.component is not None:
            product = step.component.apply(product, bench)  # type: ignore[arg-type]
        if step.finetune is None:
            return product
        if not isinstance(product, Network):
            raise CompressionError(f"{step.method} gave a file, which cannot be fine-tuned")
        # The k-th fine-tuning of a compression and of its control have the same seed, hence the same batches.
        place = sum(one.finetune is not None for one in earlier)
        seed = derive(self.configuration.gate.seed, "finetune", variant.model, variant.source, place)
        Bench(self, variant, seed, bench.folder).train(product, step.finetune)
        return product


class Bench:
    """The `Workshop` of one step."""

    def __init__(self, foundry: Foundry, variant: Variant, seed: int, folder: Path) -> None:
        self.foundry = foundry
        self.variant = variant
        self.seed = seed
        self.folder = folder

    @property
    def example(self) -> Tensor:
        """A batch of two images of the source domain."""
        return self.foundry.example(self.variant.source)

    def samples(self, split: Split) -> Samples:
        """Return a split of the source domain."""
        return self.foundry.library.samples(self.variant.source, split)

    def build(self, build: str, args: Mapping[str, Any]) -> Network:
        """Build an untrained network by a factory, with the model's normalisation."""
        own = networks.architecture_of(self.foundry.configuration.models[self.variant.model])
        architecture = replace(own, build=build, args=dict(args))
        module = networks.build(architecture, self.example.cpu()).to(self.foundry.device)
        return Network(module=module, architecture=architecture)

    def train(self, network: Network, recipe: Recipe, objective: Objective | None = None) -> None:
        """Train `network` in place on the source domain's train split."""
        device = self.foundry.device
        recipe.train(network.module, self.samples("train"), seed=self.seed, device=device, objective=objective)
        bad = [key for key, value in network.module.state_dict().items() if not value.isfinite().all()]
        if bad:
            raise CompressionError(f"training diverged: {bad[0]!r} holds NaN or infinity; lower lr")


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed torch's global streams inside the block, and leave them outside as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def source_of(made: object) -> str:
    """Return a hash of the source file of a class or function, so that what it makes is made again when it changes."""
    try:
        file = inspect.getsourcefile(made)  # type: ignore[arg-type]
    except TypeError:
        file = None
    return sha256(Path(file)) if file else repr(made)


def component_identity(component: object) -> Any:
    """Return what a component is, for a key: its class, its source, its fields."""
    if not is_dataclass(component):
        return repr(component)
    fields = {name: _plain(getattr(component, name)) for name in component.__dataclass_fields__}
    kind = type(component)
    return {"class": f"{kind.__module__}:{kind.__qualname__}", "source": source_of(kind), "fields": fields}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return component_identity(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _step_identity(step: Step) -> Any:
    own = getattr(step.component, "build", None)  # a step that has a factory of its own, as distillation has
    factory = source_of(import_factory(own)) if isinstance(own, str) else None
    return [component_identity(step.component), component_identity(step.finetune), factory]
