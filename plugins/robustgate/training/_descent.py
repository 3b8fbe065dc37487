"""Stochastic gradient descent: the loop that every recipe shares, its settings, and what an epoch leaves behind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robustgate.core.components import Course, Network, Samples


@dataclass(frozen=True, kw_only=True)
class Descent:
    """SGD with Nesterov momentum.

    `lr` is the peak of one cycle over all steps (Smith and Topin 2018, arXiv 1708.07120): half a cosine up over the
    share `warm_up` of them, half a cosine down over the others. `weight_decay` is on every parameter.
    `label_smoothing` is cross-entropy's. `shift` moves each training image by up to so many pixels (edge-replicated),
    `flip` mirrors half of them; before that, each goes through the `transforms`, torchvision's by their names, each
    with its arguments: ``{ RandAugment = { num_ops = 1 }, RandomErasing = {} }``, in this order. With
    `mixed_precision` the network is run in bfloat16 where torch thinks it safe; weights and steps stay float32.
    """

    epochs: int
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    warm_up: float = 0.3
    label_smoothing: float = 0.0
    shift: int = 2
    flip: bool = False
    transforms: Mapping[str, dict[str, Any]] = field(default_factory=dict, hash=False)
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr:g}")
        if not 0 < self.momentum < 1:
            raise ValueError(f"momentum must be above 0 and below 1, got {self.momentum:g}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be below 0, got {self.weight_decay:g}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2 (batch normalisation), got {self.batch_size}")
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up must be a share in [0, 1), got {self.warm_up:g}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be a share in [0, 1), got {self.label_smoothing:g}")
        if self.shift < 0:
            raise ValueError(f"shift must not be below 0, got {self.shift}")

    def train(self, network: Network, course: Course) -> Network:
        """Train `network` in place and return it, in an order and with augmentations that the course's seed decides.

        A recipe's own part is in `begin`, `gradients` and `stepped`. Raises CompressionError where the loss diverges.
        """
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(course.seed)  # dropout and torchvision's transforms draw from the global stream
            run = self.begin(network, course)
            steps = self.epochs * run.batches
            for epoch in course.epochs(self.epochs, run):
                run.module.train()
                for batch, (images, labels) in enumerate(run.shuffled()):
                    run.step = epoch * run.batches + batch
                    run.optimizer.param_groups[0]["lr"] = self.lr * share_of_peak(run.step, steps, self.warm_up)
                    run.optimizer.zero_grad(set_to_none=True)
                    loss = self.gradients(run, images, labels)
                    run.optimizer.step()
                    course.tell((run.step + 1) / steps, loss)
                    self.stepped(run, run.step + 1)
            run.optimizer.zero_grad(set_to_none=True)
            run.module.eval()
        return run.network

    def begin(self, network: Network, course: Course) -> Run:
        """Return the run as it is before its first epoch."""
        return Run(self, network, course, course.samples("train"))

    def gradients(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        """Leave the gradients of a batch in the parameters, and return its loss."""
        loss = run.loss(images, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def stepped(self, run: Run, steps: int) -> None:
        """Do what is to be done when so many steps are taken."""


class Run:
    """A training on its way: what changes as it goes on, and all that its next epochs depend on.

    `step` counts the steps from 0 over all epochs. `objective` takes the place of cross-entropy where there is one.
    """

    def __init__(self, recipe: Descent, network: Network, course: Course, samples: Samples) -> None:
        import torch

        self.recipe = recipe
        self.network = network
        self.course = course
        self.samples = samples
        self.step = 0
        self.objective = course.objective
        self.generator = torch.Generator().manual_seed(course.seed)
        self.optimizer = self.descending()
        self._transforms = augmentations(recipe.transforms)

    @property
    def module(self) -> nn.Module:
        """The network that is trained."""
        return self.network.module

    @property
    def batches(self) -> int:
        """The number of batches of an epoch, each of them full unless there is but one."""
        return max(1, len(self.samples) // self.recipe.batch_size)

    def descending(self) -> torch.optim.SGD:
        """Return an optimizer of the network as it is now, without momentum yet."""
        import torch

        recipe = self.recipe
        return torch.optim.SGD(
            self.module.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=True,
        )

    def shuffled(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch: augmented images (N, 3, H, W) in [0, 1], and labels (N,)."""
        import torch

        size = self.recipe.batch_size
        order = torch.randperm(len(self.samples), generator=self.generator)
        for batch in range(self.batches):
            rows = order[batch * size : (batch + 1) * size].numpy()
            images = self.augmented(torch.from_numpy(self.samples.images[rows]))
            yield images, torch.from_numpy(self.samples.labels[rows]).to(self.course.device)

    def augmented(self, images: Tensor) -> Tensor:
        """Return images uint8 (N, H, W, 3) as the network is shown them: float32 (N, 3, H, W) in [0, 1]."""
        import torch

        levels = images.permute(0, 3, 1, 2)
        if self._transforms:
            levels = torch.stack([self._transformed(image) for image in levels])
        return self._moved(levels.float().div(255)).to(self.course.device)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Run the network on images (N, 3, H, W) and return its loss, a scalar."""
        return self.loss_of(images, self.logits(images), labels)

    def logits(self, images: Tensor) -> Tensor:
        """Run the network on images (N, 3, H, W), in the recipe's precision, and return logits (N, classes)."""
        with self.precision():
            logits: Tensor = self.module(images)
        # Rounded logits would make a rounded loss; a network in double precision keeps it.
        return logits.float() if self.recipe.mixed_precision else logits

    def precision(self) -> AbstractContextManager[object]:
        """Return the context in which the network is run."""
        import torch

        return torch.autocast(self.course.device.type, torch.bfloat16, enabled=self.recipe.mixed_precision)

    def loss_of(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits (N, classes): the objective, or else cross-entropy."""
        from torch.nn import functional

        if self.objective is not None:
            return self.objective(images, logits, labels)
        return functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    def state_dict(self) -> dict[str, Any]:
        """Return weights, momenta and the random streams."""
        import torch

        streams = {"order": self.generator.get_state(), "cpu": torch.get_rng_state()}
        if self.course.device.type == "cuda":
            streams["cuda"] = torch.cuda.get_rng_state(self.course.device)
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict(), "streams": streams}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        import torch

        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["streams"]["order"])
        torch.set_rng_state(state["streams"]["cpu"])
        if "cuda" in state["streams"]:
            torch.cuda.set_rng_state(state["streams"]["cuda"], self.course.device)

    def _transformed(self, image: Tensor) -> Tensor:
        for name, transform in self._transforms.items():
            try:
                changed: Tensor = transform(image)
            except (TypeError, ValueError, RuntimeError) as error:  # what is wrong with some arguments shows only here
                raise CompressionError(f"transforms.{name}: {error}") from error
            if changed.shape != image.shape or changed.dtype != image.dtype:
                shown = [f"{one.dtype} {tuple(one.shape)}".removeprefix("torch.") for one in (image, changed)]
                raise CompressionError(f"transforms.{name}: expected an image that stays {shown[0]}, got {shown[1]}")
            image = changed
        return image

    def _moved(self, images: Tensor) -> Tensor:
        import torch
        from torch.nn import functional

        shift, (count, _, height, width) = self.recipe.shift, images.shape
        if self.recipe.flip:
            mirrored = torch.rand(count, generator=self.generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if shift:
            padded = functional.pad(images, (shift,) * 4, mode="replicate")
            offsets = torch.randint(0, 2 * shift + 1, (count, 2), generator=self.generator)
            rows = offsets[:, :1] + torch.arange(height)
            columns = offsets[:, 1:] + torch.arange(width)
            index = torch.arange(count)[:, None, None]
            # Advanced indexing puts the channels last: (N, H, W, 3).
            images = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        # Channels last in memory too, and so what convolutions make of them: a CPU takes a fifth to a third less time.
        return images.contiguous(memory_format=torch.channels_last)


def share_of_peak(step: int, steps: int, warm_up: float = 0.3) -> float:
    """Return the learning rate of a step as a share of its peak: half a cosine up, half a cosine down, once.

    The first step is taken at the peak where there is no warm-up, or no room for it.
    """
    up = max(1, round(warm_up * steps))
    place = (step + 1) / up if step < up else 1 + (step + 1 - up) / (steps + 1 - up)
    return (1 - math.cos(math.pi * place)) / 2


def augmentations(transforms: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return torchvision's transforms (v2) by these names, in their order.

    They see one image at a time, uint8 (3, H, W), and must keep that. Raises CompressionError for a name or an argument
    that torchvision does not know.
    """
    from torchvision.transforms import v2

    from robustgate.core.errors import nearest

    made = {}
    for name, args in transforms.items():
        kind = getattr(v2, name, None)
        if not (isinstance(kind, type) and issubclass(kind, v2.Transform)):
            known = [one for one in dir(v2) if one[0].isupper()]
            raise CompressionError(f"transforms: torchvision.transforms.v2 has no {name!r}{nearest(name, known)}")
        try:
            made[name] = kind(**args)
        except (TypeError, ValueError) as error:
            raise CompressionError(f"transforms.{name}: {error}") from error
    return made


@contextmanager
def fixed_statistics(module: nn.Module) -> Iterator[None]:
    """Let a second look at a batch leave the running statistics of batch normalisation as they are.

    The batch is still normalised by its own statistics, so that both looks see the same network.
    """
    from torch.nn.modules.batchnorm import _NormBase

    following = [layer for layer in module.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]
    for layer in following:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in following:
            layer.track_running_stats = True
