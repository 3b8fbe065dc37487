"""What several attacks did to the same samples, as one outcome: the worst of them counts, sample by sample.

An artifact whose gradients are not its own is attacked thrice, and a report must tell all three: through its *twin*,
by examples *transferred* from its reference, and *gradient-free*. A twin that answers otherwise than the file leads
nowhere, and the file would look robust.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from robustgate.core.budget import Budget
from robustgate.core.components import Attack, Samples
from robustgate.core.errors import MeasurementError
from robustgate.engine.adversarial import Siege, Terms, classify, counted, curve, twin_details
from robustgate.engine.arena import Batch
from robustgate.engine.data import as_tensor
from robustgate.engine.examples import Examples
from robustgate.engine.ledger import Ledger
from robustgate.engine.measure import Outcome, Progress, batch_size
from robustgate.engine.measured import Measured, Worst
from robustgate.engine.subjects import CountedTarget, Subject
from robustgate.engine.subjects.file import ModuleSubject

Figure = Literal["twin", "transferred", "gradient_free"]
FIGURES: tuple[Figure, ...] = ("twin", "transferred", "gradient_free")


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
    reference: Measured,
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
    rows = siege.attacked[reference.has_example[siege.attacked]]
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
    return siege.outcome(attack)


def _stretched(budget: Budget, images: Tensor, found: Tensor) -> list[Tensor]:
    if budget.norm == "l0":
        return [budget.project(found, images)]
    scale = budget.eps / budget.size(found - images).clamp_min(1e-20)
    edge = images + (found - images) * scale[:, None, None, None]
    return [budget.project(points, images) for points in (found, edge)]


def unite(parts: Mapping[str, Measured], *, comparable: bool) -> Worst:
    """Return several attacks on N samples together: a sample has fallen that any of them felled.

    Where their norms are `comparable`, its norm is the smallest, and its prediction and its example are those of the
    attack that felled it nearest; else it has no norm, and they are those of the first that felled it. Queries and
    gradients add up. `details` holds the sums, not what each attack did alone.
    """
    outcomes = [part.outcome for part in parts.values()]
    labels = outcomes[0].labels
    fell = np.stack([~one.correct for one in outcomes])
    norms = np.stack([counted(one.norms) for one in outcomes])
    by = np.where(fell, norms, np.inf).argmin(axis=0) if comparable else fell.argmax(axis=0)
    predictions = np.take_along_axis(np.stack([one.predictions for one in outcomes]), by[None], axis=0)[0]
    attacked, fallen = int((norms[0] > 0).sum()), fell.any(axis=0) & (norms[0] > 0)
    queries, gradients = (
        np.sum([counted(getattr(one, cost)) for one in outcomes], axis=0) for cost in ("queries", "gradients")
    )
    details: dict[str, Any] = {"attacked": attacked, "fallen": int(fallen.sum())}
    if comparable:
        details["largest_norm"] = float(np.take_along_axis(norms, by[None], axis=0)[0][fallen].max(initial=0.0))
    details |= {"queries": int(queries.sum()), "gradients": int(gradients.sum())}
    outcome = Outcome(
        labels=labels,
        predictions=predictions,
        details=details,
        norms=norms.min(axis=0) if comparable else None,
        queries=queries,
        gradients=gradients,
    )
    return Worst(parts=parts, outcome=outcome, by=by)


def worst_figure(parts: Mapping[str, Measured], attack: Attack, missing: str | None) -> Worst:
    """Return the worst of an artifact's figures; `details` tells each of them, and why there is none of a twin."""
    worst = unite(parts, comparable=True)
    details = worst.outcome.details
    if "twin" in parts:
        details |= twin_details(parts["twin"].outcome)
    if attack.minimizes:
        details["curve"] = curve(counted(worst.outcome.norms), attack.eps)
    details["figures"] = {name: accuracy(parts[name]) if name in parts else None for name in FIGURES}
    if missing is not None:
        details["no_gradient"] = missing
    return worst


def worst_attack(parts: Mapping[str, Measured], *, comparable: bool) -> Worst:
    """Return the worst of several attacks; `details` tells the accuracy under each alone, and under all."""
    worst = unite(parts, comparable=comparable)
    worst.outcome.details["alone"] = {name: accuracy(part) for name, part in parts.items()}
    worst.outcome.details["together"] = float(worst.outcome.correct.mean())
    return worst


def accuracy(part: Measured) -> float:
    """Return the share of the samples that stand."""
    return float(part.outcome.correct.mean())
