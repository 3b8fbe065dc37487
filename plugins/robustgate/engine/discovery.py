"""What a folder holds that a gate could be made of: files of networks, and labelled images."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Literal

from robustgate.core.errors import DomainError, listing
from robustgate.domains._images import SUFFIXES, class_folders, images_in
from robustgate.domains.npz import Npz

NETWORKS = (".safetensors", ".pt", ".pth", ".onnx")
IMAGES = ", ".join(sorted(SUFFIXES))
# Beside hidden folders and virtual environments: what holds nothing of the user's own.
FOREIGN = {"__pycache__", "node_modules", "robustgate-report", "site-packages"}
# What a part of a data set is called, the best to judge by first.
PARTS: Mapping[str, Literal["train", "calibration", "test"]] = {
    "test": "test",
    "testing": "test",
    "val": "calibration",
    "valid": "calibration",
    "validation": "calibration",
    "calibration": "calibration",
    "train": "train",
    "training": "train",
}
PART = re.compile(rf"(?P<set>.*?)[-_. ]*(?P<part>{'|'.join(sorted(PARTS, key=len, reverse=True))})", re.IGNORECASE)
# Folders whose names say nothing of what is in them.
NAMELESS = {"data", "dataset", "datasets", "images", "img", "imgs"}
LARGEST = 224


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set: a folder of class folders, which has one path, or .npz files, one for each part of it.

    `size` is the height and width of an image of it: of a folder's, that to which they are cut out. `named` says
    whether the files themselves name the classes.
    """

    name: str
    kind: Literal["image_folder", "npz"]
    paths: Mapping[Literal["train", "calibration", "test"], Path]
    classes: tuple[str, ...]
    size: tuple[int, int]
    named: bool = True

    @property
    def place(self) -> Path:
        """Where it is judged from."""
        return self.paths["test"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What there is below a folder; `refused` says of each file that looked like data why it is none."""

    networks: tuple[Path, ...]
    data: tuple[Data, ...]
    refused: tuple[str, ...]


def search(*places: Path) -> Found:
    """Look at files, and through folders and all below them, but for hidden folders, environments and packages."""
    networks: list[Path] = []
    data: list[Data] = []
    refused: list[str] = []
    for here, names, files in chain.from_iterable(map(_walk, places)):
        networks += [here / name for name in files if Path(name).suffix.lower() in NETWORKS]
        classes = _image_classes(here, names)
        readings = [partial(_of_folder, here, classes)] if classes else []
        readings += [partial(_of_file, here / name) for name in files if name.lower().endswith(".npz")]
        if classes:
            names.clear()
        for read in readings:
            try:
                data += read()
            except DomainError as error:
                refused.append(str(error))
    return Found(networks=tuple(networks), data=tuple(_named(_together(data))), refused=tuple(refused))


def _walk(place: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder with its folders, of which those that are taken out are not entered, and its files; sorted."""
    if place.is_file():
        yield place.parent, [], [place.name]
    seen = {place.resolve()}
    for folder, names, files in os.walk(place, followlinks=True):
        here = Path(folder)
        own = {(here / name).resolve(): name for name in sorted(names) if not _is_foreign(here / name)}
        names[:] = [name for real, name in own.items() if real not in seen]  # a link may lead back
        seen |= own.keys()
        yield here, names, sorted(files)


def runs_by_itself(file: Path) -> bool:
    """Say whether a file holds a whole network, which a runtime executes, and not its weights alone."""
    if file.suffix.lower() == ".onnx":
        return True
    if file.suffix.lower() != ".pt" or not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:  # torch keeps both in archives; a TorchScript file has its code in it
        return any("/code/" in name for name in archive.namelist())


def _is_foreign(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in FOREIGN or (folder / "pyvenv.cfg").exists()


def _image_classes(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the class folders, none where there are not two, or where one of them has no image."""
    return tuple(names) if len(names) > 1 and all(_has_image(folder / name) for name in names) else ()


def _has_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(Path(entry.name).suffix.lower() in SUFFIXES for entry in entries)


def _of_folder(root: Path, classes: tuple[str, ...]) -> Iterator[Data]:
    """Yield the data of a folder of class folders.

    Raises DomainError where the first image cannot be opened, or a folder stands there that was passed by, as hidden
    ones are: to the gate it is a class.
    """
    from PIL import Image

    if strange := set(class_folders(root)) - set(classes):
        raise DomainError(f"{root}: {listing(strange)} would be a class: move it away")
    first = images_in(root / classes[0])[0]
    try:
        with Image.open(first) as image:
            size = min(*image.size, LARGEST)
    except OSError as error:
        raise DomainError(f"{first}: cannot be read as an image: {error}") from error
    yield Data(name="", kind="image_folder", paths={"test": root}, classes=classes, size=(size, size))


def _of_file(path: Path) -> Iterator[Data]:
    """Yield the data of an .npz file that has images and labels. Raises DomainError where it cannot be read as such."""
    import numpy as np

    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
            if not {"images", "labels"} <= set(arrays):
                return
            named = "classes" in arrays
            numbers = 0 if named else int(np.max(arrays["labels"], initial=0)) + 1
    except Exception as error:  # a damaged archive raises whatever the part that is damaged provokes
        raise DomainError(f"{path}: not an .npz of plain arrays: {error}") from error
    classes = None if named else tuple(map(str, range(numbers)))
    samples = Npz(files={"test": path}, classes=classes).load("test")
    height, width = samples.images.shape[1:3]
    yield Data(name="", kind="npz", paths={"test": path}, classes=samples.classes, size=(height, width), named=named)


def _together(found: Iterable[Data]) -> Iterator[Data]:
    """Yield each data set once, of those that lie in parts: ``train`` beside ``test``."""
    sets: dict[tuple[Path, str, str], dict[Literal["train", "calibration", "test"], Data]] = {}
    for data in found:
        stem = data.place.stem if data.kind == "npz" else data.place.name
        part = PART.fullmatch(stem)
        key = (data.place.parent, part["set"] if part else stem, data.kind)
        sets.setdefault(key, {}).setdefault(PARTS[part["part"].lower()] if part else "test", data)
    for parts in sets.values():
        # What the network was trained on cannot judge it, where there is anything else.
        judge = parts.get("test") or parts.get("calibration") or parts["train"]
        if judge.kind == "image_folder" or len(parts) == 1:
            yield judge
        else:
            yield replace(judge, paths={part: data.place for part, data in parts.items()} | {"test": judge.place})


def _named(found: Iterable[Data]) -> Iterator[Data]:
    """Yield the data sets with names of their own: what their path says last that says anything."""
    taken: set[str] = set()
    for data in found:
        *above, last = data.place.parts
        stem = Path(last).stem if data.kind == "npz" else last
        own = (PART.sub(lambda part: part["set"], stem) if PART.fullmatch(stem) else stem, *reversed(above))
        said = next((part for part in own if part and part.lower() not in NAMELESS), "data")
        name = unique(said, taken)
        taken.add(name)
        yield replace(data, name=name)


def unique(text: str, taken: Iterable[str]) -> str:
    """Return a text as a name of the configuration, unlike those that are taken."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_") or "data"
    numbered = (f"{name}_{number}" for number in count(2))
    return name if name not in taken else next(one for one in numbered if one not in taken)
