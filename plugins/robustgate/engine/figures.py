"""What several attacks did to the same samples, as one outcome: the worst of them counts, sample by sample.

An artifact whose gradients are not its own is attacked thrice, and a report must tell all three: through its *twin*,
by examples *transferred* from its reference, and *gradient-free*. A twin that answers otherwise than the file leads
nowhere, and the file would look robust.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustgate.core.budget import Budget
from robustgate.core.components import Attack, Samples
from robustgate.core.errors import MeasurementError
from robustgate.engine.adversarial import Siege, Terms, classify, curve
from robustgate.engine.arena import Batch
from robustgate.engine.data import as_tensor
from robustgate.engine.examples import Examples, read
from robustgate.engine.ledger import Ledger
from robustgate.engine.measure import BATCH, Outcome, Progress, batch_size
from robustgate.engine.subjects import CountedTarget, Subject
from robustgate.engine.subjects.file import ModuleSubject

Figure = Literal["twin", "transferred", "gradient_free"]
FIGURES: tuple[Figure, ...] = ("twin", "transferred", "gradient_free")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A measurement: the outcome of N samples, the folder that keeps it, and whether it was kept from before."""

    outcome: Outcome
    folder: Path
    cached: bool = False

    @property
    def places(self) -> NDArray[np.int64]:
        """Where each sample's example is among those kept (N,), -1 where there is none."""
        if self.outcome.examples is None:
            raise MeasurementError(f"{self.folder}: no adversarial examples were kept with this measurement")
        return self.outcome.examples

    def points(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the examples (n, 3, H, W) of samples `rows` (n,), all of which have one."""
        return torch.from_numpy(read(self.folder, self.places[rows]))


def missing_gradient(subject: Subject, images: Tensor) -> str | None:
    """Return why no gradient reaches `images` from an artifact, from its file or from a twin; None where one does.

    A network that torch itself runs is taken to have one: where none flows it is broken, and an attack on it says so.
    """
    try:
        module = subject.differentiable()
    except MeasurementError as error:  # raised where there is none, and for nothing else
        return str(error)
    if not isinstance(subject, ModuleSubject):
        return None
    with torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        logits = module(leaf)
        best = logits.topk(2, dim=1).values
        reason = _stopped((best[:, 0] - best[:, 1]).sum(), leaf)
    return None if reason is None else str(subject.without_gradient(reason))


def _stopped(value: Tensor, leaf: Tensor) -> str | None:
    if not value.requires_grad:
        return "none flow from the logits to the images"
    try:
        (flow,) = torch.autograd.grad(value, leaf, allow_unused=True)
    except RuntimeError as error:  # an operator that has no derivative
        return str(error).partition("\n")[0]
    if flow is None:
        return "none flow from the logits to the images"
    return None if bool((flow != 0).any()) else f"it is zero at each of {len(leaf)} images"


def measure_transferred(
    subject: Subject,
    samples: Samples,
    name: str,
    progress: Progress,
    attack: Attack,
    reference: Part,
    *,
    terms: Terms | None = None,
    examples: Examples | None = None,
) -> Outcome:
    """Ask the artifact about the reference's adversarial examples of the same attack, projected to the budget.

    Each is asked about as it was found and, since that is often just beyond the reference's own boundary, stretched to
    the edge of the budget (not in l0). Samples for which the reference has none stand. Raises MeasurementError.
    """
    target = CountedTarget(subject, len(samples.classes), name)
    siege = Siege(samples, classify(target, samples).argmax(dim=1), examples)
    budget, size = Budget(attack.norm, attack.eps), (terms.size if terms else None) or batch_size(samples)
    rows = siege.attacked[reference.places[siege.attacked] >= 0]
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        images, labels = as_tensor(samples, some, subject.device)
        ledger = Ledger(images, labels, budget, minimizes=attack.minimizes)
        for points in _stretched(budget, images, reference.points(some).to(subject.device)):
            left = (~ledger.fallen).nonzero()[:, 0]
            if len(left):
                ledger.enter(left, points[left], target.logits(points[left]).argmax(dim=1))
                ledger.queries[left.cpu()] += 1
        siege.take(Batch(numbers=torch.from_numpy(some), images=images, labels=labels, seeds=()), ledger)
        progress(min(start + size, len(rows)), len(rows))
    return siege.outcome(siege.details(attack))


def _stretched(budget: Budget, images: Tensor, found: Tensor) -> list[Tensor]:
    if budget.norm == "l0":
        return [budget.project(found, images)]
    scale = budget.eps / budget.size(found - images).clamp_min(1e-20)
    edge = images + (found - images) * scale[:, None, None, None]
    return [budget.project(points, images) for points in (found, edge)]


def unite(parts: Mapping[str, Part], *, comparable: bool, examples: Examples | None = None) -> Outcome:
    """Return the outcome of several attacks together: a sample has fallen that any of them felled.

    Where their norms are `comparable`, its norm is the smallest, and its prediction and its example are those of the
    attack that felled it nearest; else it has no norm, and they are those of the first that felled it. Queries and
    gradients add up. `details` holds the sums, not what each attack did alone.
    """
    outcomes = [part.outcome for part in parts.values()]
    labels = outcomes[0].labels
    fell = np.stack([~one.correct for one in outcomes])
    norms = np.stack([_counted(one.norms) for one in outcomes])
    by = np.where(fell, norms, np.inf).argmin(axis=0) if comparable else fell.argmax(axis=0)
    predictions = np.take_along_axis(np.stack([one.predictions for one in outcomes]), by[None], axis=0)[0]
    attacked, fallen = int((norms[0] > 0).sum()), fell.any(axis=0) & (norms[0] > 0)
    queries, gradients = (
        np.sum([_counted(getattr(one, cost)) for one in outcomes], axis=0) for cost in ("queries", "gradients")
    )
    details: dict[str, Any] = {"attacked": attacked, "fallen": int(fallen.sum())}
    if comparable:
        details["largest_norm"] = float(np.take_along_axis(norms, by[None], axis=0)[0][fallen].max(initial=0.0))
    details |= {"queries": int(queries.sum()), "gradients": int(gradients.sum())}
    if examples is not None:
        for place, part in enumerate(parts.values()):
            _copy(part, np.flatnonzero(fallen & (by == place)), examples)
    return Outcome(
        labels=labels,
        predictions=predictions,
        details=details,
        norms=norms.min(axis=0) if comparable else None,
        queries=queries,
        gradients=gradients,
        examples=examples.places if examples is not None else None,
    )


def worst_figure(
    parts: Mapping[str, Part], attack: Attack, missing: str | None, examples: Examples | None = None
) -> Outcome:
    """Return the worst of an artifact's figures; `details` tells each of them, and why there is none of a twin."""
    outcome = unite(parts, comparable=True, examples=examples)
    twin = parts["twin"].outcome.details if "twin" in parts else {}
    outcome.details.update({key: value for key, value in twin.items() if key.startswith("twin_")})
    if attack.minimizes:
        outcome.details["curve"] = curve(_counted(outcome.norms), attack.eps)
    outcome.details["figures"] = {name: accuracy(parts[name]) if name in parts else None for name in FIGURES}
    if missing is not None:
        outcome.details["no_gradient"] = missing
    return outcome


def worst_attack(parts: Mapping[str, Part], *, comparable: bool, examples: Examples | None = None) -> Outcome:
    """Return the worst of several attacks; `details` tells the accuracy under each alone, and under all."""
    outcome = unite(parts, comparable=comparable, examples=examples)
    outcome.details["alone"] = {name: accuracy(part) for name, part in parts.items()}
    outcome.details["together"] = float(outcome.correct.mean())
    return outcome


def accuracy(part: Part) -> float:
    """Return the share of the samples that stand."""
    return float(part.outcome.correct.mean())


def _copy(part: Part, rows: NDArray[np.int64], examples: Examples) -> None:
    rows = rows[part.places[rows] >= 0]
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        examples.add(some, part.points(some))


def _counted(figures: NDArray[Any] | None) -> NDArray[Any]:
    if figures is None:
        raise MeasurementError("an outcome without norms and costs is none of an attack")
    return figures
