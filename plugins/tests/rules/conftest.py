"""A variant's record and its reference's, for rules to judge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from robustgate.core.records import Timing, VariantRecord


@pytest.fixture
def record() -> VariantRecord:
    """A compressed variant: every figure another number."""
    return VariantRecord(
        name="net-fp60-amazon",
        model="net",
        source="amazon",
        compression="fp60",
        format="onnx",
        artifact_sha256="00",
        parameters=10,
        nonzero_parameters=5,
        size_bytes=1234,
        deflated_bytes=100,
        seconds_to_build=0.0,
        latency_ms=4.0,
        timings=(timing(1, 4.0, 0.8), timing(32, 90.0, 0.6)),
        memory_bytes=5_000_000,
    )


@pytest.fixture
def reference(record: VariantRecord) -> VariantRecord:
    """Its reference."""
    return replace(record, compression="none", parameters=40, size_bytes=2468, deflated_bytes=350)


def timing(batch: int, median_ms: float, ratio: float) -> Timing:
    """A timing whose intervals reach a tenth to each side."""
    return Timing(
        batch=batch,
        rounds=100,
        median_ms=median_ms,
        low_ms=0.9 * median_ms,
        high_ms=1.1 * median_ms,
        reference_ms=median_ms / ratio,
        ratio=ratio,
        ratio_low=0.9 * ratio,
        ratio_high=1.1 * ratio,
    )
