"""`--robustgate-mlflow EXPERIMENT`: the run in MLflow, wherever MLFLOW_TRACKING_URI says (extra `mlflow`)."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from robustgate.core.records import OverallRecord, Results, VariantRecord
from robustgate.engine.results import shown_path
from robustgate.reports import figures

if TYPE_CHECKING:
    from robustgate.pytest_plugin.session import GateSession

# What every store of MLflow takes for the parts of a metric's name, also one that keeps metrics in files.
PART = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]+")
LONGEST = 250
PARAMETERS = ("policy", "seed", "device", "processor", "config", "config_sha256")
# MLflow's limits for one request.
METRICS, PARAMS = 1000, 100
# Its own, of 7 tries and 120 seconds each, would hold a finished run for a quarter of an hour.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


class MlflowLog:
    """The plugin object that logs a run to MLflow. Raises UsageError where MLflow is not installed."""

    def __init__(self, gate: GateSession, experiment: str) -> None:
        self.gate = gate
        self.experiment = experiment
        self.told = ""
        self.failed = False
        try:
            with warnings.catch_warnings(action="ignore"):
                self.mlflow: Any = import_module("mlflow")
        except ImportError as error:
            raise pytest.UsageError(
                f"robustgate: --robustgate-mlflow needs MLflow, which cannot be imported ({error}): "
                'pip install "robustgate[mlflow]"'
            ) from error

    def pytest_sessionfinish(self) -> None:
        """Log the run, after its reports were written. Whatever MLflow does, the run's verdict stays."""
        if self.gate.results is None:
            return
        try:
            with warnings.catch_warnings(action="ignore"):  # MLflow's own: a project's may be errors
                self.told = self._log(self.gate.results, self.gate.report.parent)
        except Exception as error:  # noqa: BLE001  stores raise what they like, and none of it is the run's
            self.failed = True
            reason = " ".join(str(error).split()) or type(error).__name__
            self.told = f"NOT LOGGED to MLflow's experiment {self.experiment!r}: {reason}"

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell in one line where the run is logged, or that it is not."""
        if self.told:
            terminalreporter.write_line(self.told, **({"red": True, "bold": True} if self.failed else {}))

    def _log(self, results: Results, folder: Path) -> str:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        client, entities = self.mlflow.MlflowClient(), self.mlflow.entities
        known = client.get_experiment_by_name(self.experiment)
        experiment = known.experiment_id if known else client.create_experiment(self.experiment)
        run = client.create_run(experiment, run_name=results.run.id, tags=tags(results)).info.run_id
        params = [entities.Param(name, value) for name, value in parameters(results).items()]
        now = int(time.time() * 1000)
        measured = dict(metrics(results))
        values = [entities.Metric(name, value, now, 0) for name, value in measured.items() if is_legal(name)]
        refused = len(measured) - len(values)
        for start in range(0, len(params), PARAMS):
            client.log_batch(run, params=params[start : start + PARAMS])
        for start in range(0, len(values), METRICS):
            client.log_batch(run, metrics=values[start : start + METRICS])
        client.log_artifacts(run, str(folder))
        client.set_terminated(run)
        left_out = f", without {figures.counted(refused, 'figure')} whose names it does not take" if refused else ""
        return f"MLflow: experiment {self.experiment!r}, run {run}{left_out}: {shown_path(folder)}"


def tags(results: Results) -> dict[str, str]:
    """Return a run's tags."""
    run = results.run
    return {"robustgate.verdict": run.verdict, "robustgate.complete": str(run.complete).lower()}


def parameters(results: Results) -> dict[str, str]:
    """Return what a run was made with."""
    run = results.run
    named = {name: getattr(run, name) for name in PARAMETERS}
    named |= {f"version.{name}": version for name, version in run.versions.items()}
    return {name: str(value) for name, value in named.items()}


def metrics(results: Results) -> Iterator[tuple[str, float]]:
    """Yield a run's figures: counts, each variant's figures over its shifts and its costs, each case's value.

    Accuracies are fractions, sizes bytes, times milliseconds. Names are ``verdicts/fail``,
    ``resnet18-fp60-amazon/mce``, ``adversarial/resnet18-fp60-amazon-pgd``.
    """
    for verdict, count in Counter(case.verdict for case in results.cases if case.selected).items():
        yield f"verdicts/{verdict}", count
    yield "cases/planned", results.run.planned
    yield "cases/measured", results.run.measured
    records: tuple[OverallRecord | VariantRecord, ...] = (*results.overall, *results.variants)
    for record in records:
        for field in fields(record):
            value = getattr(record, field.name)
            if isinstance(value, int | float):
                yield f"{record.name}/{field.name}", value
    for case in results.cases:
        if case.value is not None:
            yield f"{case.shift.kind}/{case.name}", case.value


def is_legal(name: str) -> bool:
    """Say whether any store of MLflow takes a name for a metric."""
    return len(name) <= LONGEST and all(map(PART.fullmatch, name.split("/")))
