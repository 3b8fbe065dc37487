"""The pytest plugin: options and markers. Loaded in every project that has robustgate installed, so it stays light.

The gate itself (`session.py`, and with it the fixtures) is switched on where a configuration is named or found.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from robustgate.pytest_plugin.session import GateSession

MARKERS = {
    "clean": "a case on clean images of the source domain",
    "domain_shift": "a case on another domain",
    "corruption": "a case on corrupted images",
    "adversarial": "a case under attack",
    "masking": "whether a variant's gradients hide how it falls",
    "stability": "whether mild transformations of the images change a variant's predictions",
    "overall": "over all its shifts, what a variant's outcomes come to",
    "cost": "what a variant costs: its size and the like",
    "latency": "a test that times: under pytest-xdist no other test of the run runs beside it",
}
GATE: pytest.StashKey[GateSession] = pytest.StashKey()
SUITE = "robustness_tests"
FIXTURES = f"{__name__}.fixtures"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the gate, each also an ini key."""
    group = parser.getgroup("robustgate", "robustgate: is the compressed model still robust?")
    options = {
        "config": "the configuration (default: robustgate.toml, or pyproject.toml with [tool.robustgate], in rootdir)",
        "policy": "the policy to judge by, or several, as in edge,cloud, instead of gate.policy",
        "report": "folder for results.json, report.md and report.html (default: robustgate-report)",
        "examples": "folder for each attacked case's adversarial examples, <case>.npz (default: they are not exported)",
        "device": "auto, cpu or cuda, instead of gate.device",
        "shard": "a part of the run, as 1/4: its results.json is one of those that `robustgate merge` puts together",
        "engine": "where cases run: local (this process, or its pytest-xdist workers)",
        "mlflow": "log the run to this experiment of MLflow, wherever MLFLOW_TRACKING_URI says (extra: mlflow)",
    }
    for name, text in options.items():
        group.addoption(f"--robustgate-{name}", dest=f"robustgate_{name}", default=None, help=text)
        parser.addini(f"robustgate_{name}", text, default=None)
    group.addoption(
        "--robustgate-complete",
        action="store_true",
        dest="robustgate_complete",
        help="fail where not every planned case was selected and measured",
    )
    group.addoption(
        "--robustgate-github",
        action="store_true",
        dest="robustgate_github",
        help="print annotations for GitHub Actions, and append report.md to the summary of the step",
    )


def option(config: pytest.Config, name: str) -> str | None:
    """Return an option's value from the command line, or else from the ini file, or None."""
    value = config.getoption(f"robustgate_{name}")
    return str(value) if value is not None else config.getini(f"robustgate_{name}") or None


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; switch the gate on where there is a configuration for it."""
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: robustgate: {text}")
    source = _configuration(config)
    asked = any(SUITE in re.split(r"[/\\.:]", argument) for argument in config.args)
    asked |= config.getoption("robustgate_github") or option(config, "mlflow") is not None
    if source is None and asked:
        raise pytest.UsageError(
            f"robustgate: no configuration: {config.rootpath} has no robustgate.toml, and no [tool.robustgate] in a "
            "pyproject.toml; name one with --robustgate-config FILE"
        )
    if source is not None:
        from robustgate.pytest_plugin import fixtures
        from robustgate.pytest_plugin.session import GateSession

        config.stash[GATE] = GateSession(config, source, eager=asked or option(config, "config") is not None)
        config.pluginmanager.register(config.stash[GATE], "robustgate.session")
        config.pluginmanager.register(fixtures, "robustgate.fixtures")
        if not config.stash[GATE].is_worker:
            _register_outputs(config)


def _register_outputs(config: pytest.Config) -> None:
    """Register what hands the results on, where it is asked for."""
    if config.getoption("robustgate_github"):
        from robustgate.pytest_plugin.github import GithubOutput

        config.pluginmanager.register(GithubOutput(config.stash[GATE]), "robustgate.github")
    if (experiment := option(config, "mlflow")) is not None:
        from robustgate.pytest_plugin.mlflow_log import MlflowLog

        config.pluginmanager.register(MlflowLog(config.stash[GATE], experiment), "robustgate.mlflow")


def _configuration(config: pytest.Config) -> Path | None:
    named = option(config, "config")
    if named is not None:
        return (config.invocation_params.dir / named).absolute()
    own, project = config.rootpath / "robustgate.toml", config.rootpath / "pyproject.toml"
    if own.is_file():
        return own
    # A look at the text is enough, and costs no TOML parser in every project's start.
    found = project.is_file() and "[tool.robustgate" in project.read_text(encoding="utf-8", errors="replace")
    return project if found else None
