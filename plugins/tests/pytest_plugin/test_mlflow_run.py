"""--robustgate-mlflow: a real run in a real store of MLflow; what is missing or fails, and the verdict that stays."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from own_process import results, suite

from robustgate.pytest_plugin.mlflow_log import is_legal

BROKEN = ("max_drop = 0.3", "max_drop = 0.001")
WORDS = ("-k", "tiny-fp25-day", "--robustgate-mlflow", "nightly gate")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The client of a store in a file."""
    with warnings.catch_warnings(action="ignore"):
        mlflow = pytest.importorskip("mlflow", reason="needs MLflow: pip install 'robustgate[mlflow]'")
        pytest.importorskip("sqlalchemy", reason="MLflow keeps runs in SQLite with SQLAlchemy: pip install sqlalchemy")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
        yield mlflow.MlflowClient()


def logged(store: Any) -> list[Any]:
    experiment = store.get_experiment_by_name("nightly gate")
    return store.search_runs([experiment.experiment_id]) if experiment else []


def test_a_run_of_workers_is_logged_with_its_figures_and_its_reports(tiny, store: Any) -> None:
    tiny.configure(BROKEN)
    done = suite(tiny.folder, *WORDS, "-n", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    (run,) = logged(store)
    assert f"MLflow: experiment 'nightly gate', run {run.info.run_id}: robustgate-report" in done.stdout
    found = results(tiny.folder)
    assert (run.info.run_name, run.info.status) == (found["run"]["id"], "FINISHED")
    assert run.data.tags["robustgate.verdict"] == "fail"
    assert run.data.tags["robustgate.complete"] == "false"
    names = ("policy", "seed", "device", "config_sha256")
    assert {name: run.data.params[name] for name in names} == {name: str(found["run"][name]) for name in names}
    assert run.data.params["version.torch"] == found["run"]["versions"]["torch"]
    measured = [case for case in found["cases"] if case["value"] is not None]
    assert len(measured) == 6
    for case in measured:
        assert run.data.metrics[f"{case['shift']['kind']}/{case['name']}"] == case["value"]
    assert (run.data.metrics["verdicts/fail"], run.data.metrics["verdicts/pass"]) == (1, 5)
    (record,) = (one for one in found["variants"] if one["name"] == "tiny-fp25-day")
    assert run.data.metrics["tiny-fp25-day/size_bytes"] == record["size_bytes"]
    (overall,) = (one for one in found["overall"] if one["name"] == "tiny-fp25-day")
    assert run.data.metrics["tiny-fp25-day/mean_corruption_accuracy"] == overall["mean_corruption_accuracy"]
    with warnings.catch_warnings(action="ignore"):
        kept = store.download_artifacts(run.info.run_id, "results.json")
        assert {file.path for file in store.list_artifacts(run.info.run_id)} >= {"report.html", "report.md"}
    assert json.loads(Path(kept).read_text()) == found


def test_a_second_run_goes_into_the_same_experiment_where_warnings_are_errors_too(tiny, store: Any) -> None:
    for extra in ((), ("-W", "error::DeprecationWarning")):
        assert suite(tiny.folder, *WORDS, *extra).returncode == 0
    assert len(logged(store)) == 2


def test_a_name_that_mlflow_does_not_take_is_left_out_and_counted(tiny, store: Any) -> None:
    tiny.configure(("[models.tiny]", f"[models.{'t' * 230}]"))
    done = suite(tiny.folder, "-k", "fp25 and pgd", "--robustgate-mlflow", "nightly gate")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = logged(store)
    assert [name for name in run.data.metrics if name.endswith("-day/macs")]
    assert not [name for name in run.data.metrics if name.startswith("adversarial/")]
    assert run.data.metrics["cases/measured"] == 1
    assert " figures whose names it does not take: robustgate-report" in done.stdout


@pytest.mark.usefixtures("store")
def test_a_store_that_cannot_be_reached_leaves_the_verdict_and_is_told(tiny, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = suite(tiny.folder, *WORDS)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "NOT LOGGED" in line)
    assert line.startswith("NOT LOGGED to MLflow's experiment 'nightly gate': API request to http://127.0.0.1:9")
    assert "Traceback" not in done.stdout + done.stderr


def test_without_mlflow_the_option_is_a_usage_error_that_names_the_extra(tiny) -> None:
    (tiny.folder / "mlflow.py").write_text("raise ImportError('no such package')\n")
    done = suite(tiny.folder, *WORDS)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert 'pip install "robustgate[mlflow]"' in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert suite(tiny.folder, "-k", "tiny-fp25-day-pgd").returncode == 0


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("adversarial/resnet18-fp60-amazon-pgd", True),
        ("v1.0_a-b/mce", True),
        ("a//b", False),
        ("../b", False),
        ("a/./b", False),
        ("a/b/", False),
        ("a b", False),
        ("a\nb", False),
        ("é", False),
        ("a|b", False),
        ("a" * 250, True),
        ("a" * 251, False),
    ],
)
def test_names_that_every_store_takes(name: str, legal: bool) -> None:
    assert is_legal(name) == legal
