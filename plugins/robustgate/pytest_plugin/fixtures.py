"""The fixtures of the gate: `case`, `variant`, `shift`, `gate`. A user's own tests have them too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from robustgate.core.errors import RobustgateError
from robustgate.core.records import Case, CaseResult, Shift, Variant, VariantRecord
from robustgate.engine.explain import explain
from robustgate.pytest_plugin import GATE
from robustgate.pytest_plugin.benchmarks import forget, why_untimed

if TYPE_CHECKING:
    from robustgate.core.records import Finding
    from robustgate.engine.latency import Program
    from robustgate.engine.results import VariantTest
    from robustgate.engine.subjects import Subject
    from robustgate.pytest_plugin.session import GateSession

    Judge = Callable[[], tuple[VariantRecord, tuple[Finding, ...]]]


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
        """Measure and judge a case; fail the test where a policy says so. Returns the case's row."""
        try:
            result = self._session.measure(case)
            record = self._session.gate.record(case.variant)
        except RobustgateError as error:
            result, record = CaseResult.of(case, verdict="error", message=str(error)), None
        result = self._session.with_reproduction(case, result)
        self._session.note(self._item, case=result, variant=record)
        if self._session.is_red(result):
            pytest.fail(explain(result), pytrace=False)
        return result

    def check_cost(self, variant: Variant) -> VariantRecord:
        """Build a variant and apply the policy's rules on variants; fail the test where one is broken."""
        return self._judged(variant, "cost", lambda: self._session.gate.cost(variant))

    def check_overall(self, variant: Variant) -> VariantRecord:
        """Measure what a variant's rules on outcomes need and apply them; fail the test where one is broken."""
        return self._judged(variant, "overall", lambda: self._session.overall(variant))

    def check_latency(self, variant: Variant, benchmark: Any) -> VariantRecord:
        """Time a variant in turn with its reference and apply the policy's rules on latency; fail where one is broken.

        `benchmark` is pytest-benchmark's fixture: it watches the single image. Where something else may run beside the
        test, or benchmarks are switched off, nothing is timed and the findings are incomplete.
        """
        unmeasured = why_untimed(self._item, self._session.turns)
        benchmark.disabled = bool(unmeasured)  # it switches itself off in every worker, but here nothing else runs

        def rounds(before: Program, program: Program, count: int) -> None:
            benchmark.pedantic(program, setup=before, rounds=count)
            if self._session.is_worker:
                forget(self._item.config, benchmark.stats)

        if unmeasured:
            benchmark.pedantic(lambda: None)  # times nothing, and spares the warning that it was not used
        return self._judged(variant, "latency", lambda: self._session.gate.latency(variant, rounds, unmeasured))

    def _judged(self, variant: Variant, test: VariantTest, judge: Judge) -> VariantRecord:
        try:
            record, findings = judge()
        except RobustgateError as error:
            pytest.fail(str(error), pytrace=False)
        self._session.note(self._item, variant=record, findings=findings)
        if any(map(self._session.reddens, findings)):
            pytest.fail(self._session.explain_cost(variant, findings, test), pytrace=False)
        return record

    def subject(self, variant: Variant) -> Subject:
        """Return the variant, built and loaded: ``gate.subject(variant).logits(images)``."""
        return self._session.gate.subject(variant)
