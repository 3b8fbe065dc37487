"""`--robustgate-github`: annotations at the end of the run, and report.md in the summary of the step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from robustgate.reports.github import SUMMARY_BYTES, Source, commands

if TYPE_CHECKING:
    from robustgate.pytest_plugin.session import GateSession

SUMMARY = "GITHUB_STEP_SUMMARY"


class GithubOutput:
    """The plugin object that tells GitHub Actions what a run came to."""

    def __init__(self, gate: GateSession) -> None:
        self.gate = gate

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the annotations, and hand over the summary."""
        if self.gate.results is None:
            return
        for line in commands(self.gate.results, self._source(), self.gate.complaint):
            terminalreporter.write_line(line)
        terminalreporter.write_line(self._summarize(self.gate.report.with_name("report.md")))

    def _source(self) -> Source:
        path = self.gate.source
        root = Path(os.environ.get("GITHUB_WORKSPACE") or self.gate.config.invocation_params.dir).resolve()
        place = path.resolve()
        file = place.relative_to(root).as_posix() if place.is_relative_to(root) else None
        return Source(file=file, text=path.read_text(encoding="utf-8"))

    def _summarize(self, report: Path) -> str:
        """Append a report to the summary of the step, and say so, or why not."""
        named = os.environ.get(SUMMARY)
        if not named:
            return f"no step summary was written: {SUMMARY} is not set"
        text = f"\n{report.read_text(encoding='utf-8')}".encode()
        try:
            with Path(named).open("ab") as summary:
                if summary.tell() + len(text) > SUMMARY_BYTES:
                    return f"no step summary was written: {named} would be over 1 MiB, of which GitHub shows nothing"
                summary.write(text)
        except OSError as error:
            return f"no step summary was written: {error}"
        return f"step summary: {report.name} appended to {named}"
