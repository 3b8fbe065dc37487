"""What the engine gives to a recipe: data, teachers, attacks, and epochs that go on where they were broken off."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustgate.core.components import (
    Architecture,
    Attack,
    Constraint,
    Images,
    Network,
    Objective,
    Recipe,
    Samples,
    Split,
    Stateful,
)
from robustgate.core.errors import CompressionError, DomainError, listing
from robustgate.core.files import whole, write_whole
from robustgate.core.seeds import derive
from robustgate.engine import turned
from robustgate.engine.constraints import held
from robustgate.engine.data import as_tensor
from robustgate.engine.draws import SampleDraws

KEPT, CORRECTED = "epochs.pt", "corrected.npz"
# Often enough for an eye, and seldom enough not to wait for a GPU at every step.
PAUSE = 0.2


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How far a training is: the share of its steps or samples that is done, and the mean loss of this epoch so far.

    `epoch` counts from 1; it is 0 while misclassified samples are corrected.
    """

    doing: str
    share: float
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None


Pupil = Callable[[Lesson], None]


def unheard(lesson: Lesson) -> None:
    """Hear and do nothing."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where a course gets what it gives: splits of the source domain, other domains' images, other models.

    `folder` is where epochs are kept until the training is done, None where it need not survive its process.
    """

    samples: Callable[[Split], Samples]
    unlabelled: Callable[[str], Samples]
    teacher: Callable[[str | None], Network]
    folder: Path | None = None
    pupil: Pupil = unheard


class Course:
    """The `Course` of one training."""

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        example: Tensor,
        seed: int,
        doing: str,
        objective: Objective | None = None,
    ) -> None:
        self.surroundings = surroundings
        self.example = example
        self.seed = seed
        self.objective = objective
        self._lesson = Lesson(doing=doing, share=0.0)
        self._losses: list[Tensor] = []
        self._told = -inf

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.example.device

    def samples(self, split: Split) -> Samples:
        """Return a split of the source domain. Raises CompressionError for the test split: it judges."""
        if split not in ("train", "calibration"):
            raise CompressionError(f"the {split} split judges, or holds what judges: no recipe may learn from it")
        return self.surroundings.samples(split)

    def unlabelled(self, domain: str) -> Images:
        """Return the images of another domain's train split."""
        found = self.surroundings.unlabelled(domain)
        expected = self.samples("train").images.shape[1:]
        if found.images.shape[1:] != expected:
            raise DomainError(f"domains.{domain}: expected images {expected}, got {found.images.shape[1:]}")
        return found.images

    def teacher(self, model: str | None) -> Network:
        """Return another model, or the variant's own, uncompressed."""
        return self.surroundings.teacher(model)

    def epochs(self, count: int, state: Stateful) -> Iterator[int]:
        """Yield the epochs that are left, and keep `state` after each."""
        for epoch in range(self._resumed(state), count):
            self._lesson = replace(self._lesson, epoch=epoch + 1, epochs=count, loss=None)
            self._losses, self._told = [], -inf  # the first step of each epoch is told
            yield epoch
            if self._losses and not bool(torch.stack(self._losses).isfinite().all()):
                raise CompressionError(
                    f"training diverged: the loss of epoch {epoch + 1} holds NaN or infinity; lower lr"
                )
            self._keep(epoch + 1, state)
            # What was told on the way is of a part of the epoch: its last word is of all of it.
            self._tell(replace(self._lesson, share=(epoch + 1) / count, loss=self._loss()))

    def tell(self, share: float, loss: Tensor) -> None:
        """Tell the pupil, where the last word is a while ago."""
        self._losses.append(loss.detach())
        if time.monotonic() - self._told > PAUSE:
            self._tell(replace(self._lesson, share=share, loss=self._loss()))

    def perturbed(self, network: Network, images: Tensor, labels: Tensor, attack: Attack, draw: int) -> Tensor:
        """Return the last points that `attack` asks about."""
        seeds = [derive(self.seed, "perturbed", draw, row) for row in range(len(images))]
        draws, classes = SampleDraws(seeds, self.device), len(self.samples("train").classes)
        return turned.last_points(network.module, images, labels, attack, draws, classes=classes)

    def corrected(self, network: Network, attack: Attack) -> tuple[Samples, NDArray[np.int64]]:
        """Return the train split with misclassified samples moved; kept with the epochs, since it takes as long."""
        samples = self.samples("train")
        kept = self.surroundings.folder / CORRECTED if self.surroundings.folder is not None else None
        if kept is not None and kept.exists():
            with _taken_up(kept), np.load(kept, allow_pickle=False) as file:
                rows, moved = file["rows"], file["images"]
        else:
            lesson = replace(self._lesson, doing=f"{self._lesson.doing}: correcting")
            rows, moved = turned.corrections(
                network.module,
                samples,
                attack,
                seed=derive(self.seed, "corrected"),
                device=self.device,
                progress=lambda share: self._tell(replace(lesson, share=share)),
            )
            if kept is not None:
                with whole(kept) as stream:
                    np.savez(stream, rows=rows, images=moved)
        return replace(samples, images=turned.Overlaid(samples.images, rows, moved)), rows

    def _loss(self) -> float | None:
        return float(torch.stack(self._losses).mean()) if self._losses else None

    def _tell(self, lesson: Lesson) -> None:
        self._told = time.monotonic()
        self.surroundings.pupil(lesson)

    def _resumed(self, state: Stateful) -> int:
        """Make `state` what it was when the last epoch was kept, and return the first epoch that is left."""
        folder = self.surroundings.folder
        if folder is None or not (folder / KEPT).exists():
            return 0
        with _taken_up(folder / KEPT):
            # The random streams are tensors of the CPU's; whoever loads the rest puts it where it belongs.
            kept = torch.load(folder / KEPT, map_location="cpu", weights_only=True)
            state.load_state_dict(kept["state"])
            done: int = kept["epochs"]
        return done

    def _keep(self, epochs: int, state: Stateful) -> None:
        folder = self.surroundings.folder
        if folder is not None:
            stream = io.BytesIO()
            torch.save({"epochs": epochs, "state": state.state_dict()}, stream)
            write_whole(folder / KEPT, stream.getvalue())


