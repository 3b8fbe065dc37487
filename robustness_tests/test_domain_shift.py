"""On another domain, every variant keeps to the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from robustgate.core.records import Case
    from robustgate.pytest_plugin.fixtures import CaseGate


@pytest.mark.domain_shift
def test_domain_shift(case: Case, gate: CaseGate) -> None:
    """Measure the case and apply the policy's rules to it."""
    gate.check(case)
