"""Operators that move values and compute shapes, as ONNX defines them, in torch.

A function takes a node's inputs by position and its attributes by name, under ONNX's own names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from robustgate.core.errors import ModelError

Integers = Tensor | Sequence[int]


def listed(values: Integers | None) -> list[int]:
    """Return integers as a list, whether they came as an attribute or as an input."""
    if values is None:
        return []
    return [int(value) for value in (values.flatten().tolist() if isinstance(values, Tensor) else values)]


def reshape(data: Tensor, shape: Integers, *, allowzero: int = 0) -> Tensor:
    """Reshape; a 0 keeps the size of that axis."""
    sizes = listed(shape)
    if not allowzero:
        sizes = [data.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return data.reshape(sizes)


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """Flatten to a matrix."""
    axis = axis if axis >= 0 else axis + x.dim()
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """Transpose."""
    return x.permute(*(perm or range(x.dim() - 1, -1, -1)))


def concat(*inputs: Tensor, axis: int) -> Tensor:
    """Concat."""
    return torch.cat(inputs, axis)


def split(
    x: Tensor,
    split: Integers | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,  # noqa: ARG001 - the node has as many
    outputs: int,
) -> tuple[Tensor, ...]:
    """Split; without sizes into equal parts, the last one smaller where it must be."""
    sizes = listed(split) or math.ceil(x.shape[axis] / outputs)
    return tuple(x.split(sizes, axis))  # type: ignore[no-untyped-call]


def slice_(
    data: Tensor, starts: Integers, ends: Integers, axes: Integers | None = None, steps: Integers | None = None
) -> Tensor:
    """Slice; Python's own rules for negative positions, those beyond the end, and negative steps are ONNX's too."""
    begins = listed(starts)
    for axis, begin, end, step in zip(
        listed(axes) or range(len(begins)), begins, listed(ends), listed(steps) or [1] * len(begins), strict=True
    ):
        kept = range(data.shape[axis])[begin:end:step]
        if step == 1:
            data = data.narrow(axis, kept.start if kept else 0, len(kept))
        else:
            data = data.index_select(axis, torch.tensor(list(kept), dtype=torch.int64, device=data.device))
    return data


def pad(
    data: Tensor,
    pads: Integers,
    constant_value: Tensor | None = None,
    axes: Integers | None = None,
    *,
    mode: str = "constant",
    value: float = 0.0,
) -> Tensor:
    """Pad, or crop where an amount is negative."""
    amounts = listed(pads)
    begins, ends = amounts[: len(amounts) // 2], amounts[len(amounts) // 2 :]
    by_axis = {axis % data.dim(): (begins[i], ends[i]) for i, axis in enumerate(listed(axes) or range(len(begins)))}
    if mode == "constant":
        filling = value if constant_value is None else constant_value.item()
        flat = [amount for axis in reversed(range(data.dim())) for amount in by_axis.get(axis, (0, 0))]
        return functional.pad(data, flat, value=filling)
    if mode not in BORDERS:
        raise ModelError(f"pads with mode = {mode!r}")
    for axis, (begin, end) in by_axis.items():
        if begin or end:
            size = data.shape[axis]
            positions = BORDERS[mode](torch.arange(-begin, size + end), size)
            data = data.index_select(axis, positions.to(data.device))
    return data


def reflect(at: Tensor, size: int) -> Tensor:
    """Mirror positions into [0, size), the border pixel not doubled."""
    folded = at.remainder(max(2 * size - 2, 1))
    return torch.minimum(folded, (2 * size - 2 - folded).abs())


# Which pixel stands at a position outside of the image.
BORDERS: Mapping[str, Callable[[Tensor, int], Tensor]] = MappingProxyType(
    {
        "edge": lambda at, size: at.clamp(0, size - 1),
        "reflect": reflect,
        "wrap": lambda at, size: at.remainder(size),
    }
)


def gather(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Gather slices along `axis`; a negative index counts from the end."""
    axis = axis % data.dim()
    size = data.shape[axis]
    rows = torch.where(indices < 0, indices + size, indices).long().flatten().to(data.device)
    return data.index_select(axis, rows).reshape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])


def gather_nd(data: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """GatherND without batch axes: the last axis of `indices` names a place in the first axes of `data`."""
    if batch_dims:
        raise ModelError(f"gathers along batch axes (batch_dims = {batch_dims})")
    places = indices.long().to(data.device)
    sizes = torch.tensor(data.shape[: places.shape[-1]], device=data.device)
    return data[torch.where(places < 0, places + sizes, places).unbind(-1)]


def squeeze(data: Tensor, axes: Integers | None = None) -> Tensor:
    """Squeeze the axes named, or all of size 1."""
    dims = listed(axes)
    return data.squeeze(tuple(dims)) if dims else data.squeeze()


def unsqueeze(data: Tensor, axes: Integers) -> Tensor:
    """Unsqueeze; axes count in the result."""
    dims = listed(axes)
    rank = data.dim() + len(dims)
    for axis in sorted(axis % rank for axis in dims):
        data = data.unsqueeze(axis)
    return data


def shape(data: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """Shape, on the host."""
    return torch.tensor(list(data.shape)[start:end], dtype=torch.int64)


def constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    """ConstantOfShape, float zeros by default."""
    filling = torch.zeros(1) if value is None else value
    return filling.reshape(()).expand(listed(shape)).clone()


def expand(x: Tensor, shape: Integers) -> Tensor:
    """Expand; an axis is broadcast in either direction."""
    return x.expand(torch.broadcast_shapes(x.shape, listed(shape)))  # type: ignore[no-untyped-call]


def tile(x: Tensor, repeats: Integers) -> Tensor:
    """Tile."""
    return x.repeat(listed(repeats))


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """DepthToSpace; the channels of a block are the outer ones (DCR) or the inner ones (CRD)."""
    if mode not in ("DCR", "CRD"):
        raise ModelError(f"orders blocks by mode = {mode!r}")
    batch, channels, height, width = x.shape
    rest, size = channels // blocksize**2, blocksize
    blocks = x.reshape(batch, size, size, rest, height, width)
    if mode == "CRD":
        blocks = x.reshape(batch, rest, size, size, height, width).permute(0, 2, 3, 1, 4, 5)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(batch, rest, height * size, width * size)


def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    """SpaceToDepth."""
    batch, channels, height, width = x.shape
    size = blocksize
    blocks = x.reshape(batch, channels, height // size, size, width // size, size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * size**2, height // size, width // size)
