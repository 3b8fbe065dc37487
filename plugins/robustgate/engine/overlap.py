"""Images that are learned from and judged: of what a network has seen, it proves nothing that it knows it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from contextlib import suppress
from math import prod

from robustgate.core.components import Samples, Split
from robustgate.core.errors import DomainError
from robustgate.core.records import Variant
from robustgate.engine.data import CHUNK_BYTES, Library
from robustgate.engine.plan import Plan
from robustgate.reports.figures import percent

MOST_SHARED = 0.01


class Overlap:
    """Compares the images of splits, pixel by pixel; each split is hashed once."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._known: dict[tuple[str, Split], list[bytes]] = {}

    def check(self, plan: Plan, variants: Collection[Variant]) -> None:
        """Raise DomainError where more than a hundredth of the images that judge a variant are among those it learns.

        It learns from its source's train split, from the calibration split where there is one, by which things are
        chosen, and from what its recipes look at of other domains.
        """
        configuration = plan.configuration
        for variant in variants:
            source = variant.source
            learned = {f"the train split of {source}": self._hashes(source, "train")}
            with suppress(DomainError):  # a domain need not have one
                learned[f"the calibration split of {source}"] = self._hashes(source, "calibration")
            for domain in (name for step in plan.chains[variant.compression] for name in step.domains):
                learned[f"the train split of {domain}"] = self._hashes(domain, "train")
            judged: set[tuple[str, Split]] = {(source, "test")}
            targets = [target for one, target in configuration.pairs if one == source]
            judged |= {(target, configuration.judging_split(target)) for target in targets}
            for domain, split in sorted(judged):
                self._compare(domain, split, learned)

    def _compare(self, domain: str, split: Split, learned: dict[str, list[bytes]]) -> None:
        ours = self._hashes(domain, split)
        for place, theirs in learned.items():
            known = set(theirs)
            shared = sum(one in known for one in ours)
            if shared > MOST_SHARED * len(ours):
                which = f"its {split} split" if split == "test" else "all of it"
                raise DomainError(
                    f"domains.{domain}: {shared:,} of the {len(ours):,} images that judge ({which}) are in {place} "
                    f"too, from which a recipe learns: expected at most {percent(MOST_SHARED)}; what was learned by "
                    "heart is no evidence, keep the splits apart"
                )

    def _hashes(self, domain: str, split: Split) -> list[bytes]:
        if (domain, split) not in self._known:
            self._known[domain, split] = hashes(self.library.samples(domain, split))
        return self._known[domain, split]


def hashes(samples: Samples) -> list[bytes]:
    """Return a hash of the size and the pixels of each image."""
    shape = samples.images.shape[1:]
    begun = hashlib.blake2b(str(tuple(shape)).encode(), digest_size=16)
    found = []
    step = max(1, CHUNK_BYTES // max(1, prod(shape)))
    for start in range(0, len(samples), step):
        for image in samples.images[start : start + step]:
            one = begun.copy()
            one.update(image.tobytes())
            found.append(one.digest())
    return found
