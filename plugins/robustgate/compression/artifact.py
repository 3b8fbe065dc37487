"""A file made elsewhere: a vendor's, or another tool's. It is judged as it ships."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.core.components import ConstraintKind, ModelFile, Reading
from robustgate.core.errors import CompressionError, ModelError, listing

if TYPE_CHECKING:
    from robustgate.core.components import Network, Workshop

__all__ = ["Artifact"]

Runtime = Literal["onnx", "torchscript", "exported", "litert", "executorch"]

RUNTIMES: Mapping[str, Runtime] = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".ts": "torchscript",
    ".torchscript": "torchscript",
    ".jit": "torchscript",
    ".pt2": "exported",
    ".tflite": "litert",
    ".pte": "executorch",
}
# Runtimes that are not a dependency: the package that must be there. The extra has the runtime's name.
OPTIONAL = {"litert": "ai_edge_litert", "executorch": "executorch"}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Take a file as the compressed model: `files` names it for each model and source domain that has one.

    The suffix says which runtime executes it. `input` says how it wants its images, and which outputs are no class.
    """

    product: ClassVar[Literal["network", "file"]] = "file"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset()
    keeps: ClassVar[frozenset[ConstraintKind]] = frozenset()

    files: Mapping[str, Mapping[str, Path]]
    input: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        paths = [path for of_model in self.files.values() for path in of_model.values()]
        if not paths:
            raise ValueError("files must name a file for at least one model and source domain")
        for path in paths:
            try:
                runtime_of(path)
            except ModelError as error:
                raise ValueError(str(error)) from error

    @property
    def missing_extra(self) -> str | None:
        """The extra of robustgate that runs one of the files and is not installed, or None. Imports nothing."""
        runtimes = (runtime_of(path) for of_model in self.files.values() for path in of_model.values())
        return next((runtime for runtime in runtimes if is_missing(runtime)), None)

    def serves(self, model: str, source: str) -> bool:
        """Say whether there is a file for this model and source domain."""
        return source in self.files.get(model, {})

    def apply(self, network: Network, workshop: Workshop) -> ModelFile:  # noqa: ARG002 - the file stands for it
        """Return a copy of the file, in the workshop's folder. Raises CompressionError where it is missing."""
        model, source = workshop.model, workshop.source
        if not self.serves(model, source):
            named = listing(f"{one}.{domain}" for one, domains in self.files.items() for domain in domains)
            raise CompressionError(f"artifact: no file is named for {model}.{source}; named: {named}")
        original = self.files[model][source]
        if not original.is_file():
            raise CompressionError(f"artifact: {model}.{source}: there is no file {original}")
        copied = workshop.folder / original.name
        shutil.copyfile(original, copied)
        return ModelFile(path=copied, reading=self.input)


def runtime_of(path: Path) -> Runtime:
    """Return which runtime executes a file, by its suffix. Raises ModelError for an unknown one."""
    runtime = RUNTIMES.get(path.suffix.lower())
    if runtime is None:
        raise ModelError(f"{path}: expected a model file ({listing(RUNTIMES)}), got the suffix {path.suffix!r}")
    return runtime


def missing_runtime(path: Path) -> str | None:
    """Return why a file cannot be run here, and what to install; None if its runtime is there. Imports nothing."""
    runtime = runtime_of(path)
    if not is_missing(runtime):
        return None
    return f'{path.name} needs {OPTIONAL[runtime]}, which is not installed: pip install "robustgate[{runtime}]"'


def is_missing(runtime: Runtime) -> bool:
    """Say whether a runtime is not installed. Imports nothing."""
    return runtime in OPTIONAL and importlib.util.find_spec(OPTIONAL[runtime]) is None
