"""What the plugin costs a project that has it installed and does not use it."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

PROBE = """
import sys, time, pytest
began = time.perf_counter()
import robustgate.pytest_plugin
print(1000 * (time.perf_counter() - began))
assert not {"torch", "numpy", "pydantic", "scipy", "onnx"} & set(sys.modules), sorted(sys.modules)
"""


def test_importing_the_plugin_costs_under_20_ms_and_no_torch() -> None:
    times = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
        times.append(float(done.stdout))
    assert statistics.median(times) < 20


def test_an_unrelated_project_gets_nothing_but_options(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "import sys\ndef test_modules():\n    assert not {'torch', 'numpy', 'pydantic', 'scipy'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest", "-p", "no:benchmark"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout
    listed = subprocess.run([*command, "--fixtures"], cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert "tmp_path" in listed
    assert "robustgate.fixtures" not in listed
    assert "robustgate.pytest_plugin" not in listed


def test_planning_imports_no_torch(tiny) -> None:
    probe = (
        "import sys; from pathlib import Path\n"
        "from robustgate.config import load; from robustgate.engine.plan import make_plan\n"
        "assert make_plan(load(Path('robustgate.toml'))).cases\n"
        "assert not {'torch', 'onnx', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", probe], cwd=tiny.folder, check=True, timeout=60)
