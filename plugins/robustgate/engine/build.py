"""Variants built ahead of a run, one after the other, each with a line that says how it went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from robustgate.core.errors import RobustgateError
from robustgate.core.records import Variant
from robustgate.engine.course import Pupil, unheard
from robustgate.engine.export import export
from robustgate.engine.gate import Gate
from robustgate.engine.plan import Plan


def build_all(
    plan: Plan, variants: Sequence[Variant], folder: Path | None = None, pupil: Pupil = unheard
) -> Iterator[tuple[str, bool]]:
    """Build or fetch variants, and export each into `folder` where there is one; `pupil` hears of trainings.

    Yields a line for each, and whether it is an error: one that cannot be built does not keep the others from it.
    """
    gate = Gate(plan, today=datetime.now(UTC).date(), pupil=pupil)
    width = max(len(variant.name) for variant in variants)
    for variant in variants:
        began = time.perf_counter()
        try:
            record = gate.record(variant)
            place = export(gate.foundry, variant, record, folder) if folder is not None else None
        except RobustgateError as error:
            yield f"robustgate: {error}", True
            continue
        kept = gate.foundry.artifact(variant).kept
        how = "kept" if kept else f"built in {time.perf_counter() - began:.1f} s"
        size = f"{record.size_bytes / 1000:>10,.0f} kB {record.format}"
        yield f"{variant.name:<{width}} {size}  {how}" + (f"  → {place}" if place else ""), False
