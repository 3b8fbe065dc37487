"""One attack on one artifact: which samples fall, how near, and at what cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustgate.core.components import Attack, Samples
from robustgate.core.errors import MeasurementError
from robustgate.core.seeds import derive
from robustgate.engine.arena import Arena, Batch, Caps
from robustgate.engine.data import as_tensor
from robustgate.engine.examples import Examples
from robustgate.engine.ledger import Ledger
from robustgate.engine.measure import Outcome, Progress, batch_size
from robustgate.engine.subjects import CountedTarget, Subject

# Walks that share a batch: while one loses samples, the next begins.
WALKS = 4
# Points of the curve of accuracy over the budget.
POINTS = 33


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How attacks are run, beside what they are: images at once, caps, and whether gradients may be in bfloat16."""

    size: int | None = None
    caps: Caps = field(default_factory=Caps)
    mixed: bool = False


class Siege:
    """What an attack did to N samples.

    `predictions` (N,) are the artifact's at the best point found, `norms` (N,) the size of that point's perturbation:
    infinite where none was found, zero where the sample was wrong without attack. `queries` and `gradients` (N,) are
    what was spent; `projected` (N,) are the samples that only the projection of their point to eps felled. The points
    of what fell go to `examples`.
    """

    def __init__(self, samples: Samples, clean: Tensor, examples: Examples | None = None) -> None:
        self.samples = samples
        self.examples = examples
        self.predictions = clean.cpu().numpy().copy()
        self.attacked = np.flatnonzero(self.predictions == samples.labels)
        self.norms = np.zeros(len(samples), np.float32)
        self.norms[self.attacked] = np.inf
        self.queries, self.gradients = np.zeros(len(samples), np.int64), np.zeros(len(samples), np.int64)
        self.projected = np.zeros(len(samples), np.bool_)

    def take(self, batch: Batch, ledger: Ledger) -> None:
        """Take over what a walk has found."""
        rows = batch.numbers.numpy()
        # NumPy would take a tensor of one truth value for a number.
        fell = ledger.fallen.cpu().numpy()
        self.predictions[rows[fell]] = ledger.predictions[ledger.fallen].cpu().numpy()
        self.norms[rows] = ledger.norms.cpu().numpy()
        self.queries[rows], self.gradients[rows] = ledger.queries.numpy(), ledger.gradients.numpy()
        self.projected[rows[ledger.felled_by_projection.cpu().numpy()]] = True
        if self.examples is not None and fell.any():
            self.examples.add(rows[fell], ledger.points[ledger.fallen])

    def outcome(self, attack: Attack, twin: NDArray[np.float32] | None = None) -> Outcome:
        """Return the outcome of every sample; `twin` (N,) as in `Outcome`."""
        outcome = Outcome(
            labels=self.samples.labels,
            predictions=self.predictions,
            details={},
            norms=self.norms,
            queries=self.queries,
            gradients=self.gradients,
            projected=self.projected,
            twin=twin,
            examples=self.examples.places if self.examples is not None else None,
        )
        return replace(outcome, details=siege_details(outcome, attack))