def train(
    module: nn.Module,
    recipe: Recipe,
    samples: Samples,
    *,
    seed: int = 0,
    objective: Objective | None = None,
    constraints: tuple[Constraint, ...] = (),
    unlabelled: Mapping[str, Samples] | None = None,
    teachers: Mapping[str | None, nn.Module] | None = None,
    folder: Path | None = None,
    pupil: Pupil = unheard,
) -> nn.Module:
    """Train a module, which maps images in [0, 1] to logits, by a recipe, and return it; for use from Python.

    It is trained in place, on the device where it is; a recipe that prunes returns another one. `unlabelled` holds
    other domains' images by the names that the recipe uses, `teachers` other networks; the one under None is the
    original that a recipe may ask for. With a `folder`, the same call goes on after the last epoch that was kept
    there: give each training its own. Raises CompressionError.
    """
    domains, originals = unlabelled or {}, teachers or {}

    def unlabelled_of(domain: str) -> Samples:
        if domain not in domains:
            raise CompressionError(f"no unlabelled images of {domain!r}; given: {listing(domains)}")
        return domains[domain]

    def teacher(model: str | None) -> Network:
        if model not in originals:
            raise CompressionError(f"no teacher {model!r}; given: {listing(map(str, originals))}")
        return _plain(originals[model])

    def split(name: Split) -> Samples:
        if name != "train":
            raise CompressionError(f"a training from Python has no {name} split")
        return samples

    device = next(module.parameters()).device
    course = Course(
        Surroundings(samples=split, unlabelled=unlabelled_of, teacher=teacher, folder=folder, pupil=pupil),
        example=as_tensor(samples, slice(0, 2), device)[0],
        seed=seed,
        doing=type(recipe).__name__.lower(),
        objective=objective,
    )
    network = replace(_plain(module), constraints=constraints)
    with held(network):
        return recipe.train(network, course).module


@contextmanager
def _taken_up(file: Path) -> Iterator[None]:
    """Take up in the block what an earlier attempt kept. Raises CompressionError where that cannot be."""
    try:
        # torch reads past the checksums.
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"bad checksum of {damaged!r}")
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CompressionError(
            f"{file}: damaged, or kept by another training ({reason}); remove it to begin again"
        ) from error


def _plain(module: nn.Module) -> Network:
    """Return a module as a network of which nothing more is known: it cannot be built again without it."""
    return Network(module=module, architecture=Architecture(build="", args={}, mean=(0.0,) * 3, std=(1.0,) * 3))
