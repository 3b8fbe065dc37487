"""Point this repository's own gate at fixtures/: `pytest --pyargs robustness_tests` here runs the embedded digits gate.

The project's own tests lie in plugins/tests and do not need the gate.
"""

from pathlib import Path

import pytest

CONFIGURATION = Path(__file__).parent / "fixtures" / "robustgate.toml"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Name the embedded configuration where the command line names none and the suite is asked for."""
    if config.getoption("robustgate_config", None) is None and any("robustness_tests" in arg for arg in config.args):
        config.option.robustgate_config = str(CONFIGURATION)