def lay_siege(
    target: CountedTarget,
    samples: Samples,
    clean: Tensor,
    attack: Attack,
    seed: int,
    *,
    terms: Terms,
    progress: Progress,
    examples: Examples | None = None,
    numbers: NDArray[np.int64] | None = None,
) -> Siege:
    """Attack every sample that is classified right; `clean` (N,) is what the artifact says to all as they are.

    Each sample draws from a stream of its own, by its place in the split: `numbers` (N,), where the samples are not
    the whole split.

    A sample has fallen when the artifact misclassifies a point within the budget that was asked about at any step; of
    a minimum-norm attack, when the smallest norm found is at most eps, or that point projected to the budget still
    fools. Raises MeasurementError.
    """
    siege = Siege(samples, clean, examples)
    numbers = np.arange(len(samples)) if numbers is None else numbers
    size = terms.size or batch_size(samples)
    part, done, right = max(1, size // WALKS), len(samples) - len(siege.attacked), 0

    def batches() -> Iterator[Batch]:
        for start in range(0, len(siege.attacked), part):
            rows = siege.attacked[start : start + part]
            images, labels = as_tensor(samples, rows, target.subject.device)
            seeds = [derive(seed, int(number)) for number in numbers[rows]]
            yield Batch(numbers=torch.from_numpy(rows), images=images, labels=labels, seeds=seeds)

    def finished(batch: Batch, ledger: Ledger) -> None:
        nonlocal done, right
        siege.take(batch, ledger)
        done += len(batch.labels)
        right += int((~ledger.fallen).sum())
        progress(done, len(samples), right)

    progress(done, len(samples), right)
    Arena(target, attack, size=size, caps=terms.caps).fight(batches(), finished)
    return siege


def measure_adversarial(
    subject: Subject,
    samples: Samples,
    name: str,
    progress: Progress,
    attack: Attack,
    seed: int,
    *,
    terms: Terms | None = None,
    examples: Examples | None = None,
    numbers: NDArray[np.int64] | None = None,
) -> Outcome:
    """Attack every sample that is classified right, and count on the artifact itself; see `lay_siege`.

    Samples that are wrong without attack count as wrong and are not attacked. Raises MeasurementError.
    """
    terms = terms or Terms()
    target = CountedTarget(subject, len(samples.classes), name, mixed=terms.mixed)
    clean = classify(target, samples)
    predictions = clean.argmax(dim=1)
    siege = lay_siege(
        target,
        samples,
        predictions,
        attack,
        seed,
        terms=terms,
        progress=progress,
        examples=examples,
        numbers=numbers,
    )
    by_twin = not subject.has_own_gradient and attack.needs_gradient
    return siege.outcome(attack, twin_distance(subject, samples, clean) if by_twin else None)


def siege_details(outcome: Outcome, attack: Attack) -> dict[str, Any]:
    """Return what an attack did to N samples in figures, as JSON."""
    norms, queries, gradients, projected = (
        counted(array) for array in (outcome.norms, outcome.queries, outcome.gradients, outcome.projected)
    )
    attacked = norms > 0
    fallen = attacked & ~outcome.correct
    found: dict[str, Any] = {
        "attacked": int(attacked.sum()),
        "fallen": int(fallen.sum()),
        "largest_norm": float(norms[fallen].max(initial=0.0)),
        "queries": int(queries.sum()),
        "gradients": int(gradients.sum()),
    }
    if attack.minimizes:
        found["fallen_by_norm"] = int((fallen & ~projected).sum())
        found["curve"] = curve(norms, attack.eps)
    return found | twin_details(outcome)


def counted(figures: NDArray[Any] | None) -> NDArray[Any]:
    """Return an array of an attack's outcome. Raises MeasurementError where there is none."""
    if figures is None:
        raise MeasurementError("an outcome without norms and costs is none of an attack")
    return figures


def classify(target: CountedTarget, samples: Samples) -> Tensor:
    """Return the artifact's logits (N, classes) of all samples."""
    size, device = batch_size(samples), target.subject.device
    starts = range(0, len(samples), size)
    return torch.cat([target.logits(as_tensor(samples, slice(at, at + size), device)[0]) for at in starts])


def curve(norms: np.ndarray[Any, np.dtype[np.float32]], eps: float) -> dict[str, list[float]]:
    """Return accuracy over the budget: at eps, and at budgets where the share of samples that stand changes evenly.

    `norms` (N,) are each sample's smallest: at a budget those stand whose norm is above it.
    """
    finite = np.sort(norms[np.isfinite(norms) & (norms > 0)])
    places = np.linspace(0, len(finite) - 1, min(POINTS, len(finite))).astype(int)
    budgets = sorted({0.0, eps, *finite[places].tolist()})
    return {"eps": budgets, "accuracy": [float((norms > budget).mean()) for budget in budgets]}


def twin_distance(subject: Subject, samples: Samples, clean: Tensor) -> NDArray[np.float32]:
    """Return how far (N,) the twin's logits are from the artifact's, `clean` (N, classes), on each clean sample.

    The largest difference over the classes, and negative where the two predict different ones.
    """
    twin, size = subject.differentiable(), batch_size(samples)
    found = []
    with torch.no_grad():
        for start in range(0, len(samples), size):
            logits = twin(as_tensor(samples, slice(start, start + size), subject.device)[0])
            theirs = clean[start : start + size]
            # Where both are equal they agree: zero has no sign to tell otherwise.
            sign = 1 - 2 * (logits.argmax(dim=1) != theirs.argmax(dim=1)).float()
            found.append((sign * (logits - theirs).abs().amax(dim=1)).float().cpu())
    return torch.cat(found).numpy()


def twin_details(outcome: Outcome) -> dict[str, float]:
    """Return the share of clean samples on which twin and artifact agree, and their largest logit difference."""
    if outcome.twin is None:
        return {}
    return {
        "twin_agreement": float((outcome.twin >= 0).mean()),
        "twin_largest_difference": float(np.abs(outcome.twin).max()),
    }
