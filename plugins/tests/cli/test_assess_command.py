"""`robustgate assess` as a person types it: the published fronts, a run's recommendation, files, refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from robustgate.cli import app
from robustgate.engine.candidates import OBJECTIVES
from robustgate.reports.assessments import SHOWN

TABLE = "compression_on_cifar10c.csv"


def assess(*words: object) -> Result:
    return CliRunner().invoke(app, ["assess", *map(str, words)], env={"COLUMNS": "150"})


def members(text: str) -> dict[str, list[str]]:
    """What the tables show: under the place of each front, the first cells of its rows."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if title := re.match(r"(.*): \d+ variants? that no other beats", line):
            rows = found.setdefault(title[1], [])
        elif line.startswith("│"):
            rows.append(line.split("│")[1].strip())
    return found


def test_the_published_fronts(real_data: Path) -> None:
    done = assess(real_data / TABLE)
    assert (done.exit_code, done.stderr) == (0, "")
    assert members(done.stdout) == {
        "resnet50 on compression_on_cifar10c": ["PQAT", "PQAT+Int8", "PCQAT+Int8"],
        "vgg19 on compression_on_cifar10c": [
            "Pruning", "Pruning+Int8", "P+C", "P+C+Int8", "QAT", "CQAT+Int8", "PQAT+Int8", "PCQAT+Int8"
        ],
        "mobilenet_v2 on compression_on_cifar10c": [
            "Clustering", "P+C", "P+C+Int8", "CQAT+Int8", "PQAT+Int8", "PCQAT+Int8"
        ],
        "all models on compression_on_cifar10c": [
            "resnet50 PQAT", "resnet50 PQAT+Int8", "resnet50 PCQAT+Int8", "vgg19 P+C+Int8", "vgg19 PCQAT+Int8"
        ],
    }  # fmt: skip
    cells = [cell.strip() for cell in next(line for line in done.stdout.splitlines() if "93.46 %" in line).split("│")]
    assert cells[1:5] == ["PQAT", "93.46 %", "76.7", "3.12x"]
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("warning: ")] == ["mce_rounded", "compression_ratio"]
    assert sum("mean ranks by" in line for line in lines) == 3


def test_objectives_and_extent_are_asked_for(real_data: Path, tmp_path: Path) -> None:
    done = assess(
        real_data / TABLE,
        "--objectives",
        "accuracy, deflated_size",
        "--within",
        "across",
        "--json",
        tmp_path / "a.json",
    )
    assert list(members(done.stdout)) == ["all models on compression_on_cifar10c"]
    written = json.loads((tmp_path / "a.json").read_text())
    assert [one["name"] for one in written["objectives"]] == ["accuracy", "deflated_size"]
    (front,) = written["fronts"]
    assert len(front["members"]) + len(front["dominated"]) == len(written["candidates"]) == 48
    assert front["worst"]["deflated_size"] == 95132457
    assert "warning" not in done.stdout


def test_a_run_names_what_to_take(tiny, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    extra = '\n[compressions.fp50]\nsteps = [{ method = "filter_pruning", ratio = 0.5 }]\n'
    tiny.configure(("[attacks.fgsm]", f"{extra}[attacks.fgsm]"))
    ran = CliRunner().invoke(app, ["run", "-q", "-p", "no:cacheprovider"])
    assert ran.exit_code in (0, 1)
    results = json.loads(Path("robustgate-report/results.json").read_text())
    assert results["run"]["complete"]
    done = assess("robustgate-report/results.json", "--objectives", "accuracy,robust_accuracy,size", "--json", "a.json")
    assert (done.exit_code, done.stderr) == (0, "")
    written = json.loads(Path("a.json").read_text())
    by_name = {one["name"]: one for one in written["candidates"]}
    (advice,) = written["recommendations"]
    green = [name for name, one in by_name.items() if one["green"] and one["is_compressed"]]
    assert advice["name"] in green
    assert f"policy edge, tiny on day: take {advice['name']}: " in done.stdout
    for case in results["cases"]:
        if case["shift"]["kind"] == "clean":
            assert by_name[case["name"]]["figures"]["accuracy"] == pytest.approx(case["value"])
    usual = assess("robustgate-report/results.json", "--json", "usual.json")
    assert (usual.exit_code, usual.stderr) == (0, "")
    written = json.loads(Path("usual.json").read_text())
    assert [one["name"] for one in written["objectives"]] == [
        "accuracy",
        "mean_corruption_accuracy",
        "robust_accuracy",
        "compression_ratio",
    ]
    assert written["left_out"] == []
    lacking = assess("robustgate-report/results.json", "--objectives", "accuracy,latency")
    assert lacking.exit_code == 4
    assert lacking.stderr == "robustgate: no variant has accuracy, latency: of 3, accuracy: 3, latency: 0\n"


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_a_picture_of_the_ranks(real_data: Path, tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"ranks.{suffix}"
    assert assess(real_data / TABLE, "--picture", path).exit_code == 0
    first = path.read_bytes()
    assert first.startswith(start)
    assess(real_data / TABLE, "--picture", path)
    assert path.read_bytes() == first
    if suffix == "svg":
        text = path.read_text()
        assert all(f">{name}<" in text for name in ("CD 13.32", "PCQAT+Int8  1.00", "16.00  Original"))


def test_what_cannot_be_drawn_is_refused(real_data: Path, tmp_path: Path) -> None:
    done = assess(real_data / TABLE, "--picture", tmp_path / "ranks.gif")
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr.endswith("ranks.gif: a picture is drawn as .svg, .png, .pdf, got .gif\n")
    only = tmp_path / "one.csv"
    lines = (real_data / TABLE).read_text().splitlines(keepends=True)
    only.write_text("".join(line for line in lines if line.startswith(("architecture", "vgg19"))))
    done = assess(only, "--picture", tmp_path / "ranks.svg")
    assert done.exit_code == 4
    assert done.stderr.startswith("robustgate: nothing to draw: no ranking by accuracy: it takes two models or source")
    assert not list(tmp_path.glob("ranks.*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.json"], "robustgate: missing.json: expected a results.json, cannot read it"),
        (["missing.csv"], "robustgate: missing.csv: expected a table of errors, cannot read it"),
    ],
)
def test_a_file_that_is_none_is_one_message(tmp_path: Path, monkeypatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = assess(*words)
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


def test_every_objective_is_shown_and_named_in_the_help() -> None:
    assert SHOWN.keys() == OBJECTIVES.keys()
    words = re.findall(r"\w+", assess("--help").stdout)
    assert set(OBJECTIVES) <= set(words)


def test_an_unknown_objective_names_the_nearest(real_data: Path) -> None:
    done = assess(real_data / TABLE, "--objectives", "acuracy")
    assert done.exit_code == 4
    assert done.stderr.startswith("robustgate: no objective 'acuracy' (did you mean 'accuracy'?)\nknown: accuracy, ")
