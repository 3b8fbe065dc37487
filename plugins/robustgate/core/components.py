"""The nouns and contracts that the shelves and the engine share.

A component is a frozen, keyword-only dataclass: its fields are its parameters, its configuration keys and its entry
in the report. It imports what is heavy inside its methods, so that a plan can be made without torch.

Images are float32 tensors (N, 3, H, W), RGB, in [0, 1]. Normalisation is part of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from robustgate.core.records import LimitKind, Shift, VariantRecord

Split = Literal["train", "calibration", "test", "whole"]
Norm = Literal["linf", "l2", "l0"]

ConstraintKind = Literal["zeros", "clusters", "quantizers"]

Objective = Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]
"""A training loss: (images, logits, labels) -> scalar."""


class Images(Protocol):
    """uint8 (N, H, W, 3), RGB, read where rows are asked for: an array in memory, or more than memory holds in a file.

    Whoever needs them goes through them by rows, and never makes an array of them all.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """uint8."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: int | slice | Sequence[int] | NDArray[np.int64], /) -> NDArray[np.uint8]:
        """Return some rows (n, H, W, 3) as an array in memory, or one (H, W, 3)."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Labelled images of one split of one domain, in a fixed order.

    `images` are uint8 (N, H, W, 3), RGB; a domain may give a memory-mapped array, of which no more is ever held than
    the rows in use. `labels` is int64 (N,), each an index into `classes`; `names` says where each sample comes from.
    """

    images: Images
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Labelled images of one split that are still to be decoded, in a fixed order; else as `Samples`.

    `size` is (H, W) of every image. `read` decodes one, given its index, into uint8 (H, W, 3), and raises DomainError
    that names its file; several threads call it at once. `identity` changes with all that the pixels depend on: the
    contents of the files, in their order, and how they are decoded.
    """

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    names: tuple[str, ...]
    size: tuple[int, int]
    read: Callable[[int], NDArray[np.uint8]]
    identity: str

    def __len__(self) -> int:
        return len(self.labels)


class Domain(Protocol):
    """A component of domains/: a labelled data set."""

    def load(self, split: Split) -> Samples | Encoded:
        """Return the samples of a split; ``whole`` is all of them. Raises DomainError."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How many samples there are, and of how many values (3 x H x W) an image is, where that is known."""

    samples: int
    values: int | None = None


class Counted(Domain, Protocol):
    """A domain that can tell how large it is by names and headers of files alone: a plan tells what a run costs."""

    def count(self, split: Split) -> Extent | None:
        """Return how many samples a split has, None where only reading it would tell. Raises DomainError."""


class Corrupted(Domain, Protocol):
    """A component of domains/ that holds images which were corrupted elsewhere, and no clean ones: a stored benchmark.

    Its `load` raises DomainError, which says what it is for.
    """

    def missing(self, corruption: str, severity: int) -> str | None:
        """Return what is not there of a corruption at a severity, None where it is. Looks at files, reads none."""

    def corrupted(self, corruption: str, severity: int) -> Samples | Encoded:
        """Return the images of a corruption at a severity. Raises DomainError."""


class Draws(Protocol):
    """Random numbers, one independent stream for each of N samples.

    A sample's numbers depend on its own stream only: not on the batch that it is in.
    """

    def normal(self, *shape: int) -> Tensor:
        """Return (N, *shape) standard normal float32 numbers."""

    def uniform(self, *shape: int) -> Tensor:
        """Return (N, *shape) float32 numbers uniform in [0, 1)."""

    def integers(self, *shape: int) -> Tensor:
        """Return (N, *shape) int16 numbers uniform in [-32768, 32767]: the cheapest there are."""

    def take(self, rows: Tensor) -> Draws:
        """Return the streams of the samples `rows` (int64 indices), continuing where they are."""


class Corruption(Protocol):
    """A component of corruptions/: a change of the images at severities 1 to 5.

    One that works on 8-bit levels may offer ``apply_to_levels``, the same from uint8 to uint8, which the engine then
    prefers. One that is not quite what its name says elsewhere has a text ``caution``, which every report repeats.
    """

    def apply(self, images: Tensor, severity: int, draws: Draws) -> Tensor:
        """Return the corrupted images, same shape; the engine clips them to [0, 1] and truncates to 8 bits."""


