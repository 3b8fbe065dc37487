"""Variants: built once, kept by content hash, locked against a second builder."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustgate.compression.artifact import runtime_of
from robustgate.config import Configuration, Step
from robustgate.core.catalog import import_factory
from robustgate.core.components import (
    Architecture,
    Constraint,
    ModelFile,
    Network,
    Reading,
    Split,
)
from robustgate.core.errors import CompressionError, DomainError, MeasurementError, ModelError, RobustgateError
from robustgate.core.files import sha256, write_whole
from robustgate.core.records import Variant, VariantRecord
from robustgate.core.seeds import derive
from robustgate.engine import networks, subjects
from robustgate.engine.bench import Bench, isolated
from robustgate.engine.constraints import check_kept
from robustgate.engine.course import Pupil, unheard
from robustgate.engine.data import Library, as_tensor
from robustgate.engine.facts import file_facts, torch_facts
from robustgate.engine.identity import component_identity, parameters_of, source_of
from robustgate.engine.store import Store, code_version

WEIGHTS, DESCRIPTION, FACTS = "weights.safetensors", "network.json", "facts.json"
# A file that a runtime executes keeps its suffix, which says which.
MODEL, READING = "model", "reading.json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A built variant: the folder that holds its file, what is known of it, and whether it was kept from before."""

    folder: Path
    record: VariantRecord
    kept: bool

    @property
    def file(self) -> Path:
        """The file that ships: what a runtime executes, or a torch network's weights."""
        return next(self.folder.glob(f"{MODEL}.*"), self.folder / WEIGHTS)

    @property
    def reading(self) -> Reading | None:
        """How the file wants its images; None for a torch network's weights."""
        place = self.folder / READING
        return TypeAdapter(Reading).validate_json(place.read_bytes()) if place.exists() else None

    @property
    def architecture(self) -> Architecture | None:
        """How to build a torch network; None for a file that a runtime executes."""
        place = self.folder / DESCRIPTION
        return _described(place)[0] if place.exists() else None


