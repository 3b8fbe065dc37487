"""AdaSAP, adaptive sharpness-aware pruning (Bair et al. 2024, arXiv 2306.14306)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from robustgate.core.components import Edit, Pruning
from robustgate.core.errors import CompressionError, listing
from robustgate.training._descent import Run
from robustgate.training._sharpness import SharpnessAware

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustgate.core.components import Course, Network, Samples

__all__ = ["AdaSap"]


@dataclass(frozen=True, kw_only=True)
class AdaSap(SharpnessAware):
    """Make the weakest filters' surroundings flat, remove them on the way, and train on with what is left.

    The gradient is taken at perturbed weights, with a radius and a norm for each filter: a row of the weight of a
    convolution or a linear layer, of a transposed convolution a column. Its radius falls in a line from `rho_max` for
    the layer's weakest filter to `rho_min` for its strongest, by the L2 norms of their weights at this step; where all
    are equally strong, or there is but one, it is `rho_max`. An `adaptive` perturbation is ASAM's, rho T^2 g / ||T g||
    with T = |w| + `eta`, else SAM's, rho g / ||g||. Biases and batch normalisation are not perturbed; the paper leaves
    that open, and whether scores are taken anew and compared within a layer.

    Of the `epochs`, the first `flattening` and the next `pruning_phase` have these radii. In the pruning phase the step
    `pruning` is applied in rounds, one every `interval` steps, the last at the phase's end, where its target is met;
    momenta and the course of the learning rate go on with the smaller network. In the remaining epochs every filter has
    the radius `uniform`, or `rho_max`. Without `pruning` the network keeps its size: that is the control.

    `rho_min`, `rho_max`, `eta` and `interval` are those of re-implementations; the authors have published no code. What
    all filters move adds up: one epoch of 4,000 images with a `rho_max` of 2.0 takes the published ResNet-20 from 99.8
    to 73.4 % on others of its training images, with 0.2 to 93.7 %.
    """

    flattening: int
    pruning_phase: int
    pruning: Pruning | None = None
    interval: int = 30
    rho_min: float = 0.01
    rho_max: float = 2.0
    uniform: float | None = None
    adaptive: bool = True
    eta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flattening < 0 or self.pruning_phase < 0 or self.flattening + self.pruning_phase > self.epochs:
            raise ValueError(
                "flattening and pruning_phase are epochs, and together at most epochs: "
                f"got {self.flattening} and {self.pruning_phase} of {self.epochs}"
            )
        if self.interval < 1:
            raise ValueError(f"interval must be at least 1, got {self.interval}")
        if not 0 < self.rho_min <= self.rho_max:
            raise ValueError(f"rho_min must be above 0 and at most rho_max, got {self.rho_min:g} and {self.rho_max:g}")
        if self.uniform is not None and self.uniform <= 0:
            raise ValueError(f"uniform must be above 0, got {self.uniform:g}")
        if self.eta <= 0:
            raise ValueError(f"eta must be above 0, got {self.eta:g}")
        if self.pruning is not None and self.pruning_phase == 0:
            raise ValueError("pruning needs a pruning_phase of at least 1 epoch, got 0")
        if self.pruning is not None and self.pruning.rounds != 1:
            raise ValueError(
                f"pruning.rounds: interval says how many there are, leave it out; got {self.pruning.rounds}"
            )

    @property
    def control(self) -> AdaSap:
        """The same training without pruning."""
        return replace(self, pruning=None)

    def begin(self, network: Network, course: Course) -> Run:
        """Return the run; what can be refused is refused here, and not after the first epochs."""
        if network.constrained("clusters"):
            raise CompressionError("adasap: filters share the values of clusters, and none has a radius of its own")
        if not _filter_axes(network.module):
            raise CompressionError("adasap: expected convolutions or linear layers, the network has none")
        if self.pruning is None:
            return super().begin(network, course)
        if network.constraints:
            kinds = listing(dict.fromkeys(one.kind for one in network.constraints))
            raise CompressionError(
                f"adasap: expected a network without constraints to prune, got one under {kinds}: prune it first"
            )
        run = PruningRun(self.pruning, self, network, course, course.samples("train"))
        # Rehearsed on the network as it is: whether its target can be met at all, and in so many rounds.
        for rounds in sorted({1, len(self.times(run.batches))}):
            smaller = network
            for place in range(rounds):
                smaller = self._round(smaller, course=course, place=place, rounds=rounds)
        return run

    def stepped(self, run: Run, steps: int) -> None:
        """Remove filters where it is time."""
        if isinstance(run, PruningRun):
            times = self.times(run.batches)
            if steps in times:
                run.shrink(self._round(run.network, course=run.course, place=times.index(steps), rounds=len(times)))

    def times(self, batches: int) -> range:
        """Return after how many steps each round is, given the steps of an epoch."""
        end = (self.flattening + self.pruning_phase) * batches
        rounds = max(1, self.pruning_phase * batches // self.interval)
        return range(end - (rounds - 1) * self.interval, end + 1, self.interval)

    def perturbation(self, run: Run, moving: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
        """Return each filter's own perturbation, and zero for other parameters."""
        import torch

        axes = _filter_axes(run.module)
        return [
            self._of_filters(run, weight, gradient, axes[name]) if name in axes else torch.zeros_like(weight)
            for name, weight in moving
            if (gradient := weight.grad) is not None
        ]

    def _of_filters(self, run: Run, weight: Tensor, gradient: Tensor, axis: int) -> Tensor:
        import torch

        filters = weight.transpose(0, axis)
        size = filters.abs() + self.eta if self.adaptive else torch.ones_like(filters)
        scaled = size * gradient.transpose(0, axis)
        norms = _norms(scaled)
        # A filter without a gradient has nowhere to go.
        reach = self._radii(run, _norms(filters)) / norms.where(norms > 0, torch.ones_like(norms))
        return (reach * size * scaled).transpose(0, axis)

    def _radii(self, run: Run, scores: Tensor) -> Tensor:
        import torch

        least, most = self.rho_min, self.rho_max
        if run.step >= (self.flattening + self.pruning_phase) * run.batches:
            least = most = self.rho_max if self.uniform is None else self.uniform
        low, high = scores.aminmax()
        share = torch.where(high > low, (scores - low) / (high - low), torch.zeros_like(scores))
        return most - share * (most - least)

    def _round(self, network: Network, *, course: Course, place: int, rounds: int) -> Network:
        """Return the network after one of several rounds, the one at `place` from 0."""
        step: Any = replace(self.pruning, rounds=rounds)  # type: ignore[type-var]
        for _ in range(place):
            step = step.next_round()
        try:
            smaller: Network = step.apply(network, course)
        except CompressionError as error:
            if rounds == 1:
                raise CompressionError(f"adasap: {error}") from error
            which = f"adasap: round {place + 1} of {rounds}, one every {self.interval} steps"
            raise CompressionError(f"{which}: {error}; a longer interval makes fewer, larger rounds") from error
        return smaller


