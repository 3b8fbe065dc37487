"""WebDataset: samples in tar files, called shards."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from robustgate.core.components import Encoded, Split
from robustgate.core.errors import DomainError, listing, nearest
from robustgate.core.files import sha256
from robustgate.core.threads import in_threads
from robustgate.domains._classes import Classes, class_names
from robustgate.domains._images import SUFFIXES, Decoding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Webdataset"]

SPLITS: tuple[Literal["train", "calibration", "test"], ...] = ("train", "calibration", "test")
# A tar file ends with blocks of zeros.
BLOCK = 512


@dataclass(frozen=True)
class Member:
    """One file in a tar file: where its bytes are, and what it is called."""

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}: {self.name}"

    def read(self) -> bytes:
        """Return its bytes."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


Sample = dict[str, Member]
"""The members of a sample, by what follows the first dot of their names, in lower case: ``jpg``, ``cls``."""


@dataclass(frozen=True, kw_only=True)
class Webdataset:
    """Tar files, whose members of one name up to its first dot are one sample: an image and its label.

    `shards` says which files a split has: ``"train-{0000..0146}.tar"``, ``"test-*.tar"``, or one file. The image is the
    member that ends like an image file; the label is a number or a class's name, alone in the member ``cls``, or under
    `label` in ``json``. `classes` holds the names, or is a text file with one a line. Images are resized and cut as
    `image_folder` does it. Compressed tar files are refused: samples are read from where they lie in the file. A domain
    that is only a target needs no more than a test split.
    """

    # The package `webdataset` streams shards in the order that training likes. A gate needs each sample by its place
    # and each byte hashed, for which the standard library's tar files do.

    shards: dict[Literal["train", "calibration", "test"], Path]
    classes: Classes
    image_size: int
    short_side: int | None = None
    exif: Literal["ignore", "apply"] = "ignore"
    label: str = "label"

    def __post_init__(self) -> None:
        if not self.shards:
            raise ValueError("shards must name at least those of the test split")
        self._decoding()

    def load(self, split: Split) -> Encoded:
        """Return the samples of a split, not decoded yet. Raises DomainError, naming the first shard that is wrong."""
        import numpy as np

        if split != "whole" and split not in self.shards:
            raise DomainError(f"no {split} split: shards names {listing(self.shards)}; add shards.{split}")
        splits = [name for name in SPLITS if name in self.shards] if split == "whole" else [split]
        shards = list(dict.fromkeys(shard for name in splits for shard in _shards(self.shards[name])))
        classes, decoding = class_names(self.classes), self._decoding()
        samples = [sample for shard in shards for sample in _samples(shard)]
        images = [_image(sample) for sample in samples]
        labels = [self._label(sample, classes) for sample in samples]
        digests = "".join(in_threads(sha256, shards))
        return Encoded(
            labels=np.array(labels, dtype=np.int64),
            classes=classes,
            names=tuple(f"{image.shard.name}/{image.name}" for image in images),
            size=(self.image_size, self.image_size),
            read=lambda index: _decoded(images[index], decoding),
            identity=hashlib.sha256(f"{decoding.identity} {digests}".encode()).hexdigest(),
        )

    def _label(self, sample: Sample, classes: tuple[str, ...]) -> int:
        """Return the index of a sample's class, whose name or number its label is."""
        member = sample.get("cls") or sample.get("json")
        if member is None:
            place = next(iter(sample.values()))
            raise DomainError(f"{place}: expected a label in the sample, cls or json, got {listing(sample)}")
        text = member.read().decode("utf-8", errors="replace").strip()
        label = text if "cls" in sample else str(self._in_json(text, member))
        if label in classes:
            return classes.index(label)
        if label.isdecimal() and int(label) < len(classes):
            return int(label)
        expected = f"a class's name, or its number from 0 to {len(classes) - 1}"
        raise DomainError(f"{member}: expected {expected}, got {label!r}{nearest(label, classes)}")

    def _in_json(self, text: str, member: Member) -> object:
        try:
            table = json.loads(text)
        except ValueError as error:
            raise DomainError(f"{member}: not JSON: {error}") from error
        if not isinstance(table, dict) or self.label not in table:
            held = listing(table) if isinstance(table, dict) else type(table).__name__
            raise DomainError(f"{member}: expected a table with {self.label!r}, got {held}")
        return table[self.label]

    def _decoding(self) -> Decoding:
        return Decoding.resized(self.image_size, self.short_side, self.exif)


def _shards(pattern: Path) -> list[Path]:
    """Return the files that a pattern stands for, braces in their order, wildcards sorted."""
    found = []
    for path in _without_braces(pattern):
        files = sorted(path.parent.glob(path.name)) if set(path.name) & set("*?[") else [path]
        if not files or not files[0].is_file():
            raise DomainError(f"no such file: {path}")
        found += files
    return found


def _without_braces(pattern: Path) -> list[Path]:
    """Return the paths in which ``{000..146}`` counts, both ends included, and ``{a,b}`` is one or the other."""
    choices = []
    for place, text in enumerate(re.split(r"\{([^{}]*)\}", pattern.name)):
        ends = re.fullmatch(r"(\d+)\.\.(\d+)", text)
        if place % 2 == 0:
            choices.append([text])
        elif ends:
            first, last = ends.groups()
            choices.append([f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)])
        else:
            choices.append(text.split(","))
    return [pattern.with_name("".join(parts)) for parts in product(*choices)]


def _samples(shard: Path) -> list[Sample]:
    """Return the samples of a shard, in the order of their first members."""
    samples: dict[str, Sample] = {}
    for member in _members(shard):
        folder, _, file = member.name.rpartition("/")
        key, _, kind = file.partition(".")
        sample = samples.setdefault(f"{folder}/{key}", {})
        if kind.lower() in sample:
            raise DomainError(f"{member}: two members are called so")
        sample[kind.lower()] = member
    if not samples:
        raise DomainError(f"{shard}: no samples in it")
    return list(samples.values())


def _members(shard: Path) -> list[Member]:
    """Return what is in a tar file, without reading it. Raises DomainError for one that is not whole."""
    try:
        with tarfile.open(shard, "r:") as tar:
            members = [Member(shard, one.name, one.offset_data, one.size) for one in tar if one.isfile()]
            end = tar.offset
    except (tarfile.TarError, OSError) as error:
        raise DomainError(f"{shard}: cannot be read as an uncompressed tar file: {error}") from error
    with shard.open("rb") as file:
        file.seek(end)
        if file.read(BLOCK) != bytes(BLOCK):
            raise DomainError(f"{shard}: expected a block of zeros at its end, got none: not copied whole?")
    return members


def _image(sample: Sample) -> Member:
    found = [member for kind, member in sample.items() if f".{kind}" in SUFFIXES]
    if len(found) != 1:
        place = next(iter(sample.values()))
        raise DomainError(f"{place}: expected one image in the sample, got {len(found)} among {listing(sample)}")
    return found[0]


def _decoded(member: Member, decoding: Decoding) -> NDArray[np.uint8]:
    return decoding.decode(io.BytesIO(member.read()), str(member))
