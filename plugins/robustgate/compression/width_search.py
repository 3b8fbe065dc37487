"""A search for widths under a budget, by a tree of Parzen estimators (Bergstra et al. 2011; Akiba et al. 2019)."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robustgate.compression._classes import count_classes
from robustgate.core.components import ConstraintKind, Network, Recipe
from robustgate.core.counts import count_macs, count_parameters, read_count
from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    from robustgate.core.components import Workshop

__all__ = ["WidthSearch"]

MOST_COUNTED = 4096
Point = tuple[int, ...]  # one candidate of the grid: the place of its choice in each list of candidates


@dataclass(frozen=True, kw_only=True)
class WidthSearch:
    """Search a factory's arguments for the most accurate network within a budget, and train that one.

    `build` is the factory, `args` what all candidates share, `search` what is searched: an argument's list of
    candidates (``width = [8, 12, 16]``), or for an argument that is itself a list one list of candidates for each of
    its elements (``widths = [[8, 12, 16], [16, 24, 32], [32, 48, 64]]``). Neighbours in a list should resemble each
    other, so numbers rise. The budget is `parameters`, or `macs` of one image: the most that a candidate may have
    (``"100k"``).

    Each of the `trials` is a candidate: one over the budget is not trained; the others are trained from scratch by
    the recipe `proxy` and judged by their accuracy on the calibration split. The most accurate wins (of equals the
    one with the fewest parameters), is built afresh and is trained by `training`. A grid of at most `trials`
    candidates is tried whole; in a larger one Optuna's TPE proposes (Bergstra et al. 2011, "Algorithms for
    hyper-parameter optimization"; Akiba et al. 2019, arXiv 1907.10902), and a candidate proposed again counts as a
    trial but is not trained again. The same seed finds the same network.

    The network that the chain has made so far says how many classes there are; nothing else of it is used. Studies
    of the robustness of compressed networks search no architectures: this is the plainest form of such a search, and
    how far a short proxy ranks candidates as a full training would is the user's to judge.
    """

    product: ClassVar[Literal["network", "file"]] = "network"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset()
    keeps: ClassVar[frozenset[ConstraintKind]] = frozenset()

    build: str
    args: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any]
    proxy: Recipe
    training: Recipe
    parameters: str | int | None = None
    macs: str | int | None = None
    trials: int = 24

    def __post_init__(self) -> None:
        self.budget()
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1, got {self.trials}")
        if not self.search:
            raise ValueError("search must name an argument of build and its candidates")
        for name, candidates in self.search.items():
            if name in self.args:
                raise ValueError(f"search.{name} is given in args too")
            if not _is_list(candidates) or len({_is_list(one) for one in candidates}) != 1:
                raise ValueError(
                    f"search.{name} must be a list of candidates, or of such lists for each element, got {candidates!r}"
                )
        for name, candidates in self.axes.items():
            if not candidates or not all(isinstance(one, int | float | str) for one in candidates):
                raise ValueError(f"search.{name} must be a list of numbers, texts or truths, got {list(candidates)}")
            if len(set(candidates)) < len(candidates):
                raise ValueError(f"search.{name} names a candidate twice: {list(candidates)}")

    def budget(self) -> tuple[str, int]:
        """Return what is bounded, ``parameters`` or ``macs``, and the most that a candidate may have of it."""
        if self.parameters is not None and self.macs is None:
            return "parameters", read_count(self.parameters, "parameters")
        if self.macs is not None and self.parameters is None:
            return "macs", read_count(self.macs, "macs")
        raise ValueError("give either parameters or macs")

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Each list of candidates by its name: ``width``, or ``widths[0]``."""
        axes: dict[str, tuple[Any, ...]] = {}
        for name, candidates in self.search.items():
            if _is_list(candidates[0]):
                axes |= {f"{name}[{place}]": tuple(one) for place, one in enumerate(candidates)}
            else:
                axes[name] = tuple(candidates)
        return axes

    @property
    def size(self) -> int:
        """The number of candidates in the grid."""
        return prod(len(candidates) for candidates in self.axes.values())

    @property
    def missing_extra(self) -> str | None:
        """The extra of robustgate that must be installed for it, or None. Imports nothing."""
        return None if self.size <= self.trials or importlib.util.find_spec("optuna") else "search"

    def apply(self, network: Network, workshop: Workshop) -> Network:
        """Return the winner, trained. Raises CompressionError where no candidate fits the budget."""
        if self.missing_extra is not None:
            raise CompressionError("width_search: needs optuna; pip install 'robustgate[search]'")
        candidates = _Candidates(self, workshop, count_classes(network.module, workshop.example))
        known = candidates.first_fitting() if self.size <= MOST_COUNTED else None
        if self.size <= self.trials:
            for point in candidates.grid():
                candidates.judge(point)
        else:
            self._propose(candidates, known, workshop.seed)
        winner = candidates.make(candidates.best())
        return workshop.train(winner, self.training)

    def _propose(self, candidates: _Candidates, known: Point | None, seed: int) -> None:
        """Let the optimizer propose `trials` candidates, the first of them one that is known to fit, and judge them."""
        import optuna

        with _silent("optuna"):
            # Its generator takes seeds of 32 bits.
            sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=self.trials // 4)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            if known is not None:
                study.enqueue_trial(dict(zip(self.axes, known, strict=True)))
            for _ in range(self.trials):
                trial = study.ask()
                point = tuple(trial.suggest_int(name, 0, len(one) - 1) for name, one in self.axes.items())
                trial.set_constraint("budget", candidates.excess(point))
                accuracy = candidates.judge(point)
                if accuracy is None:
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                else:
                    study.tell(trial, accuracy)


