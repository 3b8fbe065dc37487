"""ONNX's Resize in torch: nearest and linear, one axis after the other, in ONNX's own coordinates.

torch's ``interpolate`` knows only some of the coordinate and rounding modes, so positions are computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustgate.core.errors import ModelError
from robustgate.twin.arithmetic import rounding


def resize(
    x: Tensor,
    roi: Tensor | None = None,  # noqa: ARG001 - of a coordinate mode that is refused
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,  # noqa: ARG001 - of a mode that is refused
    exclude_outside: int = 0,  # noqa: ARG001 - same
    extrapolation_value: float = 0.0,  # noqa: ARG001 - same
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    codes: bool = False,
) -> Tensor:
    """Resize, nearest or linear, one axis after the other. Of `codes`, what is between two is cut off."""
    if antialias or keep_aspect_ratio_policy != "stretch" or mode not in ("nearest", "linear"):
        raise ModelError(
            f"resizes with mode = {mode!r}, antialias = {antialias}, "
            f"keep_aspect_ratio_policy = {keep_aspect_ratio_policy!r}; expected nearest or linear, 0, 'stretch'"
        )
    where = COORDINATES.get(coordinate_transformation_mode)
    pick = NEAREST.get(nearest_mode)
    if where is None or pick is None:
        raise ModelError(f"resizes with {coordinate_transformation_mode!r} coordinates and {nearest_mode!r}")
    given = scales if sizes is None or not sizes.numel() else sizes
    if given is None:
        raise ModelError("resizes without scales and sizes")
    for axis, amount in zip(axes or range(x.dim()), given.tolist(), strict=True):
        old = x.shape[axis]
        scale = amount if given is scales else amount / old
        new = math.floor(old * scale) if given is scales else amount
        if new == old and scale == 1:
            continue
        # Coordinates are few: computed on the host, in double precision.
        at = where(torch.arange(new, dtype=torch.float64), scale, old, new)
        if mode == "nearest":
            x = x.index_select(axis, pick(at).clamp(0, old - 1).long().to(x.device))
        else:
            x = interpolate_axis(x, axis, at.clamp(0, old - 1))
    return rounding(torch.trunc)(x) if codes and mode == "linear" else x


def upsample(x: Tensor, scales: Tensor | Sequence[float], *, mode: str = "nearest") -> Tensor:
    """Upsample, which Resize replaced in opset 10."""
    factors = torch.as_tensor(scales, dtype=torch.float64)
    return resize(x, None, factors, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def interpolate_axis(x: Tensor, axis: int, at: Tensor) -> Tensor:
    """Return `x` at the fractional positions `at` along `axis`."""
    low = at.floor()
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    shape = [1] * x.dim()
    shape[axis] = -1
    weight = (at - low).to(x).reshape(shape)
    left = x.index_select(axis, low.long().to(x.device))
    return left * (1 - weight) + x.index_select(axis, high.long().to(x.device)) * weight


# From (positions in the output, scale, old size, new size) to positions in the input.
COORDINATES: dict[str, Callable[[Tensor, float, int, int], Tensor]] = {
    "half_pixel": lambda at, scale, _old, _new: (at + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda at, scale, _old, new: (at + 0.5) / scale - 0.5 if new > 1 else at * 0,
    "asymmetric": lambda at, scale, _old, _new: at / scale,
    "align_corners": lambda at, _scale, old, new: at * (old - 1) / max(new - 1, 1),
}
NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda at: torch.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: torch.floor(at + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}
