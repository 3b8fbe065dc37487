"""Between images in [0, 1] and a model file: what it wants to see, what its outputs mean, how many it takes at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustgate.core.components import Reading
from robustgate.core.errors import MeasurementError

Shape = tuple[int | None, ...]
"""The sizes of a file's input, its batch first; None is a size that varies."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """The way through one model file: `reading` says how it wants its images, `shape` what it was made for.

    A file whose batch size is fixed is run on as many images at a time as it was made for. `name` is for messages.
    """

    reading: Reading
    shape: Shape | None
    name: str

    def through(self, run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Return the logits (N, classes) of `images` (N, 3, H, W), RGB, in [0, 1].

        `run` maps the file's own input to its output; gradients flow where it lets them. Raises MeasurementError
        where the images are not of the file's size.
        """
        inputs = prepare(images, self.reading)
        if self.shape is None:
            outputs = run(inputs)
        else:
            self._check(inputs)
            outputs = run(inputs) if self.shape[0] is None else in_batches(run, inputs, self.shape[0])
        return outputs[:, self.reading.skip_outputs :]

    def _check(self, inputs: Tensor) -> None:
        wanted = (self.shape or ())[1:]
        got = tuple(inputs.shape[1:])
        if len(wanted) != len(got) or any(size not in (None, real) for size, real in zip(wanted, got, strict=True)):
            sizes = ", ".join("any" if size is None else str(size) for size in wanted)
            raise MeasurementError(
                f"{self.name}: the file takes inputs of ({sizes}), and the images are {got} in the layout "
                f"{self.reading.layout!r} that its input table names"
            )


class Read(nn.Module):
    """A module that runs a file's graph, seen from images in [0, 1] to logits of the domain's classes."""

    def __init__(self, module: nn.Module, passage: Passage) -> None:
        super().__init__()
        self.module = module
        self.passage = passage

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        return self.passage.through(self.module, images)


def prepare(images: Tensor, reading: Reading) -> Tensor:
    """Return images (N, 3, H, W), RGB, in [0, 1] as a file wants them; differentiable. The default changes nothing."""
    ordered = images if reading.channels == "rgb" else images.flip(1)
    scaled = ordered * (reading.high - reading.low) + reading.low
    mean, std = (scaled.new_tensor(values)[:, None, None] for values in (reading.mean, reading.std))
    inputs = (scaled - mean) / std
    return inputs if reading.layout == "nchw" else inputs.permute(0, 2, 3, 1).contiguous()


def in_batches(run: Callable[[Tensor], Tensor], inputs: Tensor, size: int) -> Tensor:
    """Return what `run` gives for `inputs`, always `size` at a time; the last batch is filled with its last input."""
    missing = -len(inputs) % size
    filled = torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])]) if missing else inputs
    return torch.cat([run(part) for part in torch.split(filled, size)])[: len(inputs)]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a file stores numbers: as they are, or as integers of which (stored - zero_point) * scale is the number."""

    dtype: np.dtype[Any]
    scale: float = 1.0
    zero_point: int = 0

    def encode(self, numbers: Tensor) -> NDArray[Any]:
        """Return numbers as the file stores them: rounded to the nearest, and clipped to what its type holds."""
        values = numbers.detach().cpu().numpy()
        if self.dtype.kind == "f":
            return values.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        stored: NDArray[Any] = np.clip(np.rint(values / self.scale) + self.zero_point, limits.min, limits.max)
        return stored.astype(self.dtype)

    def decode(self, stored: NDArray[Any]) -> Tensor:
        """Return the numbers, float32, that `stored` stands for."""
        numbers = stored.astype(np.float32)
        return torch.from_numpy(numbers if self.dtype.kind == "f" else (numbers - self.zero_point) * self.scale)
