"""Attacks turned to use: points to train on, and misclassified images that are moved until they are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustgate.core.budget import Budget
from robustgate.core.components import Answer, Attack, Draws, Images, Samples
from robustgate.core.seeds import derive
from robustgate.core.walks import wide
from robustgate.engine.arena import Arena, Batch, Caps
from robustgate.engine.data import as_tensor
from robustgate.engine.ledger import Ledger
from robustgate.engine.measure import batch_size
from robustgate.engine.subjects import CountedTarget, TorchSubject

NAME = "training"


def last_points(
    module: nn.Module, images: Tensor, labels: Tensor, attack: Attack, draws: Draws, *, classes: int
) -> Tensor:
    """Return the last points (N, 3, H, W) that a walk asks about, one for each image.

    Nothing ends the walk early: that a point fools is what training on it is to change. The module is asked in eval
    mode, and is afterwards in the mode that it was in. Raises MeasurementError where no gradient flows.
    """
    last = images.clone()
    with _in_eval_mode(module), suppress(StopIteration):
        target = CountedTarget(_Live(module, images.device), classes, NAME)
        walk = attack.run(images, labels, draws, target)
        query = next(walk)
        while True:
            rows, points = query.rows, query.points.detach().clamp(0, 1)
            last[rows] = points
            if query.loss is None:
                logits, gradient = target.logits(points), points.new_zeros(0)
            else:
                logits, gradient = target.gradient(points, query.loss)
            adversarial = logits.argmax(dim=1) != labels[rows]
            with torch.no_grad():
                query = walk.send(Answer(logits, gradient, adversarial, torch.zeros_like(adversarial)))
    return last


def corrections(
    module: nn.Module,
    samples: Samples,
    attack: Attack,
    *,
    seed: int,
    device: torch.device,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Move misclassified images until `module` takes them for their labels.

    Returns the indices (n,) of the samples that were corrected, in order, and their images (n, H, W, 3). An image is
    rounded to 8 bits, inside the attack's budget, and counts if it is right then: what is trained on is what was found.
    Raises MeasurementError.
    """
    subject, size = TorchSubject(module, device), batch_size(samples)
    wrong = _wrong(subject, samples, np.arange(len(samples)), size)
    budget = Budget(attack.norm, attack.eps)
    rows: list[NDArray[np.int64]] = []
    found: list[NDArray[np.uint8]] = []
    done = 0

    def finished(batch: Batch, ledger: Ledger) -> None:
        nonlocal done
        fell = ledger.fallen
        levels = _levels(ledger.points[fell], batch.images[fell], budget)
        label = int(samples.labels[int(batch.numbers[0])])
        right = subject.logits(levels.float().div(255)).argmax(dim=1) == label if len(levels) else fell[:0]
        rows.append(batch.numbers.numpy()[fell.cpu().numpy()][right.cpu().numpy()])
        found.append(levels[right].permute(0, 2, 3, 1).cpu().numpy())
        done += len(batch.labels)
        progress(done / len(wrong))

    for label in np.unique(samples.labels[wrong]):
        target = CountedTarget(TorchSubject(Towards(subject.module, int(label)), device), 2, NAME)
        of_label = wrong[samples.labels[wrong] == label]
        Arena(target, attack, size=size, caps=Caps()).fight(_batches(samples, of_label, size, seed, device), finished)
    if not rows:
        return wrong, samples.images[wrong]
    together = np.concatenate(rows)
    order = np.argsort(together)
    return together[order], np.concatenate(found)[order]


class Overlaid:
    """Images of which some rows are replaced; the others are read where they are."""

    def __init__(self, images: Images, rows: NDArray[np.int64], replaced: NDArray[np.uint8]) -> None:
        self.shape, self.dtype = images.shape, images.dtype
        self._images, self._replaced = images, replaced
        self._places = np.full(len(images), -1)
        self._places[rows] = np.arange(len(rows))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: int | slice | Sequence[int] | NDArray[np.int64], /) -> NDArray[np.uint8]:
        places = np.asarray(self._places[rows])
        found = np.array(self._images[rows])
        found[places >= 0] = self._replaced[places[places >= 0]]
        return found


class Towards(nn.Module):
    """A network that tells one of its classes from all others: logits (N, 2), the largest of the others', and its own.

    An image that is not taken for the class is right here, as class 0. What an attack fools this network with is taken
    for the class: so every attack on the shelf has its targeted form.
    """

    def __init__(self, network: nn.Module, label: int) -> None:
        super().__init__()
        self.network = network
        self.label = label

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) in [0, 1] to two logits."""
        logits = self.network(images)
        # Written so that torch.fx can trace it: a network is then attacked through its faster copy.
        others = torch.cat([logits[:, : self.label], logits[:, self.label + 1 :]], dim=1)
        return torch.stack([others.amax(dim=1), logits[:, self.label]], dim=1)


class _Live:
    """A network that is being trained, as a subject: no copy of it is made, since its weights change."""

    has_own_gradient: ClassVar[bool] = False  # else a faster copy would be made, and kept

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module = module
        self.device = device

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) as they are now."""
        with torch.no_grad():
            logits: Tensor = self.module(images)
        return logits

    def runner(self, images: Tensor) -> Callable[[], object]:
        """Return what runs the network on images."""
        return lambda: self.logits(images)

    def differentiable(self) -> nn.Module:
        """Return the network itself."""
        return self.module


def _wrong(subject: TorchSubject, samples: Samples, rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return those of `rows` whose samples are misclassified."""
    found = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        images, labels = as_tensor(samples, part, subject.device)
        found.append(part[(subject.logits(images).argmax(dim=1) != labels).cpu().numpy()])
    return np.concatenate(found)


def _batches(samples: Samples, rows: NDArray[np.int64], size: int, seed: int, device: torch.device) -> Iterator[Batch]:
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        images, labels = as_tensor(samples, part, device)
        seeds = [derive(seed, int(row)) for row in part]
        yield Batch(numbers=torch.from_numpy(part), images=images, labels=torch.zeros_like(labels), seeds=seeds)


def _levels(points: Tensor, images: Tensor, budget: Budget) -> Tensor:
    """Round points (n, 3, H, W) to 8 bits: to the nearest level, or towards the image where that leaves the budget."""
    origin = (images * 255).round()
    change = points * 255 - origin
    leaves = ~budget.contains(budget.size(change.round() / 255))
    return (origin + change.trunc().where(wide(leaves), change.round())).to(torch.uint8)


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    trained = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        # One by one: a recipe may keep some in eval mode.
        for part in trained:
            part.training = True