Loss = Callable[["Tensor"], "Tensor"]
"""Maps logits (n, classes) to one value a sample (n,), or to K values (n, K) where K gradients are wanted."""


@dataclass(frozen=True, eq=False)
class Query:
    """What an attack asks: the variant's answer to one point for each of some of its samples.

    `rows` (n,) int64 index the images that the attack was given, each at most once; `points` (n, 3, H, W) lie in
    [0, 1]. Without a `loss` only logits are asked for. Where the variant has a faster copy, the copy may give the
    logits and the variant itself confirm what fell; an `exact` query is answered by the variant alone.
    """

    rows: Tensor
    points: Tensor
    loss: Loss | None = None
    exact: bool = False


@dataclass(frozen=True, eq=False)
class Answer:
    """The variant's answer to a query.

    `logits` (n, classes). `gradient` of the summed loss to the points: (n, 3, H, W), or (n, K, 3, H, W) for a loss of
    K values, and empty without one. `adversarial` (n,): the artifact itself misclassifies the point; of a minimum-norm
    attack on a network that has a faster copy the copy does, and what it found nearest is confirmed at the walk's end.
    `settled` (n,): nothing more is needed for this sample, and its gradient may be left zero; under a fixed budget that
    is a point within it that fooled.
    """

    logits: Tensor
    gradient: Tensor
    adversarial: Tensor
    settled: Tensor


Walk = Generator[Query, Answer, None]
"""An attack at work on a batch: it yields queries, and is sent the answer to each.

The engine keeps, for each sample, the best point that was ever asked about, so that a walk has nothing to give back.
It puts the queries of several walks together into one full batch: a sample that an attack asks no more about costs
nothing.
"""


class AttackTarget(Protocol):
    """The variant under attack, as an attack may see it beside its answers."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    def module(self, *, gradient: bool = True) -> nn.Module:
        """Return the variant as a torch module, for a library that must call it itself; its calls are counted.

        With `gradient` it is what gradients are taken through, the artifact's twin where it has none of its own; else
        the artifact itself.
        """


class Attack(Protocol):
    """A component of attacks/."""

    needs_gradient: ClassVar[bool]
    minimizes: ClassVar[bool]
    """Whether it looks for each sample's smallest perturbation, or for any within `eps`."""

    @property
    def norm(self) -> Norm:
        """The norm that measures the perturbation."""

    @property
    def eps(self) -> float:
        """The budget, in [0, 1] units; for l0 the share of the values that may change."""

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:
        """Attack `images` (N, 3, H, W), all classified as their `labels` (N,) say: ask, and go where it leads.

        The engine clips what is asked about to [0, 1], measures its norm, and itself counts success on the artifact.
        """


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Passes of a sample through a network, or of all samples together. A gradient takes one of each."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(forward=self.forward + other.forward, backward=self.backward + other.backward)

    def __mul__(self, count: int) -> Passes:
        return Passes(forward=count * self.forward, backward=count * self.backward)


class Bounded(Attack, Protocol):
    """An attack that knows what it asks at most: a plan tells what a run costs before anything runs."""

    def passes(self, values: int | None) -> Passes | None:
        """Return the most that a walk asks about one sample of `values` values (3 x H x W), None where unknown.

        Each query is a pass forward, and for a loss of K values K passes backward. What the engine does beside the walk
        is not counted. None where it depends on something that is not known.
        """


