"""The gate of one pytest session: plans, parametrizes, collects what was measured, writes the reports."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from robustgate.config import expose, load
from robustgate.core.errors import ConfigurationError
from robustgate.core.records import Case, CaseResult, Finding, Results, Variant, VariantRecord
from robustgate.engine.complaints import gap, left_out
from robustgate.engine.explain import told
from robustgate.engine.plan import Plan, make_plan
from robustgate.engine.processor import processor
from robustgate.engine.results import VARIANT_TESTS, Circumstances, assemble, key, rules_of, shown_path
from robustgate.engine.store import code_version
from robustgate.pytest_plugin import MARKERS, SUITE, option
from robustgate.pytest_plugin.benchmarks import quieten
from robustgate.pytest_plugin.items import NOT_PLANNED, case_of, id_of, is_ours, judged_by, variant_of, variant_test
from robustgate.pytest_plugin.junit import properties
from robustgate.pytest_plugin.progress import LiveDisplay, named
from robustgate.pytest_plugin.sharding import part_of, shard_of
from robustgate.pytest_plugin.turns import times, turns_of
from robustgate.reports import history

if TYPE_CHECKING:
    from robustgate.engine.gate import Gate

SELECTED = "robustgate_selected"


@dataclass(frozen=True, kw_only=True)
class Note:
    """What one test measured, on its way from a worker to the process that writes the report."""

    case: CaseResult | None = None
    variant: VariantRecord | None = None
    findings: tuple[Finding, ...] = ()
    device: str | None = None


NOTES = TypeAdapter(list[Note])
ITEM_NOTES = pytest.StashKey[list[Note]]()


class GateSession:
    """The plugin object of one session; under pytest-xdist the controller and each worker has its own."""

    def __init__(self, config: pytest.Config, source: Path, *, eager: bool) -> None:
        self.config = config
        self.source = source
        self.eager = eager
        self.is_worker = hasattr(config, "workerinput")
        self.began = datetime.now(UTC)
        self.clock = time.perf_counter()
        self.notes: list[Note] = []
        self.selected: set[tuple[str, str]] = set()
        self.results: Results | None = None
        self.complaint = ""
        self.unkept = ""
        self.live = LiveDisplay(config)
        config.pluginmanager.register(self.live, "robustgate.live")
        self.turns = turns_of(config)
        self.shard = shard_of(config)
        expose(source)

    # What tests use.

    @cached_property
    def plan(self) -> Plan:
        """The plan. Raises ConfigurationError."""
        engine = option(self.config, "engine") or "local"
        if engine != "local":
            raise ConfigurationError([f"--robustgate-engine: expected 'local', got {engine!r}"])
        return make_plan(load(self.source), option(self.config, "policy"))

    @cached_property
    def _names(self) -> str:
        return "\n".join(case.name for case in self.plan.cases)

    @cached_property
    def _judges_variants(self) -> bool:
        return any(judging.run_rules for judging in self.plan.policies)

    @cached_property
    def gate(self) -> Gate:
        """The gate; torch is imported here, by the first case that is measured."""
        from robustgate.engine.gate import Gate

        device = option(self.config, "device")
        self.live.confidence = self.plan.policies[0].policy.confidence
        return Gate(
            self.plan,
            today=self.began.date(),
            device=device,
            progress=self.live.show,
            is_selected=lambda case: key(case) in self.selected,
            # A worker opens its gate at its first case, when others may have measured already.
            since=self.began.timestamp(),
        )

    def measure(self, case: Case) -> CaseResult:
        """Measure and judge a case, and export its adversarial examples where asked. Raises RobustgateError."""
        examples = option(self.config, "examples")
        try:
            result = self.gate.result(case)
            if examples is not None and case.shift.kind == "adversarial":
                self.gate.export_examples(case, self.config.invocation_params.dir / examples)
            return result
        finally:
            self.live.clear()

    def overall(self, variant: Variant) -> tuple[VariantRecord, tuple[Finding, ...]]:
        """Judge a variant over its shifts, measuring what that needs. Raises RobustgateError."""
        try:
            return self.gate.overall(variant)
        finally:
            self.live.clear()

    def reddens(self, finding: Finding) -> bool:
        """Say whether a finding fails its test: whether its own policy says so."""
        return self.plan.policy(finding.policy).is_red(finding.verdict)

    def is_red(self, result: CaseResult) -> bool:
        """Say whether a case fails its test: it could not be measured, or one of its findings says so."""
        return result.value is None or any(map(self.reddens, result.findings))

    def explain_cost(self, variant: Variant, findings: Sequence[Finding], test: str) -> str:
        """Return a variant's broken rules as its failing test prints them."""
        lines = [f"{variant.model} / {variant.compression} / {variant.source}"]
        lines += [f"  {told(finding)}" for finding in findings if finding.verdict != "pass"]
        return "\n".join([*lines, f"  {self._command(variant.name, test)}"])

    def with_reproduction(self, case: Case, result: CaseResult) -> CaseResult:
        """Return the result with the command that measures this case alone."""
        return replace(result, reproduce=self._command(case.name, case.shift.kind))

    def note(self, item: pytest.Item, **measured: Any) -> None:
        """Keep what a test measured, for its report."""
        device = str(self.gate.device) if "gate" in vars(self) else None  # a gate that could not open has none
        note = Note(**measured, device=device)
        item.stash.setdefault(ITEM_NOTES, []).append(note)
        item.user_properties += properties(note.case, note.variant, note.findings)

    def _command(self, name: str, kind: str) -> str:
        # Where other tests have this name in theirs, the test's whole name with its brackets is what -k can tell apart.
        ambiguous = self._names.count(name) > 1 or kind in VARIANT_TESTS or (kind == "clean" and self._judges_variants)
        words = ["pytest", "--pyargs", SUITE, "--robustgate-config", shown_path(self.source)]
        if policy := option(self.config, "policy"):
            words += ["--robustgate-policy", policy]
        expression = f"test_{kind}[{name}]" if ambiguous else name
        return f'{shlex.join(words)} -k "{expression}"'

    # Hooks, in the order in which pytest calls them.

    def pytest_sessionstart(self) -> None:
        """Show a mistake in the configuration at once, where the gate was asked for by name."""
        if self.eager:
            try:
                _ = self.plan
            except ConfigurationError as error:
                raise pytest.UsageError(f"robustgate: {error}") from error

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize every test that uses the gate's own `case` or `variant`."""
        if not is_ours(metafunc, "case"):
            return
        try:
            plan = self.plan
        except ConfigurationError as error:
            raise pytest.Collector.CollectError(f"robustgate: {error}") from error
        kinds = {kind for kind in MARKERS if metafunc.definition.get_closest_marker(kind)}
        asked = set(metafunc.definition._fixtureinfo.argnames)
        if "variant" in asked and not asked & {"case", "shift"}:
            test = variant_test(kinds)
            variants = [one for one in plan.variants if test is None or rules_of(test, plan.rules_on(one))]
            names = [one.name for one in variants] or [NOT_PLANNED]
            metafunc.parametrize("variant", variants or [None], ids=names)
            return
        cases = [case for case in plan.cases if not kinds or case.shift.kind in kinds]
        names = [case.name for case in cases] or [NOT_PLANNED]
        metafunc.parametrize("case", cases or [None], ids=names, indirect=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Take out tests that this configuration plans nothing for; mark the others with their kind."""
        kept = [item for item in items if id_of(item) != NOT_PLANNED]
        if self.shard is not None:
            kept = part_of(kept, *self.shard)
        for item in items:
            case = case_of(item)
            if case is not None and item.get_closest_marker(case.shift.kind) is None:
                item.add_marker(case.shift.kind)
        if len(kept) < len(items):
            stays = set(kept)
            config.hook.pytest_deselected(items=[item for item in items if item not in stays])
            items[:] = kept
        if self.is_worker:
            # Workers take runs of neighbours: with a variant's cases side by side, two seldom wait for one artifact.
            items.sort(key=variant_of)
            quieten(config, items)
        items.sort(key=times)  # last: all else need not wait for them

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember which cases were selected: those of tests that use the gate."""
        items = [item for item in session.items if "gate" in getattr(item, "fixturenames", ())]
        cases = [case for item in items if (case := case_of(item)) is not None]
        self.selected = {key(case) for case in cases}
        self.selected |= {place for item in items if (place := judged_by(item)) is not None}
        self.live.pace.plan(map(key, cases))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Send what a test measured along with its report; a test that broke is an error, not a gap."""
        report: pytest.TestReport = yield  # type: ignore[assignment]
        case = case_of(item)
        notes = item.stash.get(ITEM_NOTES, [])
        if case is not None and report.failed and not any(note.case for note in notes):
            message = str(call.excinfo.value if call.excinfo else report.longrepr)
            broken = self.with_reproduction(case, CaseResult.of(case, verdict="error", message=message))
            notes = [*notes, Note(case=broken)]
            item.user_properties += properties(broken, None, ())
        if notes and (call.when == "call" or report.failed):
            report.robustgate = NOTES.dump_json(notes).decode()  # type: ignore[attr-defined]
            item.stash[ITEM_NOTES] = []
        return report  # type: ignore[return-value]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what was measured, here or in a worker."""
        sent = getattr(report, "robustgate", None)
        if sent is not None and not self.is_worker:
            self.notes += NOTES.validate_json(sent)
            self.live.count(self.notes[-1].case)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Learn how much there is to do."""
        self.live.pace.plan(named(ids, self.plan.cases))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take from a finished worker which cases it had selected; all workers select the same."""
        self.selected |= {tuple(pair) for pair in getattr(node, "workeroutput", {}).get(SELECTED, [])}

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Judge the run as a whole, write its reports, and turn it red where something was not measured."""
        self.live.clear()
        if self.is_worker:
            self.config.workeroutput[SELECTED] = sorted(self.selected)  # type: ignore[attr-defined]
            return
        if self.config.option.collectonly or not (self.selected or self.notes):
            return
        self.results = self._assemble()
        from robustgate.engine.reporting import write_reports  # and with it SciPy

        folder = self.config.invocation_params.dir / (option(self.config, "report") or "robustgate-report")
        kept = self.plan.configuration.gate.history_file
        self.unkept = history.keep(self.results, kept)
        self.report = write_reports(self.results, folder, kept)
        self.complaint = self._complaint(self.results)
        if self.complaint and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _assemble(self) -> Results:
        devices = {note.device for note in self.notes if note.device}
        circumstances = Circumstances(
            id=self.began.strftime("%Y%m%dT%H%M%S"),
            started=self.began,
            seconds=time.perf_counter() - self.clock,
            device=", ".join(sorted(devices)) or "none",
            processor=processor(),
            versions=code_version(),
        )
        cases = [note.case for note in self.notes if note.case]
        variants = [note.variant for note in self.notes if note.variant]
        return assemble(
            self.plan,
            {key(case): case for case in cases},
            variants,
            [finding for note in self.notes for finding in note.findings],
            self.selected | {key(case) for case in cases},
            circumstances,
        )

    def _complaint(self, results: Results) -> str:
        """Return why a run whose tests all passed is red all the same, or an empty text."""
        found = gap(results)
        if not found and self.config.getoption("robustgate_complete") and (left := left_out(results)):
            return f"--robustgate-complete: {left}"
        return found

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the verdict of the run."""
        if self.results is None:
            return
        from robustgate.engine.baseline import unused
        from robustgate.pytest_plugin.closing import write_summary, write_tables

        write_summary(self.results, terminalreporter)
        if left_over := unused(self.plan.configuration.gate.baseline, self.results):
            terminalreporter.write_line(left_over)
        write_tables(self.results, terminalreporter)
        terminalreporter.write_line(f"report: {shown_path(self.report)}")
        if self.unkept:
            terminalreporter.write_line(self.unkept, yellow=True)
        if self.complaint:
            terminalreporter.write_line(f"red: {self.complaint}", red=True, bold=True)
