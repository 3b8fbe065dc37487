"""Which samples came out right, as a text: a bit for each, deflated, in base64."""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray


def pack(correct: NDArray[np.bool_]) -> str:
    """Return outcomes (N,) as a text, in their order."""
    return base64.b64encode(zlib.compress(np.packbits(correct).tobytes(), 9)).decode()


def unpack(text: str, n: int) -> NDArray[np.bool_]:
    """Return the outcomes (n,) that a text holds. Raises ValueError unless it holds exactly so many."""
    inflate, size = zlib.decompressobj(), -(-n // 8)
    try:
        # No more than is expected, and a byte: a damaged text may inflate to anything.
        packed = inflate.decompress(base64.b64decode(text, validate=True), size + 1)
    except (ValueError, zlib.error) as error:
        raise ValueError(_expected(n, str(error))) from error
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    if len(packed) != size or not inflate.eof or inflate.unused_data:
        more = "" if inflate.eof and not inflate.unused_data else " and no end there"
        raise ValueError(_expected(n, f"{len(bits):,} bits{more}"))
    if bits[n:].any():
        raise ValueError(_expected(n, "bits behind the last of them"))
    return bits[:n].astype(np.bool_)


def _expected(n: int, got: str) -> str:
    return f"expected the outcomes of {n:,} samples (a bit for each, deflated, in base64), got {got}"