class _Candidates:
    """What is known of the candidates of one search."""

    def __init__(self, search: WidthSearch, workshop: Workshop, classes: int) -> None:
        self.search = search
        self.workshop = workshop
        self.classes = classes
        self.kind, self.budget = search.budget()
        self.parameters: dict[Point, int] = {}
        self.used: dict[Point, int] = {}
        self.accuracies: dict[Point, float] = {}

    def grid(self) -> Iterator[Point]:
        """Yield every candidate, in the order in which they are written."""
        return product(*(range(len(candidates)) for candidates in self.search.axes.values()))

    def arguments(self, point: Point) -> dict[str, Any]:
        """Return what a candidate chooses for the searched arguments."""
        chosen = {name: one[place] for place, (name, one) in zip(point, self.search.axes.items(), strict=True)}
        return {
            name: chosen[name] if name in chosen else [chosen[f"{name}[{place}]"] for place in range(len(candidates))]
            for name, candidates in self.search.search.items()
        }

    def make(self, point: Point) -> Network:
        """Build a candidate, untrained; its initial weights do not depend on what was built before."""
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(self.workshop.seed)
            return self.workshop.build(self.search.build, {**self.search.args, **self.arguments(point)})

    def excess(self, point: Point) -> float:
        """Return by what share of the budget a candidate is over it; not above 0 where it fits."""
        if point not in self.used:
            network = self.make(point)
            self.parameters[point] = count_parameters(network.module)
            self.used[point] = self.parameters[point]
            if self.kind == "macs":
                self.used[point] = count_macs(network.module, self.workshop.example)
        return (self.used[point] - self.budget) / max(self.budget, 1)

    def first_fitting(self) -> Point:
        """Return the first candidate of the grid that fits the budget. Raises CompressionError where none does."""
        for point in self.grid():
            if self.excess(point) <= 0:
                return point
        raise self._none_fits(f"none of the {self.search.size:,} candidates")

    def judge(self, point: Point) -> float | None:
        """Return a candidate's accuracy after the proxy's training, or None where it is over the budget."""
        if self.excess(point) > 0:
            return None
        if point not in self.accuracies:
            network = self.make(point)
            told = count_classes(network.module, self.workshop.example)
            if told != self.classes:
                raise CompressionError(
                    f"width_search: {self.search.build} with {dict(self.search.args)} has {told} classes, "
                    f"{self.workshop.model} has {self.classes}; expected the same number"
                )
            network = self.workshop.train(network, self.search.proxy)
            self.accuracies[point] = self.workshop.accuracy(network, "calibration")
        return self.accuracies[point]

    def best(self) -> Point:
        """Return the most accurate candidate; of equals the one with fewest parameters, then the one tried first."""
        if not self.accuracies:
            raise self._none_fits(f"none of the {len(self.used):,} candidates that the trials proposed")
        return max(self.accuracies, key=lambda point: (self.accuracies[point], -self.parameters[point]))

    def _none_fits(self, problem: str) -> CompressionError:
        smallest = min(self.used, key=self.used.__getitem__)
        return CompressionError(
            f"width_search: {problem} fits {self.budget:,} {self.kind}; "
            f"the smallest has {self.used[smallest]:,}: {self.arguments(smallest)}"
        )


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Let a library's logger pass warnings only, inside the block."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
