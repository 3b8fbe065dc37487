"""Mild transformations of images, by amounts in whole steps: what a stability rule searches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robustgate.corruptions.jpeg_compression import through_jpeg
from robustgate.rules.stability import RANGES

Amount = tuple[int, ...]
"""Steps along each of a transformation's axes; all zero is the image itself."""


@dataclass(frozen=True, kw_only=True)
class Transformation:
    """A transformation of images (N, 3, H, W) in [0, 1], by real amounts that are multiples of `step`.

    It has `axes` amounts, each of which goes both ways unless it is `one_sided`.
    """

    step: float
    apply: Callable[[Tensor, tuple[float, ...]], Tensor]
    show: Callable[[tuple[float, ...]], str]
    axes: int = 1
    one_sided: bool = False

    def amounts(self, steps: Amount) -> tuple[float, ...]:
        """Return the real amounts of so many steps."""
        return tuple(round(one * self.step, 6) for one in steps)

    def most(self, limit: float) -> int:
        """Return how many whole steps fit within a limit."""
        return math.floor(limit / self.step + 1e-9)


def brightness(images: Tensor, amounts: tuple[float, ...]) -> Tensor:
    """Add an amount to every value."""
    return images + amounts[0]


def contrast(images: Tensor, amounts: tuple[float, ...]) -> Tensor:
    """Scale every value about its image's mean by 1 + amount."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (1 + amounts[0]) * (images - mean)


def gamma(images: Tensor, amounts: tuple[float, ...]) -> Tensor:
    """Raise every value to the power 1 + amount: above 0 darker, below it brighter."""
    return images ** (1 + amounts[0])


def shift(images: Tensor, amounts: tuple[float, ...]) -> Tensor:
    """Move the picture to the right and down by whole pixels; the border is repeated."""
    right, down = (int(amount) for amount in amounts)
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    return images[:, :, rows][:, :, :, columns]


def rotation(images: Tensor, amounts: tuple[float, ...]) -> Tensor:
    """Turn the picture about its centre, counterclockwise, by degrees; bilinear, the border is repeated."""
    height, width = images.shape[-2:]
    cosine, sine = math.cos(math.radians(amounts[0])), math.sin(math.radians(amounts[0]))
    # grid_sample's coordinates run from -1 to 1 along each side, whatever its length.
    turn = torch.tensor(
        [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]], device=images.device
    )
    grid = functional.affine_grid(turn.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def jpeg(images: Tensor, amounts: tuple[float, ...]) -> Tensor:
    """Write the picture as a JPEG file of quality 100 - amount, and read it."""
    return through_jpeg(images, 100 - int(amounts[0]))


def _moved(amounts: tuple[float, ...]) -> str:
    right, down = (int(amount) for amount in amounts)
    words = [f"{abs(right)} px {'right' if right > 0 else 'left'}"] if right else []
    words += [f"{abs(down)} px {'down' if down > 0 else 'up'}"] if down else []
    return "a shift by " + (" and ".join(words) or "0 px")


def _turned(amounts: tuple[float, ...]) -> str:
    return f"a rotation by {abs(amounts[0]):g}° {'counterclockwise' if amounts[0] > 0 else 'clockwise'}"


TRANSFORMATIONS: Mapping[str, Transformation] = {
    "brightness": Transformation(
        step=RANGES["brightness"].step, apply=brightness, show=lambda by: f"brightness {by[0]:+.2f}"
    ),
    "contrast": Transformation(
        step=RANGES["contrast"].step, apply=contrast, show=lambda by: f"contrast times {1 + by[0]:.2f}"
    ),
    "gamma": Transformation(step=RANGES["gamma"].step, apply=gamma, show=lambda by: f"gamma {1 + by[0]:.2f}"),
    "shift": Transformation(step=RANGES["shift"].step, apply=shift, show=_moved, axes=2),
    "rotation": Transformation(step=RANGES["rotation"].step, apply=rotation, show=_turned),
    "jpeg": Transformation(
        step=RANGES["jpeg"].step, apply=jpeg, show=lambda by: f"JPEG quality {100 - by[0]:.0f}", one_sided=True
    ),
}
"""By the names that a stability rule gives them, in the order in which they are applied together."""


def transformed(images: Tensor, steps: Mapping[str, Amount]) -> Tensor:
    """Return images (N, 3, H, W) after the transformations of `steps`, in their own order, on 8-bit levels again."""
    for name, transformation in TRANSFORMATIONS.items():
        if any(steps.get(name, ())):
            images = transformation.apply(images, transformation.amounts(steps[name])).clamp(0, 1)
    return images.mul(255).round().div(255)


def told(steps: Mapping[str, Amount]) -> str:
    """Return the transformations of `steps` in words: ``brightness +0.11``."""
    words = [
        transformation.show(transformation.amounts(steps[name]))
        for name, transformation in TRANSFORMATIONS.items()
        if any(steps.get(name, ()))
    ]
    return " with ".join(words)
