"""How long a variant takes keeps to the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from robustgate.core.records import Variant
    from robustgate.pytest_plugin.fixtures import CaseGate


@pytest.mark.cost
@pytest.mark.latency
def test_latency(variant: Variant, gate: CaseGate, benchmark: BenchmarkFixture) -> None:
    """Time the variant in turn with its reference, alone, and apply the policy's rules on latency to it."""
    gate.check_latency(variant, benchmark)
