"""What is there before anything runs: how many samples, which artifacts. Nothing is decoded, and no torch imported."""

from __future__ import annotations

import json
import zipfile
from functools import singledispatch
from pathlib import Path
from typing import Any, Literal

from robustgate.core.components import Split
from robustgate.core.errors import DomainError
from robustgate.core.files import sha256
from robustgate.core.records import Variant
from robustgate.domains._images import class_folders, images_in
from robustgate.domains.image_folder import ImageFolder
from robustgate.domains.npy import Npy
from robustgate.domains.npz import Npz
from robustgate.engine.cost import Data, Extent, data_of
from robustgate.engine.identity import component_identity
from robustgate.engine.plan import Plan
from robustgate.engine.store import SEAL, code_version

PARTS: tuple[Literal["train", "calibration", "test"], ...] = ("train", "calibration", "test")


def extents(plan: Plan) -> dict[Data, Extent]:
    """Return how many samples the cases of a plan have, where their domains can tell without reading any."""
    found: dict[Data, Extent] = {}
    domains = plan.configuration.domains
    for place in dict.fromkeys(data_of(plan, case) for case in plan.cases):
        source, target, corruption, _ = place
        if corruption is None:  # a stored benchmark's files are looked for, and not opened
            extent = counted(domains[target or source], "whole" if target else "test")
            if extent is not None:
                found[place] = extent
    return found


@singledispatch
def counted(domain: object, split: Split) -> Extent | None:  # noqa: ARG001 - one that is not known tells nothing
    """Return how many samples a split of a domain has, by names and headers of files; None where these do not tell.

    A domain whose files are missing or damaged tells nothing either: the run says what is wrong with them.
    """
    return None


@counted.register
def _(domain: ImageFolder, split: Split) -> Extent | None:
    try:
        sizes = [len(images_in(domain.root / name)) for name in class_folders(domain.root)]
    except DomainError:
        return None
    begins, ends = 0.0, 1.0
    if split != "whole":
        before = PARTS[: PARTS.index(split)]
        begins = sum(domain.splits.get(name, 0.0) for name in before)
        ends = begins + domain.splits.get(split, 0.0)
    samples = sum(round(ends * size) - round(begins * size) for size in sizes)
    return Extent(samples=samples, values=3 * domain.image_size**2)


@counted.register
def _(domain: Npz, split: Split) -> Extent | None:
    files = domain.files
    chosen = list(dict.fromkeys(files.values())) if split == "whole" else [files[split]] if split in files else []
    shapes = [_shape_in_archive(path, f"{domain.keys.get('images', 'images')}.npy") for path in chosen]
    return _joined(shapes, domain.resize, domain.pad)


@counted.register
def _(domain: Npy, split: Split) -> Extent | None:
    files = domain.images
    chosen = list(dict.fromkeys(files.values())) if split == "whole" else [files[split]] if split in files else []
    return _joined([_shape(path) for path in chosen])


def kept(plan: Plan) -> set[Variant]:
    """Return the variants of which the cache holds an artifact of these weights, steps, versions, seed and threads.

    The data, of which an artifact is made too, are not read for it, nor is a network's code run: what differs in these
    alone is built again all the same.
    """
    gate = plan.configuration.gate
    found = [_identity(seal) for seal in (gate.cache / "artifacts").glob(f"*/{SEAL}")]
    code = code_version()
    alike = [
        one
        for one in found
        if (one.get("seed"), one.get("threads"), one.get("code")) == (gate.seed, gate.threads, code)
        and gate.device in ("auto", one.get("device"))
    ]
    made = {_made(one) for one in alike}
    return {variant for variant in plan.variants if made and _wanted(plan, variant) in made}


def _identity(seal: Path) -> dict[str, Any]:
    try:
        identity = json.loads(seal.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # damaged: it will be built again
    return identity if isinstance(identity, dict) else {}


def _made(identity: dict[str, Any]) -> str:
    """Return what an artifact was made of, of that which `_wanted` can tell."""
    made = [step[:2] for step in identity["steps"]]
    return json.dumps([identity["names"], identity["model"][0], made], sort_keys=True)


def _wanted(plan: Plan, variant: Variant) -> str | None:
    steps = plan.chains[variant.compression]
    try:
        made = [[component_identity(step.component), component_identity(step.finetune)] for step in steps]
        weights = sha256(plan.configuration.models[variant.model].weights[variant.source])
    except OSError:
        return None  # a file that is missing: the run says so
    return json.dumps([[variant.model, variant.source], weights, made], sort_keys=True)


def _joined(shapes: list[tuple[int, ...] | None], resize: tuple[int, int] | None = None, pad: int = 0) -> Extent | None:
    known = [shape for shape in shapes if shape is not None and len(shape) in (3, 4)]
    if not known or len(known) < len(shapes):
        return None
    height, width = resize or known[0][1:3]
    return Extent(samples=sum(shape[0] for shape in known), values=3 * (height + 2 * pad) * (width + 2 * pad))


def _shape_in_archive(path: Path, member: str) -> tuple[int, ...] | None:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            return _header(file)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _shape(path: Path) -> tuple[int, ...] | None:
    try:
        with path.open("rb") as file:
            return _header(file)
    except (OSError, ValueError):
        return None


def _header(file: Any) -> tuple[int, ...]:
    """Return the shape of an array in the .npy format. Raises ValueError where it is none."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    shape, _, _ = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    return tuple(map(int, shape))
