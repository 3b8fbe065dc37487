"""Samples on their way to a network: loaded once, hashed, matched between the domains of a pair."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustgate.core.components import Domain, Samples, Split
from robustgate.core.errors import DomainError, listing


class Library:
    """The domains of a configuration; each split is loaded once in a process."""

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self.domains = domains
        self._loaded: dict[tuple[str, Split], tuple[Samples, str]] = {}

    def samples(self, domain: str, split: Split) -> Samples:
        """Return the samples of a split. Raises DomainError, which names the domain."""
        return self._entry(domain, split)[0]

    def digest(self, domain: str, split: Split) -> str:
        """Return a hash of the images, labels and classes of a split."""
        return self._entry(domain, split)[1]

    def target(self, source: str, target: str) -> Samples:
        """Return the whole of `target` with its labels as the classes of `source`, matched by name.

        Raises DomainError where the two domains do not have the same classes.
        """
        ours = self.samples(source, "test").classes
        samples = self.samples(target, "whole")
        if samples.classes == ours:
            return samples
        theirs = samples.classes
        if set(theirs) != set(ours) or len(theirs) != len(ours):
            raise DomainError(
                f"pair {source} → {target}: expected the {len(ours)} classes of {source} in {target}, "
                f"got {len(theirs)}; "
                f"only in {source}: {listing(set(ours) - set(theirs))}; "
                f"only in {target}: {listing(set(theirs) - set(ours))}"
            )
        index = torch.tensor([ours.index(name) for name in samples.classes]).numpy()
        return Samples(images=samples.images, labels=index[samples.labels], classes=ours, names=samples.names)

    def _entry(self, domain: str, split: Split) -> tuple[Samples, str]:
        if (domain, split) not in self._loaded:
            try:
                samples = self.domains[domain].load(split)
            except DomainError as error:
                raise DomainError(f"domains.{domain}: {error}") from error
            if not len(samples):
                raise DomainError(f"domains.{domain}: the {split} split is empty")
            if len(set(samples.classes)) != len(samples.classes):
                raise DomainError(f"domains.{domain}: two classes have one name: {listing(samples.classes)}")
            digest = hashlib.sha256(samples.images.tobytes())
            digest.update(samples.labels.tobytes())
            digest.update("\0".join([str(samples.images.shape), *samples.classes]).encode())
            self._loaded[domain, split] = samples, digest.hexdigest()
        return self._loaded[domain, split]


def as_tensor(samples: Samples, rows: slice | NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images float32 (N, 3, H, W) in [0, 1] and labels int64 (N,) of some rows."""
    images = torch.tensor(samples.images[rows]).permute(0, 3, 1, 2).contiguous().to(device).float().div(255)
    return images, torch.tensor(samples.labels[rows]).to(device)
