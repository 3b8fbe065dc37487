"""Weighted sums of pieces of rows that begin anywhere: each image its own shift or crop, all in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def weighted_rows(planes: Tensor, begins: Tensor, weights: Tensor, width: int) -> Tensor:
    """Return (R, width): in row r the sum over t of ``weights[t]`` times the `width` values from ``begins[r, t]`` on.

    `begins` (R, T) int64 count the values of `planes`, whose rows lie one behind the other. The last `width` values of
    all must not be asked for.
    """
    from torch.nn import functional

    pieces = planes.contiguous().as_strided((planes.numel() - width + 1, width), (1, 1))
    # With an index to pass over, torch reads the overlapping pieces where they are; without one it copies them all.
    return functional.embedding_bag(
        begins,
        pieces,
        mode="sum",
        per_sample_weights=weights.expand(begins.shape),
        padding_idx=len(pieces) - 1,
    )
