"""CORAL, correlation alignment (Sun and Saenko 2016, arXiv 1607.01719), and the training that recipes make of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

from robustgate.core.errors import CompressionError, listing, nearest
from robustgate.training._descent import Descent, Run, fixed_statistics

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustgate.core.components import Course, Images, Network, Samples

LOGITS = "logits"
# What the engine's normalisation calls the network that it wraps.
WRAPPED = "network."


@dataclass(frozen=True, kw_only=True)
class Aligning(Descent):
    """Learn from labelled source images, and have the network answer unlabelled target images with the same spread.

    To the loss of each source batch is added, for each of the `layers`, its weight times CORAL between that batch and
    an equally large one of target images, augmented alike. The key "logits" is the network's output, any other the
    name of a module in it, whose output is (N, d), or (N, C, H, W), which is averaged over space. A network that
    simulates its quantized file has no such modules. The paper aligns the logits, with a weight for which both terms
    end about as large, from 1e-4 to 0.8 on Office-31. CORAL grows with the fourth power of the logits, and between
    batches of one domain it is not zero: too large a weight keeps the network from being sure of anything.

    The two batches go through the network apart, each normalised by its own statistics where there is batch
    normalisation, which the paper's network has none of. The running statistics follow the target's batches alone:
    these are the images that the network is trained for. From MNIST to USPS that was better than the source's, or
    those of both, and one pass of both batches together worse.
    """

    lr: float = 0.01
    layers: Mapping[str, float] = field(default_factory=lambda: {LOGITS: 0.01}, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers:
            raise ValueError('layers must name at least one layer, "logits" or a module of the network, got none')
        for name, weight in self.layers.items():
            if weight < 0 or not isfinite(weight):
                raise ValueError(f"layers.{name} must be a weight of at least 0, got {weight:g}")


class Alignment(Run):
    """A run whose loss has CORAL terms. `target` are the images whose labels nobody knows."""

    def __init__(self, recipe: Aligning, network: Network, course: Course, samples: Samples, target: Images) -> None:
        import torch

        super().__init__(recipe, network, course, samples)
        self.target = target
        self.layers = recipe.layers
        self._modules = {name: _module(network.module, name) for name in recipe.layers if name != LOGITS}
        self._waiting = torch.empty(0, dtype=torch.int64)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a source batch (N, 3, H, W), and add CORAL between it and the next N target images."""
        # The second pass would overwrite most of what the first leaves in the running statistics anyhow.
        with fixed_statistics(self.module):
            source = self._outputs(images)
        target = self._outputs(self.augmented(self._next(len(images))))
        loss = self.loss_of(images, source[LOGITS], labels)
        for name, weight in self.layers.items():
            loss = loss + weight * coral(source[name], target[name])
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return also which target images come next."""
        return {**super().state_dict(), "waiting": self._waiting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._waiting = state["waiting"]

    def _next(self, count: int) -> Tensor:
        """Return the next target images (count, H, W, 3): all of them in a random order, then all in another."""
        import torch

        while len(self._waiting) < count:
            order = torch.randperm(len(self.target), generator=self.generator)
            self._waiting = torch.cat([self._waiting, order])
        rows, self._waiting = self._waiting[:count], self._waiting[count:].clone()
        return torch.from_numpy(self.target[rows.numpy()])

    def _outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits and the layers' outputs, as features (N, d)."""
        found: dict[str, Tensor] = {}
        with _watched(self._modules, found):
            found[LOGITS] = self.logits(images)
        missing = next((name for name in self.layers if name not in found), None)
        if missing is not None:
            raise CompressionError(f"layers: the module {missing!r} is there, but the network does not call it")
        return found


def coral(source: Tensor, target: Tensor) -> Tensor:
    """Return ||C_S - C_T||_F^2 / (4 d^2), a scalar, where C are the covariances (by n - 1) of features (n, d).

    Half precision is computed in single. Raises ValueError where there are fewer than two samples of either.
    """
    import torch

    for features in (source, target):
        if len(features) < 2:
            raise ValueError(f"a covariance needs two samples, got features {tuple(features.shape)}")
    precision = torch.promote_types(source.dtype, torch.float32)
    ours, theirs = (torch.cov(features.to(precision).T) for features in (source, target))
    return (ours - theirs).square().sum() / (4 * source.shape[1] ** 2)


@contextmanager
def _watched(modules: Mapping[str, nn.Module], found: dict[str, Tensor]) -> Iterator[None]:
    """Put into `found` what modules give, by the names that the user has for them; what they give last, if often."""

    def keeping(name: str) -> Any:
        def keep(_module: nn.Module, _args: object, output: object) -> None:
            found[name] = _features(output, name)

        return keep

    hooks = [module.register_forward_hook(keeping(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _features(output: object, name: str) -> Tensor:
    from torch import Tensor

    if not isinstance(output, Tensor) or output.dim() not in (2, 4):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise CompressionError(f"layers.{name}: expected an output (N, d) or (N, C, H, W), got {got}")
    # A copy either way: the next layer may work in place.
    return output.mean(dim=(2, 3)) if output.dim() == 4 else output.clone()


def _module(network: nn.Module, name: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(network.named_modules())
    for known in (name, WRAPPED + name):
        if known and known in modules:
            return modules[known]
    names = [LOGITS, *(one.removeprefix(WRAPPED) for one in modules if one not in ("", WRAPPED[:-1]))]
    raise CompressionError(f"layers: the network has no module {name!r}{nearest(name, names)}; known: {listing(names)}")
