"""No mild transformation of the images changes more of a variant's predictions than the policy allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from robustgate.core.records import Case
    from robustgate.pytest_plugin.fixtures import CaseGate


@pytest.mark.stability
def test_stability(case: Case, gate: CaseGate) -> None:
    """Search for the mildest transformation that breaks the policy's stability rule, and judge what was found."""
    gate.check(case)
