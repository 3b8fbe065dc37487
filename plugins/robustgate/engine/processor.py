"""What the processor can do with 8-bit products: results of int8 files may depend on it.

Without such instructions ONNX Runtime's kernels for uint8 x int8 add pairs of products in 16 bits, which saturate
where weights use all 8 bits.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

EXACT = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@cache
def processor() -> str:
    """Return the processor's architecture and the instructions it has for exact 8-bit products.

    ``x86_64 avx512_vnni``, or ``x86_64, 8-bit products may saturate``; elsewhere than on Linux only the architecture.
    """
    machine = platform.machine()
    place = Path("/proc/cpuinfo")
    if not place.exists():
        return machine
    lines = place.read_text(encoding="utf-8", errors="replace").splitlines()
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    found = [name for name in EXACT if name in flags]
    return f"{machine} {' '.join(found)}" if found else f"{machine}, 8-bit products may saturate"
