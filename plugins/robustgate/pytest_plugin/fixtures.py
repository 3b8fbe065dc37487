"""The fixtures of the gate: `case`, `variant`, `shift`, `gate`. A user's own tests have them too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from robustgate.core.errors import RobustgateError
from robustgate.core.records import Case, CaseResult, Shift, Variant, VariantRecord
from robustgate.pytest_plugin import GATE

if TYPE_CHECKING:
    from robustgate.engine.subjects import Subject
    from robustgate.pytest_plugin.session import GateSession


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Any:
    """One planned case; the test is parametrized over all of them, or over the kinds that its markers name."""
    return request.param


@pytest.fixture
def variant(case: Case) -> Variant:
    """The case's variant; a test that asks for neither `case` nor `shift` is parametrized over the variants."""
    return case.variant


@pytest.fixture
def shift(case: Case) -> Shift:
    """The case's shift."""
    return case.shift


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> CaseGate:
    """The gate: measures, judges, and fails the test that a rule condemns."""
    return CaseGate(request.config.stash[GATE], request.node)


class CaseGate:
    """The gate in the hands of one test; what it measures goes into the report."""

    def __init__(self, session: GateSession, item: pytest.Item) -> None:
        self._session = session
        self._item = item

    def check(self, case: Case) -> CaseResult:
        """Measure and judge a case; fail the test where the policy says so. Returns the case's row."""
        try:
            result = self._session.measure(case)
            record = self._session.gate.record(case.variant)
        except RobustgateError as error:
            result, record = CaseResult.of(case, verdict="error", message=str(error)), None
        result = self._session.with_reproduction(case, result)
        self._session.note(self._item, case=result, variant=record)
        if self._session.is_red(result.verdict):
            pytest.fail(self._session.explain(result), pytrace=False)
        return result

    def check_cost(self, variant: Variant) -> VariantRecord:
        """Build a variant and apply the policy's rules on variants; fail the test where one is broken."""
        try:
            record = self._session.gate.record(variant)
            findings = self._session.gate.judge_variant(variant)
        except RobustgateError as error:
            pytest.fail(str(error), pytrace=False)
        self._session.note(self._item, variant=record, findings=findings)
        if any(self._session.is_red(finding.verdict) for finding in findings):
            pytest.fail(self._session.explain_cost(variant, findings), pytrace=False)
        return record

    def subject(self, variant: Variant) -> Subject:
        """Return the variant, built and loaded: ``gate.subject(variant).logits(images)``."""
        return self._session.gate.subject(variant)
