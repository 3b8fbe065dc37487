"""Over all its shifts, a variant keeps to the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from robustgate.core.records import Variant
    from robustgate.pytest_plugin.fixtures import CaseGate


@pytest.mark.overall
def test_overall(variant: Variant, gate: CaseGate) -> None:
    """Measure what the policy's rules on outcomes need of the variant and its reference, and apply them."""
    gate.check_overall(variant)
