"""One case measured: the outcome of every sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustgate.core.budget import Budget
from robustgate.core.components import Attack, Corruption, Samples
from robustgate.core.errors import MeasurementError
from robustgate.core.seeds import derive
from robustgate.engine.data import as_tensor
from robustgate.engine.draws import SampleDraws
from robustgate.engine.subjects import CountedTarget, Subject, check_logits

# Fixed, not a setting: a batch's size can change the last bit of a sum.
BATCH = 256
# What float32 arithmetic may add to a perturbation that lies on the edge of its budget.
TOLERANCE = 1e-5

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What happened to each of N samples, in the order of their split. `details` is JSON."""

    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    details: dict[str, Any]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which samples (N,) were classified right, and under attack stayed so."""
        return np.equal(self.predictions, self.labels)

    def save(self, path: Path) -> None:
        """Write the samples' outcomes as .npz of plain arrays."""
        np.savez_compressed(path, labels=self.labels, predictions=self.predictions)

    @staticmethod
    def load(path: Path, details: dict[str, Any]) -> Outcome:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return Outcome(labels=arrays["labels"], predictions=arrays["predictions"], details=details)


def measure_natural(
    subject: Subject,
    samples: Samples,
    name: str,
    progress: Progress,
    corruption: tuple[Corruption, int, int] | None = None,
) -> Outcome:
    """Classify every sample; under `corruption` = (component, severity, seed), each image corrupted first.

    The corruption of an image depends on the seed and on its place in the split alone, so that every variant sees
    the same corrupted images: the drop is paired. Raises MeasurementError.
    """
    predictions = []
    for start in range(0, len(samples), BATCH):
        images, labels = as_tensor(samples, slice(start, start + BATCH), subject.device)
        if corruption is not None:
            images = corrupted(images, *corruption, first=start, name=name)
        logits = check_logits(subject.logits(images), len(labels), len(samples.classes), name)
        predictions.append(logits.argmax(dim=1).cpu())
        progress(min(start + BATCH, len(samples)), len(samples))
    return Outcome(labels=samples.labels, predictions=torch.cat(predictions).numpy(), details={})


def corrupted(images: Tensor, component: Corruption, severity: int, seed: int, *, first: int, name: str) -> Tensor:
    """Return corrupted images, clipped to [0, 1] and truncated to 8 bits as the published benchmarks are stored."""
    seeds = [derive(seed, first + row) for row in range(len(images))]
    changed = component.apply(images.clone(), severity, SampleDraws(seeds, images.device))
    if changed.shape != images.shape or not changed.isfinite().all():
        raise MeasurementError(f"{name}: the corruption gave {tuple(changed.shape)}, NaN or infinity")
    return changed.clamp(0, 1).mul(255).floor().div(255)


def measure_adversarial(
    subject: Subject, samples: Samples, name: str, progress: Progress, attack: Attack, seed: int
) -> Outcome:
    """Attack every sample that is classified right, and count on the artifact itself.

    A sample counts as fallen when the artifact misclassifies what the attack found, projected to the budget and
    clipped to [0, 1]; its prediction is then the wrong one. Samples that are wrong without attack count as wrong and
    are not attacked. Raises MeasurementError.
    """
    target = CountedTarget(subject, len(samples.classes), name)
    clean = _clean_logits(target, samples)
    predictions = clean.argmax(dim=1)
    attacked = torch.from_numpy(np.flatnonzero(predictions.cpu().numpy() == samples.labels))
    progress(len(samples) - len(attacked), len(samples))
    largest = 0.0
    for start in range(0, len(attacked), BATCH):
        rows = attacked[start : start + BATCH]
        images, labels = as_tensor(samples, rows.numpy(), subject.device)
        found = _attacked(target, attack, images, labels, [derive(seed, int(row)) for row in rows])
        largest = max(largest, float(Budget(attack.norm, attack.eps).size(found - images).max()))
        predictions[rows] = target.logits(found).argmax(dim=1)
        progress(len(samples) - len(attacked) + start + len(rows), len(samples))
    details: dict[str, Any] = {
        "attacked": len(attacked),
        "fallen": int((predictions[attacked].cpu().numpy() != samples.labels[attacked.numpy()]).sum()),
        "largest_norm": largest,
        "queries": target.queries,
        "gradients": target.gradients,
    }
    if not subject.has_own_gradient and attack.needs_gradient:
        details |= _agreement(subject, samples, clean)
    return Outcome(labels=samples.labels, predictions=predictions.cpu().numpy(), details=details)


def _clean_logits(target: CountedTarget, samples: Samples) -> Tensor:
    device = target.subject.device
    starts = range(0, len(samples), BATCH)
    return torch.cat([target.logits(as_tensor(samples, slice(at, at + BATCH), device)[0]) for at in starts])


def _attacked(target: CountedTarget, attack: Attack, images: Tensor, labels: Tensor, seeds: list[int]) -> Tensor:
    """Run an attack that is not trusted: what it gives back is checked, projected and clipped."""
    found = attack.run(target, images.clone(), labels.clone(), SampleDraws(seeds, images.device)).detach()
    if found.shape != images.shape or not found.isfinite().all():
        raise MeasurementError(f"{target.name}: the attack gave {tuple(found.shape)}, NaN or infinity")
    projected = Budget(attack.norm, attack.eps).project(found, images)
    excess = float(Budget(attack.norm, attack.eps).size(projected - images).max()) - attack.eps
    if excess > TOLERANCE * max(1.0, attack.eps):
        raise MeasurementError(f"{target.name}: the perturbation exceeds eps by {excess:g}")
    return projected


def _agreement(subject: Subject, samples: Samples, clean: Tensor) -> dict[str, float]:
    """Return the share of clean samples on which twin and artifact agree, and their largest logit difference."""
    twin = subject.differentiable()
    agree, difference = 0, 0.0
    with torch.no_grad():
        for start in range(0, len(samples), BATCH):
            logits = twin(as_tensor(samples, slice(start, start + BATCH), subject.device)[0])
            theirs = clean[start : start + BATCH]
            agree += int((logits.argmax(dim=1) == theirs.argmax(dim=1)).sum())
            difference = max(difference, float((logits - theirs).abs().max()))
    return {"twin_agreement": agree / len(samples), "twin_largest_difference": difference}
