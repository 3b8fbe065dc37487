"""A variant's outcomes beside its reference's, as shares of the samples, measured and resampled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from robustgate.core.records import Shift
from robustgate.core.seeds import derive
from robustgate.statistics.bootstrap import RESAMPLES, Resampling


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """What a variant and its reference predict for the samples (N,) of one shift, and what they are."""

    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    reference: NDArray[np.int64]

    @cached_property
    def columns(self) -> NDArray[np.bool_]:
        """(N, 5): the variant is right; the reference; it alone; the variant alone; both are wrong, in two ways."""
        right, reference = self.predictions == self.labels, self.reference == self.labels
        apart = ~right & ~reference & (self.predictions != self.reference)
        return np.stack([right, reference, reference & ~right, right & ~reference, apart], axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredShares:
    """The `Shares` of core/components.py, of a variant that was measured under some shifts.

    Shifts of the same samples are resampled alike: the test split of the source domain, clean and corrupted; a target
    domain; a stored benchmark, which may hold other images than that split. `accuracies` are those (M,) of the
    uncompressed models of the source domain, where a rule asks for them.
    """

    classes: tuple[str, ...]
    predicted: Mapping[Shift, Predicted]
    accuracies: Mapping[Shift, NDArray[np.float64]]
    seed: int
    resamples: int = RESAMPLES

    def sizes(self, shift: Shift) -> NDArray[np.int64]:
        """Return how many samples of each class (K,) were measured."""
        return np.bincount(self.predicted[shift].labels, minlength=len(self.classes))

    def right(self, shift: Shift) -> NDArray[np.float64]:
        """Return the variant's accuracy (R,)."""
        return self._shares[shift][:, 0]

    def reference(self, shift: Shift) -> NDArray[np.float64]:
        """Return the reference's accuracy (R,)."""
        return self._shares[shift][:, 1]

    def changed(self, shift: Shift) -> NDArray[np.float64]:
        """Return the shares (R, 3) that only the reference has right, only the variant, and both wrong otherwise."""
        return self._shares[shift][:, 2:]

    def by_class(self, shift: Shift) -> NDArray[np.float64]:
        """Return the variant's accuracy on each class (R, K)."""
        one = self.predicted[shift]
        return self._resampling(shift).group_means(one.columns[:, 0], one.labels, len(self.classes))

    def standards(self, shift: Shift) -> NDArray[np.float64]:
        """Return the accuracies (M,) of the uncompressed models of the source domain."""
        return self.accuracies[shift]

    @cached_property
    def _shares(self) -> dict[Shift, NDArray[np.float64]]:
        splits: dict[int, list[Shift]] = {}
        for shift in self.predicted:
            splits.setdefault(self._stream(shift), []).append(shift)
        shares: dict[Shift, NDArray[np.float64]] = {}
        for shifts in splits.values():
            columns = np.concatenate([self.predicted[shift].columns for shift in shifts], axis=1)
            means = self._resampling(shifts[0]).means(columns)
            shares.update(zip(shifts, np.split(means, len(shifts), axis=1), strict=True))
        return shares

    def _resampling(self, shift: Shift) -> Resampling:
        return Resampling(n=len(self.predicted[shift].labels), seed=self._stream(shift), resamples=self.resamples)

    def _stream(self, shift: Shift) -> int:
        """Return the seed of the resamples of a shift's samples, which their labels tell from those of others."""
        labels = hashlib.sha256(self.predicted[shift].labels.tobytes()).hexdigest()
        return derive(self.seed, "test" if shift.target is None else f"target {shift.target}", labels)
