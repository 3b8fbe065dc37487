"""What a variant costs on the device keeps to the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from robustgate.core.records import Variant
    from robustgate.pytest_plugin.fixtures import CaseGate


@pytest.mark.cost
def test_cost(variant: Variant, gate: CaseGate) -> None:
    """Build the variant and apply the policy's rules on variants to it."""
    gate.check_cost(variant)
