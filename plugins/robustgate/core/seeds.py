"""Seeds by name: every random stream is derived from the run's seed and the names of what it is for.

So a result depends neither on the order of cases, nor on the batch, nor on the process that computed it.
"""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream that `names` identify under the run's `seed`.

    Names are joined unambiguously and hashed (SHA-256): neighbouring names give unrelated streams.
    """
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
