"""Any Python callable that returns a torch data set."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import index
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from robustgate.core.catalog import import_factory
from robustgate.core.components import Encoded, Split
from robustgate.core.errors import ConfigurationError, DomainError, listing
from robustgate.domains._classes import Classes, class_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CallableDataset"]

SPLITS = ("train", "calibration", "test")


@dataclass(frozen=True, kw_only=True)
class CallableDataset:
    """What ``build = "package.module:name"`` returns when it is called with `args`: a map-style data set.

    That is one with a length and items (image, label) under 0, 1, 2, ...: an image is a Pillow image, a tensor
    ([C,] H, W) or an array (H, W[, C]) of 1 or 3 channels, uint8 or floating-point in [0, 1], neither normalised nor
    augmented; a label is a whole number. `classes` holds the names, or is a text file with one a line; without it the
    data set's own `classes` are taken.

    `splits` gives each split's own arguments: ``splits = { train = { train = true }, test = { train = false } }``.
    Without it the split's name is the argument `split`, where the callable takes one; where it takes none, the data set
    is a test set. The whole is train, calibration and test in this order, as far as there are such. All items are read
    once to hash them, and once more where they are not in the cache yet; never two at a time.
    """

    build: str
    args: dict[str, Any] = field(default_factory=dict)
    classes: Classes | None = None
    splits: dict[Literal["train", "calibration", "test"], dict[str, Any]] = field(default_factory=dict)

    def load(self, split: Split) -> Encoded:
        """Return the samples of a split. Raises DomainError, naming the first item that does not fit."""
        import numpy as np

        sets = {name: self._built(arguments) for name, arguments in self._calls(split).items()}
        classes = self._classes(list(sets.values()))
        items = [Item(one, place, f"{name}[{place}]") for name, one in sets.items() for place in range(len(one))]
        if not items:
            raise DomainError(f"{self.build}: the {split} split is empty")
        size, labels, digests = items[0].read()[0].shape[:2], [], []
        for item in items:
            image, label = item.read()
            if image.shape[:2] != size:
                expected, got = (f"{height} x {width}" for height, width in (size, image.shape[:2]))
                raise DomainError(f"{item}: expected {expected} pixels, like the first, got {got}")
            if not 0 <= label < len(classes):
                raise DomainError(f"{item}: expected a label from 0 to {len(classes) - 1}, got {label}")
            labels.append(label)
            digests.append(hashlib.sha256(image.tobytes()).digest())
        return Encoded(
            labels=np.array(labels, dtype=np.int64),
            classes=classes,
            names=tuple(map(str, items)),
            size=(int(size[0]), int(size[1])),
            read=_one_by_one(items, digests),
            identity=hashlib.sha256(b"".join(digests)).hexdigest(),
        )

    def _calls(self, split: Split) -> dict[str, dict[str, Any]]:
        """Return the arguments that give the data sets of a split, by the names of these."""
        splits: dict[str, dict[str, Any]] = dict(self.splits.items())
        if not splits:
            splits = {name: {"split": name} for name in SPLITS} if _takes_split(self._factory()) else {"test": {}}
        if split != "whole" and split not in splits:
            why = "has no argument 'split'" if not self.splits else f"has the splits {listing(splits)}"
            raise DomainError(f"{self.build}: no {split} split: it {why}; add splits.{split}, its arguments")
        chosen = [name for name in SPLITS if name in splits] if split == "whole" else [split]
        calls: dict[str, dict[str, Any]] = {}
        for name in chosen:
            arguments = {**self.args, **splits[name]}
            if arguments not in calls.values():  # data that serve two splits count once
                calls[f"{self.build}({name})" if len(splits) > 1 else self.build] = arguments
        return calls

    def _factory(self) -> Callable[..., Any]:
        try:
            return import_factory(self.build)
        except ConfigurationError as error:
            raise DomainError(str(error)) from error

    def _built(self, arguments: dict[str, Any]) -> Any:
        try:
            found = self._factory()(**arguments)
        except DomainError:
            raise
        except Exception as error:  # whatever the user's callable raises
            raise DomainError(f"{self.build} with {arguments} failed: {type(error).__name__}: {error}") from error
        if not (hasattr(found, "__len__") and hasattr(found, "__getitem__")):
            raise DomainError(
                f"{self.build}: expected a map-style data set, with a length and items, got {type(found).__name__}"
            )
        return found

    def _classes(self, sets: list[Any]) -> tuple[str, ...]:
        if self.classes is not None:
            return class_names(self.classes)
        named = [tuple(map(str, getattr(found, "classes", None) or ())) for found in sets]
        if not named[0]:
            raise DomainError(f"{self.build}: its data set has no classes; give their names as classes")
        if len(set(named)) > 1:
            raise DomainError(f"{self.build}: its splits differ in their classes: {named}")
        return named[0]


@dataclass(frozen=True)
class Item:
    """One item of a data set."""

    dataset: Any
    place: int
    name: str

    def __str__(self) -> str:
        return self.name

    def read(self) -> tuple[NDArray[np.uint8], int]:
        """Return its pixels (H, W, 3) and its label. Raises DomainError."""
        try:
            image, label = self.dataset[self.place]
        except Exception as error:  # whatever the user's data set raises
            raise DomainError(
                f"{self}: expected an image and its label, got {type(error).__name__}: {error}"
            ) from error
        try:
            return _pixels(image), _number(label)
        except ValueError as error:
            raise DomainError(f"{self}: {error}") from error


def _takes_split(factory: Callable[..., Any]) -> bool:
    try:
        return "split" in inspect.signature(factory).parameters
    except ValueError:  # some of those written in C do not say
        return False


def _one_by_one(items: list[Item], digests: list[bytes]) -> Callable[[int], NDArray[np.uint8]]:
    """Return what reads an item again, in one thread at a time, and refuses it where it is another than before."""
    lock = Lock()

    def read(place: int) -> NDArray[np.uint8]:
        with lock:
            image, _ = items[place].read()
        if hashlib.sha256(image.tobytes()).digest() != digests[place]:
            raise DomainError(f"{items[place]}: expected the same image each time, got another: draw nothing at random")
        return image

    return read


def _number(label: Any) -> int:
    try:
        return index(label)
    except TypeError:
        raise ValueError(f"expected a label, a whole number, got {label!r}") from None


def _pixels(image: Any) -> NDArray[np.uint8]:
    """Return an image as uint8 (H, W, 3). Raises ValueError where it is none."""
    import numpy as np
    from PIL import Image
    from torch import Tensor

    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):  # Pillow would clip them: mostly white
            raise ValueError(f"expected 8 bits a channel, got Pillow's mode {image.mode!r}")
        return np.array(image.convert("RGB"))
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    kind = f"{type(image).__name__} {array.dtype} {array.shape}"
    if array.ndim == 3 and isinstance(image, Tensor):
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(
            f"expected an image, a tensor ([C,] H, W) or an array (H, W[, C]) with C of 1 or 3, got {kind}"
        )
    if array.dtype.kind == "f":
        if not ((array >= 0) & (array <= 1)).all():
            low, high = array.min(), array.max()
            raise ValueError(f"expected values in [0, 1], not normalised, got {low:.3g} to {high:.3g}")
        array = np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"expected uint8, or floating-point values in [0, 1], got {kind}")
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
