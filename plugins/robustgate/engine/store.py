"""What is made once and kept: folders named by the hash of all that went into them.

An entry is built in a temporary folder under a lock, sealed with the hashes of its files, and renamed into place: it
is there whole, or not at all. On the way out it is checked against the seal, and made again where it does not match.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock

from robustgate.core.files import sha256, write_whole

SEAL = "seal.json"
BUILDING = ".building"
PACKAGES = (
    "robustgate",
    "torch",
    "torchvision",
    "onnxruntime",
    "onnx",
    "onnxscript",
    "numpy",
    "scipy",
    "hypothesis",
    "pillow",
    "torch-pruning",
    "scikit-learn",
    "optuna",
    "ai-edge-litert",
    "executorch",
    "torchattacks",
    "foolbox",
)


class Store:
    """A cache folder, shared by every process of a run and kept between runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entry(
        self, kind: str, identity: Mapping[str, Any], build: Callable[[Path], None], part: str = ""
    ) -> tuple[Path, bool]:
        """Return the folder of what `identity` (JSON) describes, or of a part of that, and whether it was there before.

        `build` fills an empty folder. Two processes that want the same entry build it once.
        """
        place = self.place(kind, identity) / part
        if _is_sealed(place):
            return place, True
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            if _is_sealed(place):  # built by another process while this one waited
                return place, True
            temporary = place.with_suffix(BUILDING)
            for rest in (place, temporary):  # damaged, or left by a builder that was killed
                shutil.rmtree(rest, ignore_errors=True)
            temporary.mkdir()
            try:
                build(temporary)
                seal = {
                    "identity": identity,
                    "files": {file.name: sha256(file) for file in sorted(temporary.iterdir())},
                }
                write_whole(temporary / SEAL, json.dumps(seal, indent=1, sort_keys=True))
                temporary.rename(place)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        return place, False

    def place(self, kind: str, identity: Mapping[str, Any]) -> Path:
        """Return the folder of what `identity` describes, be it there or not."""
        return self.folder / kind / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def parts(self, kind: str, identity: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the parts of an entry that are kept."""
        sealed = {seal.parent for seal in self.place(kind, identity).glob(f"*/{SEAL}")}
        # One that is sealed and not yet in its place is not kept; its builder may have been killed just then.
        return tuple(sorted(place.name for place in sealed if place.suffix != BUILDING))


def _is_sealed(place: Path) -> bool:
    try:
        seal = json.loads((place / SEAL).read_text(encoding="utf-8"))
        return all(sha256(place / name) == digest for name, digest in seal["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # absent or damaged: either way it is made again


@cache
def code_version() -> dict[str, str]:
    """Return the versions of what computes a result: packages, and a hash of this package's own source."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return {**versions, "source": digest.hexdigest()}
