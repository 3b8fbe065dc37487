"""Benchmarks of several domains as they are published: Office-31, Office-Home, PACS, DomainNet, VLCS."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from robustgate.core.components import Encoded, Extent, Split
from robustgate.core.errors import DomainError, listing, nearest
from robustgate.domains._images import Decoding, class_folders, encoded, images_in
from robustgate.domains.image_folder import ImageFolder

__all__ = ["DomainBenchmark"]

# Of 256 values of a hash's first byte those below this one: a tenth.
HELD_OUT = 26


@dataclass(frozen=True)
class Layout:
    """Where a benchmark keeps the class folders of its domains.

    `folders` are the known places below its root, the first that is there counts. `aliases` are other names of
    domains, `classes` the names of classes that are numbered. Where the benchmark divides its domains
    into train and test itself, `lists` are the places of ``<domain>_train.txt`` and ``<domain>_test.txt``, and `parts`
    those of the class folders.
    """

    domains: tuple[str, ...]
    folders: tuple[str, ...] = ("{domain}",)
    aliases: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    parts: str = ""


LAYOUTS = {
    "office31": Layout(domains=("amazon", "dslr", "webcam"), folders=("{domain}/images", "{domain}")),
    "office_home": Layout(domains=("Art", "Clipart", "Product", "Real World")),
    "pacs": Layout(
        domains=("art_painting", "cartoon", "photo", "sketch"),
        folders=("{domain}", "kfold/{domain}", "images/{domain}"),
    ),
    "domainnet": Layout(
        domains=("clipart", "infograph", "painting", "quickdraw", "real", "sketch"),
        lists=("", "splits/"),
    ),
    "vlcs": Layout(
        domains=("Caltech101", "LabelMe", "SUN09", "VOC2007"),
        folders=("{domain}/full", "{domain}"),
        aliases={"Caltech101": "CALTECH", "SUN09": "SUN", "VOC2007": "PASCAL"},
        classes=("bird", "car", "chair", "dog", "person"),
        parts="{domain}/{part}",
    ),
}


@dataclass(frozen=True, kw_only=True)
class DomainBenchmark:
    """One `domain` of a `benchmark`, below the folder that all its domains lie in.

    - ``office31``: ``<amazon|dslr|webcam>/images/<class>/``
    - ``office_home``: ``<Art|Clipart|Product|Real World>/<class>/``
    - ``pacs``: ``<art_painting|cartoon|photo|sketch>/<class>/``, also below ``kfold/`` or ``images/``
    - ``domainnet``: ``<clipart|infograph|painting|quickdraw|real|sketch>/<class>/``
    - ``vlcs``: ``<Caltech101|LabelMe|SUN09|VOC2007>/<class>/``, also with a folder ``full`` above the classes, and
      with classes called 0 to 4, which are bird, car, chair, dog, person

    Case, blanks and underscores in a domain's name do not count. Images are resized and cut, and `splits` gives shares,
    as in `image_folder`. ``splits = "published"`` takes the benchmark's own division, with a tenth of its train part as
    the calibration split: DomainNet's lists ``<domain>_train.txt`` and ``<domain>_test.txt``, beside the domains or in
    ``splits/``, and VLCS's folders ``train`` and ``test`` beside ``full``.
    """

    benchmark: Literal["office31", "office_home", "pacs", "domainnet", "vlcs"]
    root: Path
    domain: str
    image_size: int
    short_side: int | None = None
    exif: Literal["ignore", "apply"] = "ignore"
    splits: dict[Literal["train", "calibration", "test"], float] | Literal["published"] = field(
        default_factory=lambda: {"train": 0.8, "calibration": 0.1, "test": 0.1}
    )

    def __post_init__(self) -> None:
        if self.benchmark not in LAYOUTS:
            raise ValueError(f"no benchmark {self.benchmark!r}{nearest(self.benchmark, LAYOUTS)}")
        known = self._layout.domains
        if not self._names():
            hint = nearest(self.domain, (*known, *self._layout.aliases.values()))
            raise ValueError(f"no domain {self.domain!r} in {self.benchmark}{hint}; known: {listing(known)}")
        if self.splits == "published" and not (self._layout.lists or self._layout.parts):
            raise ValueError(f"splits: {self.benchmark} has no published division into train and test; give shares")
        self._images(self.root)

    def load(self, split: Split) -> Encoded:
        """Return the samples of a split, not decoded yet. Raises DomainError, naming what is missing."""
        if self.splits == "published":
            return self._published(split)
        folder = self._folder()
        samples = self._images(folder).load(split)
        return replace(samples, classes=tuple(self._called(name, folder) for name in samples.classes))

    def count(self, split: Split) -> Extent:
        """Return how many images a split has. Raises DomainError, naming what is missing."""
        if self.splits == "published":
            return Extent(samples=len(self._division(split)[0]), values=3 * self.image_size**2)
        return self._images(self._folder()).count(split)

    def _published(self, split: Split) -> Encoded:
        """Return a split of the benchmark's own division; the whole is train and test."""
        chosen, classes = self._division(split)
        files, labels = [file for _, file in chosen], [classes.index(name) for name, _ in chosen]
        return encoded(files, labels, classes, root=self.root, decoding=self._decoding())

    def _division(self, split: Split) -> tuple[list[tuple[str, Path]], tuple[str, ...]]:
        """Return class and file of each image of a split, and all classes."""
        read = self._listed if self._layout.lists else self._parted
        train, test = read("train"), read("test")
        classes = tuple(sorted({name for name, _ in (*train, *test)}))
        held_out = {file for _, file in train if hashlib.sha256(file.name.encode()).digest()[0] < HELD_OUT}
        chosen = {
            "train": [(name, file) for name, file in train if file not in held_out],
            "calibration": [(name, file) for name, file in train if file in held_out],
            "test": test,
            "whole": [*train, *test],
        }[split]
        return chosen, classes

    def _listed(self, part: str) -> list[tuple[str, Path]]:
        """Return class and file of each line ``<domain>/<class>/<file> <number>`` of a list."""
        path = self._there([f"{place}{{domain}}_{part}.txt" for place in self._layout.lists], Path.is_file)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DomainError(f"{path}: cannot be read as a list of images: {error}") from error
        members = []
        for number, line in enumerate(lines, 1):
            place, _, label = line.strip().rpartition(" ")
            if not label.isdecimal() or place.count("/") != 2:
                raise DomainError(
                    f"{path}: line {number}: expected '<domain>/<class>/<file> <number>', got {line.strip()!r}"
                )
            members.append((place.split("/")[1], self.root / place))
        return members

    def _parted(self, part: str) -> list[tuple[str, Path]]:
        """Return class and file of each image in the class folders of a part."""
        folder = self._there([self._layout.parts.replace("{part}", part)], Path.is_dir)
        names = class_folders(folder)
        return [(self._called(name, folder), file) for name in names for file in images_in(folder / name)]

    def _folder(self) -> Path:
        """Return the folder of the domain's class folders; one that is divided into parts holds none itself."""

        def holds_classes(place: Path) -> bool:
            return place.is_dir() and not (self._layout.parts and (place / "train").is_dir())

        return self._there(self._layout.folders, holds_classes)

    def _there(self, places: Iterable[str], is_it: Callable[[Path], bool]) -> Path:
        """Return the first of some places below the root that is there, however the domain's name is written."""
        expected = []
        for place in places:
            above, _, rest = place.partition("{domain}")
            suffix, _, below = rest.partition("/")
            wanted, folder = {_folded(name + suffix) for name in self._names()}, self.root / above
            for found in sorted(folder.iterdir()) if folder.is_dir() else ():
                if _folded(found.name) in wanted and is_it(found / below):
                    return found / below
            expected.append(str(folder / f"{self.domain}{suffix}" / below))
        raise DomainError(f"{self.benchmark}: there is no {' or '.join(expected)}")

    def _names(self) -> tuple[str, ...]:
        """Return the names that the domain goes by; none where it is unknown."""
        layout = self._layout
        for name in layout.domains:
            names = (name, layout.aliases.get(name, name))
            if _folded(self.domain) in map(_folded, names):
                return names
        return ()

    def _called(self, name: str, folder: Path) -> str:
        """Return the name of a class whose folder may be called by its number."""
        classes = self._layout.classes
        if not classes or not name.isdecimal():
            return name
        if int(name) >= len(classes):
            raise DomainError(f"{folder / name}: expected a class from 0 to {len(classes) - 1}, or its name")
        return classes[int(name)]

    def _images(self, folder: Path) -> ImageFolder:
        return ImageFolder(
            root=folder,
            image_size=self.image_size,
            short_side=self.short_side,
            exif=self.exif,
            splits={"test": 1.0} if self.splits == "published" else self.splits,
        )

    def _decoding(self) -> Decoding:
        return Decoding.resized(self.image_size, self.short_side, self.exif)

    @property
    def _layout(self) -> Layout:
        return LAYOUTS[self.benchmark]


def _folded(name: str) -> str:
    return re.sub("[ _-]", "", name.casefold())
