"""A first robustgate.toml: what was found and said, as a commented text that runs at once."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from robustgate.config import Model, Normalize
from robustgate.core.catalog import import_factory
from robustgate.core.errors import ModelError
from robustgate.engine.discovery import Data

IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# What the parameter of a factory that takes the number of classes is called.
CLASS_ARGUMENTS = ("num_classes", "n_classes", "classes")
TEXT = """\
# The gate of {model}: `robustgate plan` shows what it measures, `robustgate run` measures and judges it.
# Images are in [0, 1], and so is every eps; the limits of rules are fractions.

{domains}
[models.{model}]
build = {build}
{args}normalize = {normalize}
weights = {weights}  # a file for each domain that the network was trained on

# Each compression is a chain of steps. Others: filter_pruning, magnitude_pruning, weight_clustering, distillation, ...
[compressions.int8]
steps = [{{ method = "static_quantization" }}]
{made}
# Every variant is measured on clean images, on the other domains, and on corrupted images; names = "benchmark" is all
# fifteen corruptions, and severities go to 5.
[shifts]
pairs = "all"
corruptions = {{ names = ["gaussian_noise", "defocus_blur", "jpeg_compression"], severities = [1, 3] }}

[attacks.pgd]
method = "pgd"
eps = 0.004  # about one grey level of 255
steps = 10

# A policy is the rules of one deployment; of several, `robustgate run --policy edge,cloud` judges one run by each.
[policies.edge]
scope = "test_set"  # judge these very images; "population" asks whether it would hold on new images of their kind
early_stop = "certain"  # end a case once the rest cannot turn it; "confident": far sooner, by statistics; false: never

[[policies.edge.rules]]
name = "the network knows its domain"
where = {{ kind = "clean", compression = "none" }}
min = 0.5  # raise it to what you expect

[[policies.edge.rules]]
name = "compression costs little"
max_drop = 0.05  # of accuracy, against the uncompressed network, on clean images and under every shift

# Under shifts no rule judges the uncompressed network itself: it is what the others are compared with. How much it
# must hold there is yours to say, once a run has shown what it holds; a rule like this judges all variants:
# [[policies.edge.rules]]
# name = "stands under attack"
# where = {{ kind = "adversarial" }}
# min = 0.2
"""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a configuration is written of. `weights` and `made`, files that run by themselves, are by source domain."""

    model: str
    build: str
    normalize: Normalize | Literal["inside"]
    data: Sequence[Data]
    weights: Mapping[str, Path]
    made: Sequence[tuple[str, Path]] = ()
    args: Mapping[str, Any] = field(default_factory=dict)

    def text(self, folder: Path) -> str:
        """Return the text of a robustgate.toml in `folder`."""
        made = "".join(
            f"\n# Made elsewhere, and judged as it ships.\n[compressions.vendor{number if number > 1 else ''}]\n"
            f"artifact = {_toml({self.model: {source: _path(file, folder)}})}\n{self._input}"
            for number, (source, file) in enumerate(self.made, 1)
        )
        return TEXT.format(
            model=self.model,
            domains="\n".join(_domain(data, folder, is_source=data.name in self.weights) for data in self.data),
            build=_toml(self.build),
            args=f"args = {_toml(self.args)}\n" if self.args else "",
            normalize=_toml(self.normalize),
            weights=_toml({domain: _path(file, folder) for domain, file in self.weights.items()}),
            made=made,
        )

    def check(self) -> None:
        """Build the network, load each file of weights, and classify an image. Raises RobustgateError."""
        import torch

        from robustgate.engine.networks import load_reference

        model = Model(build=self.build, args=dict(self.args), normalize=self.normalize, weights=dict(self.weights))
        by_name = {data.name: data for data in self.data}
        for source, file in self.weights.items():
            data = by_name[source]
            images = torch.zeros(2, 3, *data.size)
            network = load_reference(model, self.model, source, images)
            try:
                with torch.no_grad():
                    logits = network.module(images)
            except Exception as error:  # whatever a user's network raises on images that do not suit it
                height, width = data.size
                raise ModelError(
                    f"{self.build} with {file} cannot run on {height} x {width} pixels: {error}"
                ) from error
            if tuple(logits.shape) != (2, len(data.classes)):
                raise ModelError(
                    f"{self.build} with {file} gives {tuple(logits.shape)[1:]} logits an image, and {data.place} has "
                    f"{len(data.classes)} classes"
                )

    @property
    def _input(self) -> str:
        if self.normalize == "inside":
            return 'input = { layout = "nchw" }  # how the file wants its images\n'
        return f"input = {_toml(self.normalize)}  # how the file wants its images: here as the network does\n"


def guessed_build(weights: Path) -> str | None:
    """Return the factory in torchvision that a file of weights is named after, if any."""
    from torchvision import models

    stem = re.sub(r"[^a-z0-9]", "", weights.stem.lower())
    names = [name for name in models.list_models(module=models) if name.replace("_", "") in stem]
    return f"torchvision.models:{max(names, key=len)}" if names else None


def read_build(text: str) -> str:
    """Return the name of a factory, once it is imported. Raises ConfigurationError."""
    import_factory(text)
    return text


def class_argument(build: str) -> str | None:
    """Return which parameter of a factory takes the number of classes. Raises ConfigurationError without a factory."""
    parameters = inspect.signature(import_factory(build)).parameters
    named = next((name for name in CLASS_ARGUMENTS if name in parameters), None)
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return CLASS_ARGUMENTS[0] if named is None and takes_any else named


def read_normalize(text: str) -> Normalize | Literal["inside"]:
    """Return the normalisation that a text names. Raises ValueError."""
    if text in ("imagenet", "inside"):
        return IMAGENET if text == "imagenet" else "inside"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 6:
        raise ValueError(f"expected imagenet, inside, or six numbers with commas, mean then std, got {text!r}")
    return Normalize(mean=tuple(numbers[:3]), std=tuple(numbers[3:]))


def _domain(data: Data, folder: Path, *, is_source: bool) -> str:
    """Return the table of a domain; compressions are made with images of a source domain."""
    lines = [f"[domains.{data.name}]", f"kind = {_toml(data.kind)}"]
    files = {part: _path(data.paths[part], folder) for part in ("train", "calibration", "test") if part in data.paths}
    if data.kind == "image_folder":
        lines += [f"root = {_toml(files['test'])}", f"image_size = {data.size[0]}"]
        lines.append("# Shares of the images. None that the network was trained on may be here: it would tell nothing.")
        lines.append(f"splits = {_toml({'calibration': 0.2, 'test': 0.8} if is_source else {'test': 1.0})}")
    elif not is_source:
        lines.append(f"files = {_toml({'test': files['test']})}")
    elif len(files) == 1:
        lines.append("# The one file calibrates and judges: better name another for calibration, of other images.")
        lines.append(f"files = {_toml({'calibration': files['test'], 'test': files['test']})}")
    else:
        lines.append(f"files = {_toml(files)}")
        lines += [] if "calibration" in files else ["calibration = 0.1  # the share of the train file that calibrates"]
    if not data.named:
        lines.append(f"classes = {_toml(data.classes)}  # their names: the files have none")
    return "\n".join(lines) + "\n"


def _path(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()


def _toml(value: Any) -> str:
    """Return a value as TOML, on one line."""
    if isinstance(value, Normalize):
        return _toml({"mean": value.mean, "std": value.std})
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value) if isinstance(value, int | float) else f"[{', '.join(map(_toml, value))}]"
