"""Bytes as people write and read them."""

from __future__ import annotations

import re

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def read_bytes(written: str, key: str) -> float:
    """Return how many bytes ``3 MB`` (10^6) or ``3 MiB`` (2^20) stands for. Raises ValueError."""
    found = re.fullmatch(rf"(\d+(?:\.\d+)?) ?({'|'.join(UNITS)})", written)
    if not found:
        raise ValueError(f"{key} must be a size such as '3 MB' (units {', '.join(UNITS)}), got {written!r}")
    return float(found[1]) * UNITS[found[2]]


def show_bytes(value: float) -> str:
    """Return bytes in the largest decimal unit that keeps the number above one, and whole where that rounds."""
    unit = next(unit for unit in ("GB", "MB", "kB", "B") if value >= UNITS[unit] or unit == "B")
    short = f"{value / UNITS[unit]:.4g} {unit}"
    return short if float(f"{value / UNITS[unit]:.4g}") * UNITS[unit] == value else f"{short} ({value:,.0f} B)"
