"""One case measured: the outcome of every sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustgate.core.components import Corruption, Samples
from robustgate.core.errors import MeasurementError
from robustgate.core.seeds import derive
from robustgate.engine.data import as_levels
from robustgate.engine.draws import SampleDraws
from robustgate.engine.subjects import Subject, check_logits

# Larger ones are no faster: what they hold no longer fits a processor's caches.
BATCH = 128
# A batch of larger images holds fewer: what they need in a network's memory grows with their pixels.
PIXELS = 32 * 224 * 224
# A corruption passes over its images many times: so many pixels of them stay in a processor's cache meanwhile.
CACHED_PIXELS = 4 * 224 * 224

ARRAYS = ("labels", "predictions", "norms", "queries", "gradients", "projected", "twin", "examples")


class Progress(Protocol):
    """What hears how far a measurement is."""

    def __call__(self, done: int, total: int, right: int | None = None, /) -> None:
        """Hear that `done` of `total` samples are measured, and how many of those came out right, where it is known."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What happened to each of N samples. `details` is JSON, and says nothing of single samples.

    Under attack: `norms` (N,) of each sample's smallest adversarial perturbation found, infinite where none was, zero
    where the sample was wrong already; `queries` and `gradients` (N,) spent on it; `projected` (N,) says whether only
    the projection to the budget felled it; `examples` (N,) its place in examples.npy, -1 where none is kept. `twin`
    (N,) is how far the logits of an artifact's twin are from its own on the clean sample, negative where the two
    predict different classes.
    """

    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    details: dict[str, Any]
    norms: NDArray[np.float32] | None = None
    queries: NDArray[np.int64] | None = None
    gradients: NDArray[np.int64] | None = None
    projected: NDArray[np.bool_] | None = None
    twin: NDArray[np.float32] | None = None
    examples: NDArray[np.int64] | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which samples (N,) were classified right, and under attack stayed so."""
        return np.equal(self.predictions, self.labels)

    @property
    def arrays(self) -> dict[str, Any]:
        """The arrays that there are, by name."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        return {name: array for name, array in arrays.items() if array is not None}

    def take(self, rows: slice | NDArray[np.int64]) -> Outcome:
        """Return the outcome of some of the samples, in the order of `rows`."""
        return Outcome(**{name: array[rows] for name, array in self.arrays.items()}, details=self.details)

    @staticmethod
    def join(outcomes: Sequence[Outcome]) -> Outcome:
        """Return the outcome of several samples after one another; `details` are those of the first."""
        arrays = [one.arrays for one in outcomes]
        joined = {name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]}
        return Outcome(**joined, details=outcomes[0].details)

    def save(self, path: Path) -> None:
        """Write the samples' outcomes as .npz of plain arrays."""
        np.savez_compressed(path, **self.arrays)

    @staticmethod
    def load(path: Path, details: dict[str, Any]) -> Outcome:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return Outcome(**{name: arrays[name] for name in ARRAYS if name in arrays}, details=details)


def batch_size(samples: Samples) -> int:
    """Return how many images go through a network at once: 128, or fewer large ones."""
    height, width = samples.images.shape[1:3]
    return max(1, min(BATCH, PIXELS // (int(height) * int(width))))


def measure_natural(
    subject: Subject,
    samples: Samples,
    name: str,
    progress: Progress,
    corruption: tuple[Corruption, int, int] | None = None,
    numbers: NDArray[np.int64] | None = None,
) -> Outcome:
    """Classify every sample; under `corruption` = (component, severity, seed), each image corrupted first.

    The corruption of an image depends on the seed and on its place in the split alone, so that every variant sees
    the same corrupted images: the drop is paired. `numbers` (N,) are those places, where the samples are not the
    whole split. Raises MeasurementError.
    """
    numbers = np.arange(len(samples)) if numbers is None else numbers
    predictions, size, right = [], batch_size(samples), 0
    for start in range(0, len(samples), size):
        images, labels = as_levels(samples, slice(start, start + size), subject.device)
        if corruption is not None:
            images = corrupted(images, *corruption, numbers=numbers[start : start + size], name=name)
        images = images.contiguous().float().div_(255)
        logits = check_logits(subject.logits(images), len(labels), len(samples.classes), name)
        predictions.append(logits.argmax(dim=1).cpu())
        right += int((predictions[-1].numpy() == samples.labels[start : start + size]).sum())
        progress(min(start + size, len(samples)), len(samples), right)
    return Outcome(labels=samples.labels, predictions=torch.cat(predictions).numpy(), details={})


def corrupted(
    levels: Tensor, component: Corruption, severity: int, seed: int, *, numbers: NDArray[np.int64], name: str
) -> Tensor:
    """Return corrupted images, clipped to [0, 1] and truncated to 8 bits as the published benchmarks are stored.

    `levels` and the result are uint8 (N, 3, H, W) that lie in memory as (N, H, W, 3). `numbers` (N,) say which sample
    of its split each is, and so which stream it draws from. Raises MeasurementError where a corruption gives another
    shape, NaN or infinity.
    """
    height, width = levels.shape[-2:]
    size = max(1, CACHED_PIXELS // (height * width))
    pixels = torch.empty_like(levels.permute(0, 2, 3, 1))
    for start in range(0, len(levels), size):
        rows = slice(start, start + size)
        part, place = levels[rows], pixels[rows]
        draws = SampleDraws([derive(seed, int(number)) for number in numbers[rows]], levels.device)
        if hasattr(component, "apply_to_levels"):
            changed = component.apply_to_levels(part, severity, draws)
            _check(changed, part, name, is_finite=changed.dtype == torch.uint8)
            place.copy_(changed.permute(0, 2, 3, 1))
        else:
            changed = component.apply(part.contiguous().float().div_(255), severity, draws)
            # One sum instead of a test of every value: it is not finite where one of them is not.
            _check(changed, part, name, is_finite=bool(changed.sum().isfinite()))
            # By way of 16 bits, which is four times as fast; both truncate.
            truncated = changed.clamp(0, 1).mul_(255).to(torch.int16).to(torch.uint8)
            torch.stack(truncated.unbind(1), dim=-1, out=place)  # three times as fast as a permuted copy
    return pixels.permute(0, 3, 1, 2)


def _check(changed: Tensor, before: Tensor, name: str, *, is_finite: bool) -> None:
    if changed.shape != before.shape or not is_finite:
        raise MeasurementError(f"{name}: the corruption gave {tuple(changed.shape)}, NaN or infinity")
