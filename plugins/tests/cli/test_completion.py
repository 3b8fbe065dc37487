"""What a shell completes, through the protocol that its script speaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustgate.cli import app

COMMAND = Path(sys.executable).with_name("robustgate")
LAB = '\n[policies.lab]\n[[policies.lab.rules]]\nname = "low"\nmin = 0.1\n'


def completed(line: str) -> list[str]:
    """Return what bash offers at the end of a line."""
    words = line.split(" ")
    environment = os.environ | {
        "_ROBUSTGATE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run([COMMAND], capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


def test_the_script_for_a_shell_is_shown() -> None:
    done = subprocess.run(
        [COMMAND, "--show-completion", "bash"],
        capture_output=True,
        text=True,
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "_ROBUSTGATE_COMPLETE=complete_bash" in done.stdout
    assert "complete -o default -F" in done.stdout
    listed = CliRunner().invoke(app, ["--help"]).stdout
    assert "--install-completion" in listed


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("robustgate com", ["compare", "compress"]),
        ("robustgate baseline ", ["accept"]),
        ("robustgate plan --po", ["--policy", "--power"]),
        ("robustgate schema ", ["config", "results"]),
        ("robustgate schema c", ["config"]),
        ("robustgate assess r.json --objectives accuracy,mem", ["accuracy,memory"]),
        ("robustgate assess r.json --objectives robust", ["robust_accuracy"]),
    ],
)
def test_commands_options_and_known_words(line: str, expected: list[str]) -> None:
    assert sorted(completed(line)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("robustgate plan --policy ", ["edge", "lab"]),
        ("robustgate run --policy e", ["edge"]),
        ("robustgate lint --policy edge,", ["edge,lab"]),
        ("robustgate compress tiny-f", ["tiny-fp25-day"]),
        ("robustgate plan --config other.toml --policy ", ["lab", "other"]),
    ],
)
def test_names_of_the_configuration_here(tiny, line: str, expected: list[str]) -> None:
    path = tiny.configure(extra=LAB)
    (tiny.folder / "other.toml").write_text(path.read_text().replace("policies.edge", "policies.other"))
    assert sorted(completed(line)) == expected


@pytest.mark.parametrize("text", [None, "[gate\n", "[gate]\nsede = 1\n"])
@pytest.mark.parametrize("line", ["robustgate plan --policy ", "robustgate compress t"])
def test_what_cannot_be_read_completes_nothing(tmp_path: Path, monkeypatch, line: str, text: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("robustgate.toml").write_text(text)
    assert completed(line) == []


@pytest.mark.parametrize("line", ["robustgate p", "robustgate compress t", "robustgate assess r --objectives s"])
def test_completing_imports_nothing_heavy(tiny, line: str) -> None:
    probe = (
        "import sys\nfrom robustgate.cli import app\n"
        "try:\n    app(prog_name='robustgate')\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'scipy', 'sklearn', 'matplotlib', 'pytest'} & set(sys.modules)))"
    )
    environment = os.environ | {
        "_ROBUSTGATE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("[]", "")
    assert len(done.stdout.splitlines()) > 1