class Union(Protocol):
    """A component of attacks/ that attacks nothing itself: a sample has fallen that any of the attacks it names felled.

    It stands among the attacks in the configuration, and is measured from what they did.
    """

    @property
    def attacks(self) -> tuple[str, ...]:
        """The names of the configuration's attacks that it joins; none of them is a union."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change of a network's structure that can be made again: which method made it, and its JSON payload."""

    method: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How to build a network without its weights: factory, its arguments, normalisation, then edits in order."""

    build: str
    args: Mapping[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    edits: tuple[Edit, ...] = ()

    def edited(self, edit: Edit) -> Architecture:
        """Return this architecture with one more edit."""
        return replace(self, edits=(*self.edits, edit))


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """What a step made of some weights, which every later step and every training keeps or refuses.

    ``zeros``: what is zero in these parameters stays zero. ``clusters``: weights of one parameter that are equal
    stay equal. ``quantizers``: the network computes with simulated 8-bit weights and activations, and whoever writes
    its file uses these scales. The rest (where the zeros are, which weights are equal) is in the weights themselves.
    `parameters` are names in the network's state dict.
    """

    kind: ConstraintKind
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Network:
    """A trained torch network and how to build it again. `module` maps images in [0, 1] to logits."""

    module: nn.Module
    architecture: Architecture
    constraints: tuple[Constraint, ...] = ()

    def constrained(self, kind: ConstraintKind) -> tuple[str, ...]:
        """Return the names of the parameters under constraints of a kind; none where there is no such constraint."""
        names = [name for one in self.constraints if one.kind == kind for name in one.parameters]
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a model file wants its images, and which of its outputs are the classes.

    Images in [0, 1], RGB, NCHW become: channels in the order `channels`, values scaled from [0, 1] to [low, high],
    then (value - mean) / std per channel, axes in the order `layout`. The first `skip_outputs` logits are no class of
    the domain (a background class) and are dropped. Quantized inputs and outputs are converted by the scale and zero
    point that the file itself names.
    """

    layout: Literal["nchw", "nhwc"] = "nchw"
    channels: Literal["rgb", "bgr"] = "rgb"
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    skip_outputs: int = 0

    def __post_init__(self) -> None:
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(map(isfinite, values)):
                raise ValueError(f"{key} must be three finite numbers, one a channel, got {list(values)}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {list(self.std)}")
        if not (isfinite(self.low) and isfinite(self.high)) or self.low == self.high:
            raise ValueError(f"low and high must be two finite numbers that differ, got {self.low:g} and {self.high:g}")
        if self.skip_outputs < 0:
            raise ValueError(f"skip_outputs must be at least 0, got {self.skip_outputs}")


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A file that a runtime executes: it ends the chain, and ships. Its suffix says which runtime."""

    path: Path
    reading: Reading = Reading()


class Materials(Protocol):
    """What a step or a recipe works on."""

    @property
    def example(self) -> Tensor:
        """A batch of two images of the source domain, on the network's device."""

    @property
    def seed(self) -> int:
        """The seed of this step."""

    def samples(self, split: Split) -> Samples:
        """Return a split of the source domain."""


class Workshop(Materials, Protocol):
    """What the engine gives to a compression step."""

    @property
    def folder(self) -> Path:
        """An empty folder, for files that the step makes on its way."""

    @property
    def model(self) -> str:
        """The name of the model that is compressed."""

    @property
    def source(self) -> str:
        """The name of its source domain."""

    def configured(self, model: str) -> Network:
        """Return another model of the configuration, uncompressed, with its weights for the same source domain."""

    def accuracy(self, network: Network, split: Split) -> float:
        """Return the share of a split that `network` classifies right. Never the test split: it judges."""

    def build(self, build: str, args: Mapping[str, Any]) -> Network:
        """Build an untrained network by a factory, with the model's normalisation."""

    def train(self, network: Network, recipe: Recipe, objective: Objective | None = None) -> Network:
        """Return `network` trained, mostly in place, on the source domain's train split, under its constraints.

        The default objective is cross-entropy. A recipe that prunes gives back another, smaller network.
        """


class Compression(Protocol):
    """A component of compression/: one step of a chain."""

    @property
    def product(self) -> Literal["network", "file"]:
        """What it gives back: a network, which further steps may change, or a file, which ends the chain."""

    @property
    def makes(self) -> frozenset[ConstraintKind]:
        """The kinds of constraints that it adds."""

    @property
    def keeps(self) -> frozenset[ConstraintKind]:
        """The kinds of constraints that it keeps; a chain that asks it for another is refused at planning."""

    def apply(self, network: Network, workshop: Workshop) -> Network | ModelFile:
        """Return the compressed network or file; `network` itself is left as it was. Raises CompressionError.

        A network that is given back carries the constraints that `network` had and those that this step made.
        """


class Gradual(Compression, Protocol):
    """A compression that reaches its target in rounds, each followed by the step's fine-tuning."""

    def next_round(self) -> Compression | None:
        """Return the step that goes on where this one stops, or None after the last round."""


class Finishing(Compression, Protocol):
    """A compression that prepares a network for the step's fine-tuning, and makes its product after it."""

    def finish(self, network: Network, workshop: Workshop) -> Network | ModelFile:
        """Return the product of the fine-tuned network. Raises CompressionError."""