class Foundry:
    """Builds the artifacts of a plan's compressions, and loads them."""

    def __init__(
        self,
        configuration: Configuration,
        chains: Mapping[str, tuple[Step, ...]],
        store: Store,
        library: Library,
        device: torch.device,
        pupil: Pupil = unheard,
    ) -> None:
        self.pupil = pupil
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
            folder, kept = self._entry(variant, self.chains[variant.compression])
        except (ModelError, DomainError, CompressionError) as error:
            self._failures[variant.name] = type(error)(f"{variant.name}: {error}")
            raise self._failures[variant.name] from error
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        record = VariantRecord(**{"name": variant.name, **variant.fields, **facts})
        return Artifact(folder=folder, record=record, kept=kept)

    def _subject(self, variant: Variant) -> subjects.Subject:
        """Load a variant so that it can be run."""
        artifact = self.artifact(variant)
        if artifact.reading is not None:
            return self._file_subject(artifact.file, artifact.reading, variant)
        return subjects.TorchSubject(self._network(artifact.folder, variant).module, self.device)

    def _file_subject(self, file: Path, reading: Reading, variant: Variant) -> subjects.Subject:
        return subjects.load_file(file, reading, variant.name, self.device, self.configuration.gate.threads)

    def recipe(self, variant: Variant) -> list[dict[str, Any]]:
        """Return the steps that make a variant, each with every parameter."""
        return [
            {
                "method": step.method,
                "parameters": parameters_of(step.component),
                "finetune": parameters_of(step.finetune),
            }
            for step in self.chains[variant.compression]
        ]

    def example(self, source: str) -> Tensor:
        """Return two test images of a domain (2, 3, H, W), on the device."""
        samples = self.library.samples(source, "test")
        return as_tensor(samples, slice(0, 2), self.device)[0]

    def _network(self, folder: Path, variant: Variant) -> Network:
        architecture, constraints = _described(folder / DESCRIPTION)
        with isolated(0):  # whatever the factory draws is replaced by the kept weights
            module = networks.build(architecture, self.example(variant.source).cpu())
        module.load_state_dict(load_file(folder / WEIGHTS))
        module = module.to(self.device).eval()
        return Network(module=module, architecture=architecture, constraints=constraints)

    def _entry(self, variant: Variant, steps: tuple[Step, ...]) -> tuple[Path, bool]:
        identity = {
            "model": self._model_identity(variant.model, variant.source),
            "seed": self.configuration.gate.seed,
            "names": [variant.model, variant.source],
            "steps": [self._step_identity(step, variant.source) for step in steps],
            "example": list(self.example(variant.source).shape),
            "device": self.device.type,
            "threads": self.configuration.gate.threads,
            "code": code_version(),
        }
        if steps:
            identity["data"] = [self._digest(variant.source, split) for split in ("train", "calibration")]
        kept = self.store.place("trainings", identity)
        try:
            entry = self.store.entry("artifacts", identity, lambda place: self._build(place, variant, steps, kept))
        except RobustgateError:
            shutil.rmtree(kept, ignore_errors=True)  # it would fail again just so
            raise
        shutil.rmtree(kept, ignore_errors=True)  # what is built needs its epochs no more
        return entry

    def _digest(self, source: str, split: Split) -> str | None:
        try:
            return self.library.digest(source, split)
        except DomainError:
            return None  # a domain need not have a split that no step uses; one that does will say so itself

    def _build(self, folder: Path, variant: Variant, steps: tuple[Step, ...], kept: Path) -> None:
        began = time.perf_counter()
        seed = derive(self.configuration.gate.seed, "step", variant.model, variant.source, len(steps))
        with isolated(seed), tempfile.TemporaryDirectory() as scratch:
            if steps:
                product = self._apply(variant, steps, Bench(self, variant, seed, Path(scratch), kept))
            else:
                model, example = self.configuration.models[variant.model], self.example(variant.source).cpu()
                product = networks.load_reference(model, variant.model, variant.source, example)
            if isinstance(product, ModelFile):
                file = folder / f"{MODEL}{product.path.suffix.lower()}"
                shutil.move(product.path, file)
        if isinstance(product, ModelFile):
            write_whole(folder / READING, json.dumps(asdict(product.reading), sort_keys=True))
            facts = self._file_facts(file, product.reading, variant)
        else:
            state = {key: value.detach().cpu().contiguous() for key, value in product.module.state_dict().items()}
            save_file(state, folder / WEIGHTS)
            described = {
                "architecture": asdict(product.architecture),
                "constraints": [asdict(constraint) for constraint in product.constraints],
            }
            write_whole(folder / DESCRIPTION, json.dumps(described, sort_keys=True))
            facts = torch_facts(product.module, self.example(variant.source), folder / WEIGHTS)
        facts["seconds_to_build"] = round(time.perf_counter() - began, 3)
        write_whole(folder / FACTS, json.dumps(facts))

    def _file_facts(self, file: Path, reading: Reading, variant: Variant) -> dict[str, Any]:
        subject = self._file_subject(file, reading, variant)
        try:
            module = subject.differentiable()
        except MeasurementError:
            module = None  # its multiplications cannot be counted; a white-box attack on it says why
        return file_facts(file, runtime_of(file), module, self.example(variant.source))

    def _apply(self, variant: Variant, steps: tuple[Step, ...], bench: Bench) -> Network | ModelFile:
        *earlier, step = steps
        before = self._network(self._entry(variant, tuple(earlier))[0], variant)
        product: Network | ModelFile = before
        component: Any = step.component
        if component is not None:
            product = component.apply(before, bench)
            if isinstance(product, Network):
                check_kept(before, product, str(step.method))
        if step.finetune is not None:
            if not isinstance(product, Network):
                raise CompressionError(f"{step.method} gave a file, which cannot be fine-tuned")
            # The k-th fine-tuning of a compression and of its control have the same seed, hence the same batches.
            place = sum(one.finetune is not None for one in earlier)
            seed = derive(self.configuration.gate.seed, "finetune", variant.model, variant.source, place)
            product = Bench(self, variant, seed, bench.folder, bench.kept / "finetune").train(product, step.finetune)
        return component.finish(product, bench) if hasattr(component, "finish") else product

    def _step_identity(self, step: Step, source: str) -> Any:
        own = getattr(step.component, "build", None)  # a step that has a factory of its own, as distillation has
        factory = source_of(import_factory(own)) if isinstance(own, str) else None
        borrowed = [self._model_identity(name, source) for name in step.models]
        seen = [self._digest(name, "train") for name in step.domains]
        return [component_identity(step.component), component_identity(step.finetune), factory, borrowed, seen]

    def _model_identity(self, name: str, source: str) -> Any:
        model = self.configuration.models[name]
        architecture = asdict(networks.architecture_of(model))
        return [sha256(model.weights[source]), architecture, source_of(import_factory(model.build))]


def _described(place: Path) -> tuple[Architecture, tuple[Constraint, ...]]:
    described = json.loads(place.read_text(encoding="utf-8"))
    architecture = TypeAdapter(Architecture).validate_python(described["architecture"])
    return architecture, TypeAdapter(tuple[Constraint, ...]).validate_python(described["constraints"])
