"""--robustgate-github: annotations in a real run's output, and the summary of the step, with and without workers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from own_process import suite

BROKEN = ("max_drop = 0.3", "max_drop = 0.001")
WAIVER = '\n[[policies.edge.waivers]]\nwhere = { attack = "pgd" }\nuntil = 2020-01-01\nreason = "::error::ticket%1"\n'


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file for the summary of a step, which an earlier command has begun."""
    file = tmp_path / "step summary.md"
    file.write_text("built")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    return file


def annotated(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stdout.splitlines() if line.startswith("::")]


@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["alone", "workers"])
def test_a_red_run_is_annotated_and_its_report_is_in_the_summary(tiny, step: Path, words: tuple[str, ...]) -> None:
    tiny.configure(BROKEN, extra=WAIVER)
    done = suite(tiny.folder, "--robustgate-github", *words)
    assert done.returncode == 1
    error, warning = annotated(done)
    text = (tiny.folder / "robustgate.toml").read_text().splitlines()
    line = text.index('name = "holds"') + 1
    assert error.startswith(
        f"::error file=robustgate.toml,line={line},title=robustgate%3A fail%3A tiny / fp25 / day on clean images::"
    )
    assert '%0Arule "holds" of policy edge: max_drop 0.1 points; the drop is ' in error
    assert "%0Apytest --pyargs robustness_tests " in error
    assert warning == (
        "::warning file=robustgate.toml,title=robustgate%3A a waiver::"
        "waiver of policy edge expired on 2020-01-01: ::error::ticket%251"
    )
    report = (tiny.folder / "robustgate-report" / "report.md").read_text()
    assert step.read_text() == f"built\n{report}"
    assert f"step summary: report.md appended to {step}" in done.stdout


def test_a_green_run_has_no_annotations_and_without_a_step_it_says_so(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    done = suite(tiny.folder, "--robustgate-github", "-k", "tiny-none-day")
    assert done.returncode == 0, done.stdout
    assert annotated(done) == []
    assert "no step summary was written: GITHUB_STEP_SUMMARY is not set" in done.stdout


def test_without_the_option_nothing_is_said_of_github(tiny, step: Path) -> None:
    tiny.configure(BROKEN)
    done = suite(tiny.folder, "-k", "tiny-fp25-day")
    assert done.returncode == 1
    assert annotated(done) == []
    assert step.read_text() == "built"


def test_the_place_is_that_in_the_repository(tiny, step: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.configure(BROKEN)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tiny.folder.parent))
    (error,) = annotated(suite(tiny.folder, "--robustgate-github", "-k", "tiny-fp25-day"))
    assert error.startswith(f"::error file={tiny.folder.name}/robustgate.toml,line=")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tiny.folder / "elsewhere"))
    (error,) = annotated(suite(tiny.folder, "--robustgate-github", "-k", "tiny-fp25-day"))
    assert error.startswith("::error title=robustgate")


def test_a_summary_that_would_be_too_long_or_has_no_folder_is_not_written_and_that_is_said(
    tiny, step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step.write_text("x" * (1024 * 1024 - 100))
    done = suite(tiny.folder, "--robustgate-github", "-k", "tiny-none-day-pgd")
    assert done.returncode == 0
    assert f"no step summary was written: {step} would be over 1 MiB" in done.stdout
    assert step.stat().st_size == 1024 * 1024 - 100
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tiny.folder / "absent" / "summary.md"))
    done = suite(tiny.folder, "--robustgate-github", "-k", "tiny-none-day-pgd")
    assert done.returncode == 0
    assert "no step summary was written: [Errno 2]" in done.stdout


def test_without_a_configuration_the_option_is_a_usage_error(tiny) -> None:
    (tiny.folder / "robustgate.toml").unlink()
    (tiny.folder / "test_own.py").write_text("def test_it():\n    pass\n")
    done = suite(tiny.folder, "--pyargs", "test_own.py", "--robustgate-github")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "robustgate: no configuration" in done.stderr