class Borrowing(Compression, Protocol):
    """A compression that needs other models of the configuration."""

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that it asks the workshop for."""


class Optional(Compression, Protocol):
    """A compression that needs a package which is no dependency."""

    @property
    def missing_extra(self) -> str | None:
        """The extra of robustgate that brings it, where it is not installed, or None. Imports nothing."""


class Partial(Compression, Protocol):
    """A compression that not every model and source domain has."""

    def serves(self, model: str, source: str) -> bool:
        """Say whether there is such a variant."""


class Restructuring(Compression, Protocol):
    """A compression that leaves edits in the architecture, and can make them again."""

    @staticmethod
    def redo(module: nn.Module, edit: Edit, example: Tensor) -> nn.Module:
        """Repeat on a freshly built module the structural change that `edit` describes."""


class Pruning(Protocol):
    """A compression that a recipe can apply on its way: in `rounds`, each of which makes the network a bit smaller.

    Its changes are edits, so that a training which was broken off makes them again before it goes on.
    """

    @property
    def rounds(self) -> int:
        """In how many rounds the target is reached."""

    def apply(self, network: Network, workshop: Materials) -> Network:
        """Return a smaller copy of the network, after one round. Raises CompressionError where that cannot be."""

    def next_round(self) -> Pruning | None:
        """Return what goes on where this round stops, or None after the last round."""

    @staticmethod
    def redo(module: nn.Module, edit: Edit, example: Tensor) -> nn.Module:
        """Repeat on a module of the same structure the change that `edit` describes."""


class Stateful(Protocol):
    """What can be written down at the end of an epoch, and goes on from there."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and texts, in dicts and lists: all that the coming epochs depend on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state` says."""


class Course(Materials, Protocol):
    """What the engine gives to a recipe."""

    @property
    def device(self) -> torch.device:
        """Where the network is, and is trained."""

    @property
    def objective(self) -> Objective | None:
        """A loss of a compression's own, which takes the place of the recipe's cross-entropy."""

    def unlabelled(self, domain: str) -> Images:
        """Return the images of another domain's train split, without their labels. Raises DomainError."""

    def teacher(self, model: str | None) -> Network:
        """Return a model of the configuration, uncompressed, for the same source domain; None is the variant's own."""

    def epochs(self, count: int, state: Stateful) -> Iterator[int]:
        """Yield the epochs from 0 to `count` - 1 that are still to be trained.

        After each, `state` is kept; where an earlier attempt was broken off, `state` is first made what it was at the
        end of the last epoch that was kept. Raises CompressionError where the loss, as told, is no finite number.
        """

    def tell(self, share: float, loss: Tensor) -> None:
        """Take note, after each step, of the share of all steps that are done, and of the step's loss."""

    def perturbed(self, network: Network, images: Tensor, labels: Tensor, attack: Attack, draw: int) -> Tensor:
        """Return the last points (N, 3, H, W) that `attack` asks about when it attacks `images` under `labels`.

        That is where a gradient attack ends, whether it fooled on its way or not. The network is asked in eval mode.
        Random starts depend on the step's seed and `draw` alone.
        """

    def corrected(self, network: Network, attack: Attack) -> tuple[Samples, NDArray[np.int64]]:
        """Return the train split with its misclassified samples moved until `network` classifies them right.

        `attack` is turned round: it looks for the nearest image that is taken for its label. Images stay uint8, and
        a sample counts as corrected if it is right after rounding; one that is not stays as it was. Also returns the
        indices of those that were corrected.
        """


class Recipe(Protocol):
    """A component of training/: how a network is trained."""

    def train(self, network: Network, course: Course) -> Network:
        """Train `network` in place and return it, in eval mode; a recipe that prunes returns a smaller one.

        Touches no global random stream.
        """


class Compressing(Recipe, Protocol):
    """A recipe that makes the network smaller as it trains it."""

    @property
    def control(self) -> Recipe:
        """The same training of a network that keeps its size."""


