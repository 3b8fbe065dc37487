"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data and weights. Without it a test skips and says why; in CI it fails."""
    folder = os.environ.get("ROBUSTGATE_DATA")
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"needs real data: ROBUSTGATE_DATA must name its folder, it is {folder!r}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