class PruningRun(Run):
    """A training whose network becomes smaller on its way."""

    def __init__(self, pruning: Pruning, recipe: AdaSap, network: Network, course: Course, samples: Samples) -> None:
        super().__init__(recipe, network, course, samples)
        self.pruning = pruning
        self.edits_given = len(network.architecture.edits)

    def shrink(self, smaller: Network) -> None:
        """Go on with what a round has left of the network, and of its momenta what belongs to that."""
        import torch

        before = self.network
        momenta = copy.deepcopy(before.module).eval()
        with torch.no_grad():
            # What a filter's momentum is goes with the filter: as weights of a copy, they lose what the weights lose.
            for parameter, weight in zip(before.module.parameters(), momenta.parameters(), strict=True):
                weight.copy_(self.optimizer.state[parameter].get("momentum_buffer", torch.zeros_like(weight)))
        for edit in smaller.architecture.edits[len(before.architecture.edits) :]:
            momenta = self.pruning.redo(momenta, edit, self.course.example)
        self._continue_with(smaller)
        kept = dict(momenta.named_parameters())
        for name, parameter in self.module.named_parameters():
            self.optimizer.state[parameter]["momentum_buffer"] = kept[name].detach()

    def state_dict(self) -> dict[str, Any]:
        """Return also the edits that were made."""
        edits = self.network.architecture.edits[self.edits_given :]
        return {**super().state_dict(), "edits": [asdict(edit) for edit in edits]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the edits again, and go on from there."""
        network = self.network
        for edit in (Edit(**one) for one in state["edits"]):
            module = self.pruning.redo(network.module, edit, self.course.example)
            network = replace(network, module=module, architecture=network.architecture.edited(edit))
        self._continue_with(network)
        super().load_state_dict(state)

    def _continue_with(self, network: Network) -> None:
        network.module.train()
        self.network = network
        self.optimizer = self.descending()


def _filter_axes(module: nn.Module) -> dict[str, int]:
    """Return the names of the weights that have filters, with the axis along which these lie.

    They are told by name and shape: a layer under constraints, or of a file's graph, keeps its weight elsewhere.
    """
    transposed = tuple(f"{name}." for name, layer in module.named_modules() if getattr(layer, "transposed", False))
    return {
        name: int(name.startswith(transposed))
        for name, parameter in module.named_parameters()
        if "weight" in name and parameter.dim() > 1
    }


def _norms(rows: Tensor) -> Tensor:
    """Return the l2 norm of each row (n, ...) as (n, 1, ...)."""
    norms: Tensor = rows.flatten(1).norm(dim=1)
    return norms.view(-1, *(1,) * (rows.dim() - 1))
