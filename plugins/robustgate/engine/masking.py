"""Is a robust accuracy true, or do the gradients only mislead? Six checks, by walks on the same samples.

A model can stand under attack because it is robust, or because its gradients vanish, shatter or point elsewhere. The
signs of the second are those of Athalye, Carlini and Wagner (2018, arXiv 1802.00420, section 3.1) and of Carlini et
al. (2019, arXiv 1902.06705). Here they are counted; `judge_masking` says what is too much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from robustgate.attacks.pgd import Pgd
from robustgate.attacks.square import Square
from robustgate.config import Masking
from robustgate.core.components import Attack, Samples
from robustgate.core.errors import MeasurementError
from robustgate.core.images import take
from robustgate.core.losses import cross_entropy
from robustgate.core.records import Shift
from robustgate.core.seeds import derive
from robustgate.engine.adversarial import Siege, Terms, lay_siege
from robustgate.engine.data import as_tensor
from robustgate.engine.measure import Outcome, Progress, batch_size
from robustgate.engine.rescaled import Rescaled
from robustgate.engine.subjects import CountedTarget, Subject
from robustgate.statistics.paired import PairedCounts

Mask = NDArray[np.bool_]

# The budgets, in units of eps, over which accuracy must fall.
FACTORS = (0.25, 0.5, 1.0, 2.0, 8.0)
# Those at which no attack without gradients may do better. A gradient can mislead near the images alone, but a few
# hundred queries show little of it there; far off they show much, and a sound gradient leaves nothing to them.
GRADIENT_FREE = (1.0, 8.0)
# How many times as many steps must not help the model.
MORE = 4
# Over all its steps, how far the walk without a bound may go, in units of its budget.
EVEN = 1.25
# The walks that a trial takes at least: beside these, DLR, without a bound, and more steps.
WALKS = len(FACTORS) + len(GRADIENT_FREE) + 3


@dataclass(frozen=True, kw_only=True)
class MaskingChecks:
    """The checks of one norm at the largest budget that is configured for it: there a masked model stands falsely."""

    norm: Literal["linf", "l2"]
    eps: float
    settings: Masking

    @staticmethod
    def of(shift: Shift, settings: Masking) -> MaskingChecks:
        """Return the checks of a planned shift."""
        if shift.norm not in ("linf", "l2") or shift.eps is None:
            raise ValueError(f"checks need norm 'linf' or 'l2' and an eps, got {shift.norm!r} and {shift.eps}")
        return MaskingChecks(norm=cast(Any, shift.norm), eps=shift.eps, settings=settings)

    def budget(self, factor: float) -> float:
        """Return `factor` times eps; in linf at most 1, which holds every image."""
        return min(1.0, factor * self.eps) if self.norm == "linf" else factor * self.eps

    def pgd(self, **changes: Any) -> Pgd:
        """Return PGD on the cross-entropy at eps, but for `changes`."""
        return replace(Pgd(eps=self.eps, norm=self.norm, steps=self.settings.steps), **changes)

    def unbounded(self, values: int) -> Pgd:
        """Return PGD with a budget that holds all images of so many values.

        It starts at the image: a point drawn from that ball is noise, which fools without any gradient. And it walks in
        even steps: one of the whole budget lands on black and white, where a quantizer's range ends, and its slope.
        """
        eps = 1.0 if self.norm == "linf" else math.sqrt(values)
        return self.pgd(eps=eps, random_start=False, relative_step=EVEN / self.settings.steps)

    def gradient_free(self, factor: float) -> Square:
        """Return the attack that needs no gradient."""
        return Square(eps=self.budget(factor), norm=self.norm, queries=self.settings.queries)


def measure_masking(
    subject: Subject,
    samples: Samples,
    name: str,
    progress: Progress,
    checks: MaskingChecks,
    seed: int,
    *,
    terms: Terms | None = None,
    missing: str | None = None,
) -> Outcome:
    """Run the six checks on the first of the samples, in an order that `seed` decides, that are classified right.

    The outcome is that of these samples under all attacks within eps together. `details` holds each walk and what
    each check counted: `lost` samples speak of masking, `gained` ones against it. Where `missing` says why there is
    no gradient, none can mislead: then `details` says so in place of checks, and the samples are attacked without.
    Raises MeasurementError, also where a gradient does not flow or is not finite.
    """
    terms = terms or Terms()
    target = CountedTarget(subject, len(samples.classes), name, mixed=terms.mixed)
    chosen = first_right(target, samples, checks.settings.samples, derive(seed, "order"))
    trial = Trial(target, chosen, checks, derive(seed, "walks"), terms, progress)
    if missing is None:
        checked = {check: asdict(counts) for check, counts in trial.checked().items()}
        found: dict[str, Any] = {"checks": checked}
    else:
        trial.stand("gradient-free at 1 eps", checks.gradient_free(1.0), trial.everyone)
        found = {"no_gradient": missing}
    return trial.outcome({**found, "walks": trial.walks})


def first_right(target: CountedTarget, samples: Samples, count: int, seed: int) -> Samples:
    """Return the first `count` samples that are classified right, or all that are; none is a MeasurementError.

    Their order depends on the seed and the number of samples alone, so that variants are asked about the same ones.
    """
    order = np.random.Generator(np.random.PCG64DXSM(seed)).permutation(len(samples))
    size, found = batch_size(samples), np.empty(0, np.int64)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        images, labels = as_tensor(samples, rows, target.subject.device)
        right = (target.logits(images).argmax(dim=1) == labels).cpu().numpy()
        found = np.concatenate([found, rows[right]])[:count]
        if len(found) == count:
            break
    if not len(found):
        raise MeasurementError(f"{target.name}: none of {len(samples)} samples is classified right: nothing to attack")
    return take(samples, found)


def worst(counts: Iterable[PairedCounts]) -> PairedCounts:
    """Return the counts with the largest drop."""
    return max(counts, key=lambda one: one.drop)


class Trial:
    """The walks on samples (N,), all of them classified right, and what they found together within eps.

    All PGD walks draw the same numbers: what differs between two of them is what the check is about.
    """

    def __init__(
        self,
        target: CountedTarget,
        samples: Samples,
        checks: MaskingChecks,
        seed: int,
        terms: Terms,
        progress: Progress,
    ) -> None:
        self.target, self.samples, self.checks = target, samples, checks
        self.seed, self.terms, self.progress = seed, terms, progress
        self.everyone = np.ones(len(samples), np.bool_)
        self.predictions = samples.labels.copy()
        self.norms = np.full(len(samples), np.inf, np.float32)
        self.queries, self.gradients = np.zeros(len(samples), np.int64), np.zeros(len(samples), np.int64)
        self.walks: dict[str, dict[str, Any]] = {}

    def checked(self) -> dict[str, PairedCounts]:
        """Run the six checks, by the names that `judge_masking` gives them."""
        checks, everyone = self.checks, self.everyone
        zero = self.zero_gradient()
        at = {
            factor: self.stand(f"pgd at {factor:g} eps", checks.pgd(eps=checks.budget(factor)), everyone)
            for factor in FACTORS
        }
        return {
            "unbounded budget": PairedCounts.of(self.unbounded(), ~everyone),
            "more steps": self.more_steps(at[1.0]),
            "gradient-free": worst(self.gradient_free(at[factor], factor) for factor in GRADIENT_FREE),
            "monotone": worst(PairedCounts.of(larger, smaller) for smaller, larger in pairwise(at.values())),
            "loss scale": self.loss_scale(at[1.0]),
            "zero gradient": PairedCounts.of(zero, ~everyone),
        }

    def unbounded(self) -> Mask:
        """Return which samples (N,) stand where no budget holds an attack back."""
        return self.stand("pgd unbounded", self.checks.unbounded(self.samples.images[0].size), self.everyone)

    def more_steps(self, plain: Mask) -> PairedCounts:
        """Count the samples that only more steps leave standing, and those that only fewer do.

        Only a sample that fewer steps felled can speak of masking. The others, which cost most, are attacked where
        there are too many of these; else none of them counts as gained, and the drop is the most that it can be.
        """
        attack = self.checks.pgd(steps=MORE * self.checks.settings.steps)
        more = self.stand("more steps", attack, ~plain)
        if self.is_much(more):
            more |= self.stand("more steps, others", attack, plain)
        else:
            more |= plain
        return PairedCounts.of(more, plain)

    def gradient_free(self, plain: Mask, factor: float) -> PairedCounts:
        """Count the samples that at a budget only the gradients leave standing, and those that only they fell.

        As sparing as `more_steps`.
        """
        attack, walk = self.checks.gradient_free(factor), f"gradient-free at {factor:g} eps"
        free = self.stand(walk, attack, plain)
        if self.is_much(plain & ~free):
            free |= self.stand(f"{walk}, others", attack, ~plain)
        return PairedCounts.of(plain, free)

    def loss_scale(self, plain: Mask) -> PairedCounts:
        """Count the samples that DLR fells, but the cross-entropy only of smaller logits; and those that DLR does not.

        DLR ignores the scale of the logits, but is another loss too, and on a sound network with modest logits it
        fells some that the cross-entropy does not. Where it fells too many, the scale is to blame for those that the
        cross-entropy itself fells once it is scaled down.
        """
        invariant = self.stand("pgd on dlr", self.checks.pgd(loss="dlr"), self.everyone)
        lost = plain & ~invariant
        if self.is_much(lost):
            blameless = self.stand("pgd on rescaled logits", Rescaled(inner=self.checks.pgd()), lost)
            invariant |= blameless
        return PairedCounts.of(plain, invariant)

    def zero_gradient(self) -> Mask:
        """Return at which samples (N,) the gradient of the cross-entropy is exactly zero."""
        zero = []
        for rows in self.batches():
            images, labels = as_tensor(self.samples, rows, self.target.subject.device)
            _, gradient = self.target.gradient(images, cross_entropy(labels))
            zero.append((gradient == 0).flatten(1).all(dim=1).cpu())
        self.gradients += 1
        return torch.cat(zero).numpy()

    def is_much(self, lost: Mask) -> bool:
        """Say whether these samples (N,) would fail a check."""
        return bool(lost.mean() > self.checks.settings.tolerance)

    def stand(self, walk: str, attack: Attack, among: Mask) -> Mask:
        """Attack the samples `among` all (N,); return which of them stand. What falls within eps is kept."""
        labels = self.samples.labels
        clean = torch.from_numpy(np.where(among, labels, -1))  # what is wrong already is not attacked
        whole, done = WALKS * len(labels), len(self.walks) * len(labels)
        siege = lay_siege(
            self.target,
            self.samples,
            clean,
            attack,
            self.seed,
            terms=self.terms,
            progress=lambda now, *_: self.progress(min(done + now, whole), whole),
        )
        stood: Mask = siege.predictions == labels
        self.take(walk, attack, siege, among, stood)
        return stood

    def take(self, walk: str, attack: Attack, siege: Siege, among: Mask, stood: Mask) -> None:
        """Note what a walk cost, and what it felled within eps."""
        self.queries += siege.queries
        self.gradients += siege.gradients
        self.walks[walk] = {
            "eps": attack.eps,
            "attacked": int(among.sum()),
            "stood": int(stood.sum()),
            "queries": int(siege.queries.sum()),
            "gradients": int(siege.gradients.sum()),
        }
        if attack.eps <= self.checks.eps:
            fell = among & ~stood
            self.predictions[fell] = siege.predictions[fell]
            self.norms[fell] = np.minimum(self.norms[fell], siege.norms[fell])

    def outcome(self, details: dict[str, Any]) -> Outcome:
        """Return what became of the samples within eps; `details` are added to the sums."""
        sums = {
            "attacked": len(self.samples),
            "fallen": int((self.predictions != self.samples.labels).sum()),
            "queries": int(self.queries.sum()),
            "gradients": int(self.gradients.sum()),
        }
        return Outcome(
            labels=self.samples.labels,
            predictions=self.predictions,
            details={**sums, **details},
            norms=self.norms,
            queries=self.queries,
            gradients=self.gradients,
        )

    def batches(self) -> Iterator[slice]:
        """Yield the rows of the samples that go through the network at once."""
        size = self.terms.size or batch_size(self.samples)
        for start in range(0, len(self.samples), size):
            yield slice(start, start + size)
