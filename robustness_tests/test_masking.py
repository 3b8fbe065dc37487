"""No variant stands under attack only because its gradients mislead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from robustgate.core.records import Case
    from robustgate.pytest_plugin.fixtures import CaseGate


@pytest.mark.masking
def test_masking(case: Case, gate: CaseGate) -> None:
    """Run the six checks of the case and judge what they found."""
    gate.check(case)
