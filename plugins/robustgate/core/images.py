"""Images that need not fit in memory: parts of mapped files, read where rows are asked for.

`Samples.images` may be any of them; `take` and `join` make samples of samples without reading an image.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robustgate.core.components import Images, Samples
from robustgate.core.errors import DomainError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = int | slice | Sequence[int] | NDArray[np.int64]


class Mapped:
    """Images in a mapped file, whose pages are let go of as soon as they are copied.

    Pages that stay would count as resident memory: after one pass over a domain, the whole of it.
    """

    def __init__(self, images: NDArray[np.uint8], mapping: mmap.mmap) -> None:
        self._images, self._mapping = images, mapping
        self.shape, self.dtype = images.shape, images.dtype

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: Rows, /) -> NDArray[np.uint8]:
        import numpy as np

        copied = np.array(self._images[rows])
        if hasattr(mmap, "MADV_DONTNEED"):  # elsewhere the system takes them back itself
            self._mapping.madvise(mmap.MADV_DONTNEED)
        return copied


class Chosen:
    """Some rows of images, as if they were all."""

    def __init__(self, images: Images, rows: NDArray[np.int64]) -> None:
        self._images, self._rows = released(images), rows
        self.shape, self.dtype = (len(rows), *images.shape[1:]), images.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Rows, /) -> NDArray[np.uint8]:
        return self._images[self._rows[rows]]


class Joined:
    """Images of one size, one after the other, as if they were in one place."""

    def __init__(self, parts: Sequence[Images]) -> None:
        import numpy as np

        self._parts = [released(part) for part in parts]
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape, self.dtype = (int(self._ends[-1]), *parts[0].shape[1:]), parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows, /) -> NDArray[np.uint8]:
        import numpy as np

        index = np.arange(len(self))[rows]
        which = np.searchsorted(self._ends, index, side="right")
        found = np.empty((*np.shape(index), *self.shape[1:]), dtype=self.dtype)
        for number, part in enumerate(self._parts):
            here = which == number
            if here.any():
                found[here] = part[index[here] - self._ends[number] + len(part)]
        return found


def released(images: Images) -> Images:
    """Return images so that a mapped file's are let go of; any others as they are."""
    import numpy as np

    owner: Any = images
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return Mapped(np.asarray(images), owner) if isinstance(owner, mmap.mmap) else images


def take(samples: Samples, rows: NDArray[np.int64]) -> Samples:
    """Return some of the samples, in the order of `rows`."""
    return Samples(
        images=Chosen(samples.images, rows),
        labels=samples.labels[rows],
        classes=samples.classes,
        names=tuple(samples.names[row] for row in rows),
    )


def join(parts: Sequence[Samples], key: str) -> Samples:
    """Return the samples of several parts, one after the other; they have the same classes.

    Raises DomainError where their images differ in size; `key` names the files of the parts in the configuration.
    """
    import numpy as np

    sizes = [part.images.shape[1:3] for part in parts]
    if len(set(sizes)) > 1:
        raise DomainError(f"{key}: the files of one domain differ in the size of their images: {sizes}")
    if len(parts) == 1:
        return parts[0]
    return Samples(
        images=Joined([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        classes=parts[0].classes,
        names=tuple(name for part in parts for name in part.names),
    )
