"""Samples on their way to a network: loaded once, hashed, matched between the domains of a pair."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustgate.config import Pair
from robustgate.core.components import Corrupted, Domain, Encoded, Samples, Split
from robustgate.core.errors import DomainError, listing
from robustgate.core.images import released
from robustgate.engine.decoding import decoded
from robustgate.engine.matching import Matching, match
from robustgate.engine.store import Store

# Images are hashed so many bytes at a time.
CHUNK_BYTES = 2**24

Part = Split | tuple[str, int]
"""A split of a domain, or of a stored benchmark a corruption and its severity."""


class Library:
    """The domains of a configuration; each split is loaded once in a process, and decoded once in a store.

    `pairs` says how the classes of domains are matched, where not simply by their names.
    """

    def __init__(self, domains: Mapping[str, Domain], store: Store, pairs: Iterable[Pair] = ()) -> None:
        self.domains = domains
        self.store = store
        self._pairs = {(pair.source, pair.target): pair for pair in pairs}
        self._loaded: dict[tuple[str, Part], tuple[Samples | Encoded, str]] = {}
        self._matched: dict[tuple[str, str, Part], Matching] = {}

    def samples(self, domain: str, part: Part) -> Samples:
        """Return the samples of a part. Raises DomainError, which names the domain."""
        found, digest = self._entry(domain, part)
        if isinstance(found, Encoded):
            try:
                images = decoded(found, self.store)
            except DomainError as error:
                raise DomainError(f"domains.{domain}: {error}") from error
            found = Samples(images=images, labels=found.labels, classes=found.classes, names=found.names)
            self._loaded[domain, part] = found, digest
        return found

    def digest(self, domain: str, part: Part) -> str:
        """Return a hash of the images, labels and classes of a part; nothing is decoded for it."""
        return self._entry(domain, part)[1]

    def size(self, domain: str, part: Part) -> int:
        """Return how many samples a part has; nothing is decoded for it."""
        return len(self._entry(domain, part)[0])

    def target_size(self, source: str, target: str, part: Part = "whole") -> int:
        """Return how many samples `target` gives."""
        return len(self._matching(source, target, part).rows)

    def target(self, source: str, target: str, part: Part = "whole") -> Samples:
        """Return a part of `target` with its labels as the classes of `source`, matched by name.

        Raises DomainError where the two domains do not have the same classes, and the pair does not say what then.
        """
        matching = self._matching(source, target, part)
        return matching.apply(self.samples(target, part))

    def target_digest(self, source: str, target: str, part: Part = "whole") -> str:
        """Return a hash of what `target` gives."""
        matching = self._matching(source, target, part)
        digest = hashlib.sha256(self.digest(target, part).encode())
        for array in (matching.rows, matching.labels):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def target_details(self, source: str, target: str, part: Part = "whole") -> dict[str, Any]:
        """Return what there is to tell of how the two domains' classes were matched, as JSON."""
        return self._matching(source, target, part).details

    def _matching(self, source: str, target: str, part: Part) -> Matching:
        key = source, target, part
        if key not in self._matched:
            ours, theirs = self._entry(source, "test")[0], self._entry(target, part)[0]
            pair = self._pairs.get((source, target), Pair(source=source, target=target))
            self._matched[key] = match(pair, ours.classes, theirs.classes, theirs.labels)
        return self._matched[key]

    def _entry(self, domain: str, part: Part) -> tuple[Samples | Encoded, str]:
        if (domain, part) not in self._loaded:
            try:
                found = self._load(domain, part)
                _check(found, f"the {part} split" if isinstance(part, str) else f"{part[0]}, severity {part[1]}")
            except DomainError as error:
                raise DomainError(f"domains.{domain}: {error}") from error
            if isinstance(found, Samples) and (images := released(found.images)) is not found.images:
                found = replace(found, images=images)
            self._loaded[domain, part] = found, _digest(found)
        return self._loaded[domain, part]

    def _load(self, domain: str, part: Part) -> Samples | Encoded:
        if isinstance(part, str):
            return self.domains[domain].load(part)
        return cast("Corrupted", self.domains[domain]).corrupted(*part)


def as_levels(samples: Samples, rows: slice | NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images uint8 (N, 3, H, W), which lie in memory as (N, H, W, 3), and labels int64 (N,) of some rows."""
    images = torch.tensor(samples.images[rows]).to(device).permute(0, 3, 1, 2)
    return images, torch.tensor(samples.labels[rows]).to(device)


def as_tensor(samples: Samples, rows: slice | NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images float32 (N, 3, H, W) in [0, 1] and labels int64 (N,) of some rows."""
    images, labels = as_levels(samples, rows, device)
    return images.contiguous().float().div_(255), labels


def _check(found: Samples | Encoded, part: str) -> None:
    """Raise DomainError where a domain does not give what it should, whoever wrote it."""
    count = len(found.labels)
    if not count:
        raise DomainError(f"{part} is empty")
    if len(set(found.classes)) != len(found.classes):
        raise DomainError(f"two classes have one name: {listing(found.classes)}")
    if len(found.names) != count:
        raise DomainError(f"{part}: expected a name for each of {count} labels, got {len(found.names)}")
    if isinstance(found, Samples):
        dtype, shape = found.images.dtype, found.images.shape
        if dtype != np.uint8 or len(shape) != 4 or shape[0] != count or shape[3] != 3:
            raise DomainError(f"{part}: expected images uint8 ({count}, H, W, 3), got {dtype} {shape}")
    strange = np.flatnonzero((found.labels < 0) | (found.labels >= len(found.classes)))
    if len(strange):
        row = strange[0]
        raise DomainError(
            f"{found.names[row]}: expected a label in 0 to {len(found.classes) - 1}, one for each class, "
            f"got {found.labels[row]}"
        )


def _digest(found: Samples | Encoded) -> str:
    digest = hashlib.sha256()
    if isinstance(found, Encoded):
        shape: tuple[int, ...] = (len(found), *found.size, 3)
        digest.update(found.identity.encode())
    else:
        shape = found.images.shape
        step = max(1, CHUNK_BYTES // max(1, math.prod(shape[1:])))
        for start in range(0, len(found), step):
            digest.update(found.images[start : start + step].tobytes())
    digest.update(found.labels.tobytes())
    digest.update("\0".join([str(shape), *found.classes]).encode())
    return digest.hexdigest()