class Adapting(Recipe, Protocol):
    """A recipe that looks at images of other domains. Of such a domain, only the test split judges."""

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains whose train split it looks at."""


class VariantRule(Protocol):
    """A component of rules/: a limit on one figure of a variant."""

    limit_kind: ClassVar[Literal["min", "max"]]
    measures: ClassVar[Literal["latency", "memory"] | None]
    """What must be measured for it beside what is known of every artifact: None for an exact figure."""

    @property
    def metric(self) -> str:
        """The figure's name, with its unit: ``size_bytes``."""

    @property
    def limit(self) -> float:
        """The limit, in the figure's own unit."""

    def value(self, record: VariantRecord, reference: VariantRecord) -> float | None:
        """Return the variant's figure, None where it is not measured.

        `reference` is the uncompressed model of the same source domain.
        """

    def interval(self, record: VariantRecord, reference: VariantRecord) -> tuple[float, float] | None:
        """Return what bounds the figure, at the confidence that it was measured at; twice the value if it is exact."""

    def show(self, value: float) -> str:
        """Return the figure as a person reads it: ``2.9 MB``."""


class Timed(VariantRule, Protocol):
    """A rule on latency."""

    @property
    def batch(self) -> int:
        """The number of images that are timed together."""


class StabilityRule(Protocol):
    """A component of rules/ that a search among mild transformations of the images judges, in a case of its own."""

    measures: ClassVar[Literal["stability"]]

    @property
    def max(self) -> float:
        """The largest share of the predictions that any transformation may change."""

    @property
    def transformations(self) -> Mapping[str, float]:
        """The transformations that are searched, with how far each may go."""

    @property
    def samples(self) -> int:
        """How many samples are asked about."""

    @property
    def examples(self) -> int:
        """How many amounts of a transformation are tried."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A limit on one figure of an outcome rule.

    Figures are fractions and differences of fractions; printed they are percent, points, or of no unit, times 100.
    `key` is what the configuration calls the limit where that is not its kind. The figure lies in [`least`, `most`]: a
    limit that nothing within them breaks, or nothing keeps, is one that `robustgate lint` names.
    """

    metric: str
    kind: LimitKind
    limit: float
    unit: Literal["%", "points", ""] = "%"
    key: str = ""
    least: float = -inf
    most: float = inf


class Shares(Protocol):
    """How a variant's samples came out under its shifts, and its reference's, as shares of them.

    Arrays are (R, ...): first of the samples as they were measured, then of each resample of them. What was measured on
    the same samples is resampled alike.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """The K classes of the source domain."""

    def sizes(self, shift: Shift) -> NDArray[np.int64]:
        """Return how many samples of each class (K,) were measured."""

    def right(self, shift: Shift) -> NDArray[np.float64]:
        """Return the share (R,) that the variant classifies right: its accuracy."""

    def reference(self, shift: Shift) -> NDArray[np.float64]:
        """Return the share (R,) that its uncompressed reference classifies right."""

    def changed(self, shift: Shift) -> NDArray[np.float64]:
        """Return what the variant predicts otherwise than its reference, as shares (R, 3).

        Those that only the reference has right, those that only the variant has, and those that both have wrong.
        """

    def by_class(self, shift: Shift) -> NDArray[np.float64]:
        """Return the share (R, K) of each class that the variant classifies right, NaN for one without samples."""

    def standards(self, shift: Shift) -> NDArray[np.float64]:
        """Return the accuracies (M,) of the uncompressed models of the source domain, as they were measured."""


class OutcomeRule(Protocol):
    """A component of rules/: a limit on what a variant's outcomes over its shifts come to.

    A rule with several bounds passes where all of them hold.
    """

    measures: ClassVar[Literal["outcomes"]]

    @property
    def compares(self) -> bool:
        """Whether its figures say something of a compressed variant alone, and so nothing of the reference itself."""

    @property
    def standards(self) -> int:
        """The fewest uncompressed models of the source domain that it fits something to, or 0."""

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """Its limits, one for each figure, the one that it is named for first."""

    @property
    def undefined(self) -> str:
        """Why a figure may have no value: where it divides by what may be zero."""

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return which of a variant's planned shifts it needs. Raises ValueError where they are too few for it."""

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return each bound's figure (R,), over the shifts that it needs; NaN where it has no value."""

    def counts(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[tuple[int, int], ...]:
        """Return of what proportions (successes, n) its one figure is the least, or nothing where it is something else.

        The interval is then exact; else it is the bootstrap's.
        """

    def remark(self, shares: Shares, shifts: Sequence[Shift]) -> str:
        """Return what its reader must know beside the figures, or an empty text: which class is the worst."""
