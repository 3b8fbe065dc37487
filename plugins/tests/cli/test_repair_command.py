"""`robustgate repair`: red to green, and what is said where it cannot be."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from robustgate.cli import app
from robustgate.config import load
from robustgate.reports.results_json import load as load_results

FIXTURES = Path(__file__).parents[3] / "fixtures"
COMMAND = str(Path(sys.executable).with_name("robustgate"))
MENDS = '{ recipe = "supervised", epochs = 10 }'
TOO_LITTLE, LESS, MORE = "{ epochs = 1, lr = 0.001 }", "{ epochs = 10 }", "{ epochs = 30 }"
# The pruned network learns by it, the whole one dies of it.
RUINS_THE_CONTROL = "{ epochs = 3, lr = 0.2, batch_size = 32 }"
# Both networks learn from images turned to their opposite.
MISLED = "ratio = 0.75, finetune = { epochs = 3, transforms = { RandomInvert = { p = 1.0 } } } }]"
NOBODY_REACHES = ("min = 0.9", "min = 1.0")


def repair(results: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["repair", str(results), *words], env={"COLUMNS": "120"})


def verdicts(results: Path) -> dict[str, str]:
    return {case.name: case.verdict for case in load_results(results).cases}


def test_a_red_gate_of_digits_becomes_green_and_stays_so(tmp_path: Path, judged) -> None:
    shutil.copytree(FIXTURES / "models", tmp_path / "models")
    path = tmp_path / "robustgate.toml"
    path.write_text(
        """
[domains.handwritten]
kind = "digits"
style = "handwritten"

[models.resnet8]
build = "robustgate.zoo:cifar_resnet"
args = { depth = 8, width = 16, num_classes = 10 }
normalize = { mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }
weights = { handwritten = "models/resnet8-handwritten.safetensors" }

[compressions.fp50]  # nobody trained what is left
steps = [{ method = "filter_pruning", ratio = 0.5 }]

[policies.edge]
[[policies.edge.rules]]
name = "knows its own"
min = 0.9
[[policies.edge.rules]]
name = "fits"
where = { compression = "fp50" }
rule = "size"
max = "200 kB"
"""
    )

    results = judged(path)
    assert verdicts(results)["resnet8-fp50-handwritten"] == "fail"
    done = repair(results, "--config", str(path), "--recipe", "{ epochs = 2, batch_size = 32 }")
    assert done.exit_code == 0, done.output
    assert re.search(r"│ \{ epochs = 2, batch_size = 32 \} +│ taken: green │ [\d.]+ % → 9[\d.]+ % \(\+", done.stdout)
    words = [COMMAND, "run", "--config", "robustgate-repaired.toml", "-p", "no:cacheprovider"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert verdicts(tmp_path / "robustgate-report" / "results.json") == dict.fromkeys(
        ("resnet8-none-handwritten", "resnet8-control-handwritten", "resnet8-fp50-handwritten"), "pass"
    )


def test_only_the_steps_change_and_comments_stay(tiny, judged) -> None:
    path = tiny.write_red()
    done = repair(judged(path), "--recipe", MENDS)
    assert done.exit_code == 0, done.output
    before, after = path.read_text().splitlines(), (tiny.folder / "robustgate-repaired.toml").read_text().splitlines()
    place = next(n for n, line in enumerate(before) if line.startswith("steps"))
    assert after[place] == (
        f'steps = [{{ method = "filter_pruning", ratio = 0.75 }}, {{ finetune = {MENDS} }}]  # as it ships'
    )
    assert [*after[:place], *after[place + 1 :]] == [*before[:place], *before[place + 1 :]]
    assert set(verdicts(judged(tiny.folder / "robustgate-repaired.toml")).values()) == {"pass"}


def test_a_floor_that_nobody_reaches_is_said(tiny, judged) -> None:
    results = judged(tiny.write_red("", NOBODY_REACHES))
    done = repair(results, "--recipe", TOO_LITTLE)
    assert done.exit_code == 1
    assert 'red: tiny-fp75-day: rule "floor" of policy edge: min 100.0 %; the accuracy is 50.0' in done.output
    assert "not repaired: none, fp75" in done.stdout
    assert "none: red in 1 finding" in done.stdout
    assert "cannot be repaired: it is the model as it was trained: robustgate train" in done.stdout
    assert not (tiny.folder / "robustgate-repaired.toml").exists()


@pytest.mark.parametrize(("limit", "status"), [("60 s", 0), ("0.001 us", 1)])
def test_a_repaired_network_is_timed_where_a_rule_is_on_latency(tiny, judged, limit: str, status: int) -> None:
    rule = f'name = "fast"\nrule = "latency"\nwhere = {{ compression = "fp75" }}\nmax = "{limit}"\n'
    done = repair(judged(tiny.write_red(f"\n[[policies.edge.rules]]\n{rule}")), "--recipe", MENDS)
    assert done.exit_code == status, done.output
    assert ('red: tiny-fp75-day: rule "fast" of policy edge: max 1e-06 ms' in done.output) == (status == 1)


def test_a_control_that_turns_red_is_no_repair(tiny, judged) -> None:
    done = repair(judged(tiny.write_red()), "--recipe", RUINS_THE_CONTROL)
    assert done.exit_code == 1
    assert "red: tiny-control-day: rule" in done.stdout


def test_a_control_is_repaired_with_all_that_it_is_the_control_of(tiny, judged) -> None:
    other = f'\n[compressions.fp75_again]\nsteps = [{{ method = "filter_pruning", {MISLED}\n'
    path = tiny.write_red(other, ("ratio = 0.75 }]", MISLED))
    results = judged(path)
    assert verdicts(results)["tiny-control-day"] == "fail"
    done = repair(results, "--recipe", MENDS)
    assert done.exit_code == 0, done.output
    assert "compression control: red in 1 finding" in done.stdout
    assert "repaired with the compressions that it is the control of" in done.stdout
    assert "not repaired" not in done.stdout
    assert set(verdicts(judged(tiny.folder / "robustgate-repaired.toml")).values()) == {"pass"}


def test_of_the_green_the_most_accurate_is_taken(tiny, judged) -> None:
    done = repair(judged(tiny.write_red()), *(f"--recipe={one}" for one in (TOO_LITTLE, LESS, MORE)))
    assert done.exit_code == 0, done.output
    rows = re.findall(r"│ (\{.*?\}) +│ (taken: )?(green|red) +│ +([\d.]+) % → ([\d.]+) %", done.stdout)
    assert [row[2] for row in rows] == ["red", "green", "green"]
    best = max(float(row[4]) for row in rows if row[2] == "green")
    assert [float(row[4]) for row in rows if row[1]] == [best]
    assert "3 recipes judged on the same test split" in done.stdout
    assert "at most 3 x 1 % = 3 % of such repairs" in done.stdout.replace("\n", " ")


def test_names_alone_get_epochs_that_fit_and_keep_them(tiny, judged) -> None:
    results = judged(tiny.write_red("", NOBODY_REACHES))
    first = repair(results, "--minutes", "0.2")
    rows = re.findall(r'│ \{ recipe = "(\w+)", epochs = (\d+) \} +│ ([a-z ]+?) +│', first.stdout)
    assert {name for name, _, _ in rows} == {"supervised", "sam", "distillation", "adcorda"}
    assert {verdict for _, _, verdict in rows} <= {"red", "out of time", "not built"}
    assert all(1 <= int(epochs) <= 30 for _, epochs, _ in rows)
    again = repair(results, "--minutes", "0.2")
    assert re.findall(r'\{ recipe = "(\w+)", epochs = (\d+) \}', again.stdout)[0] == rows[0][:2]


def test_without_time_nothing_is_begun(tiny, judged) -> None:
    done = repair(judged(tiny.write_red()), "--minutes", "0", "--recipe", MENDS, "--recipe", "sam")
    assert done.exit_code == 1
    assert re.findall(r"│ (\d) │ (\{.*?\}) +│ out of time │", done.stdout) == [
        ("1", MENDS),
        ("2", '{ recipe = "sam" }'),
    ]
    assert done.stdout.count("out of time: not begun") == 2
    assert not (tiny.folder / "cache" / "trainings").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="kills by a signal")
def test_a_repair_that_was_killed_goes_on(tiny, judged) -> None:
    words = [
        COMMAND,
        "repair",
        str(judged(tiny.write_red())),
        "--recipe",
        "{ epochs = 40, batch_size = 16, lr = 0.02 }",
    ]
    process = subprocess.Popen(words, cwd=tiny.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tiny.folder / "cache" / "trainings").rglob("epochs.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    again = subprocess.run(words, cwd=tiny.folder, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert re.search(r"goes on at epoch \d+ of 40", again.stderr)


def test_a_file_gets_its_recipe_before_it_is_made(tiny, judged) -> None:
    path = tiny.write_red(
        '\n[compressions.int8]\nsteps = [{ use = "fp75" }, { method = "static_quantization" }]\n',
        ('name = "floor"', 'name = "floor"\nwhere = { compression = "int8" }'),
    )
    done = repair(judged(path), "--recipe", MENDS)
    assert done.exit_code == 0, done.output
    steps = load(tiny.folder / "robustgate-repaired.toml").compressions["int8"]
    assert [step.method for step in steps] == ["filter_pruning", None, "static_quantization"]
    assert len(load(tiny.folder / "robustgate-repaired.toml").compressions["fp75"]) == 1


def test_what_uses_a_repaired_compression_is_repaired_with_it(tiny, judged) -> None:
    path = tiny.write_red('\n[compressions.a_int8]\nsteps = [{ use = "fp75" }, { method = "dynamic_quantization" }]\n')
    done = repair(judged(path), "--recipe", MENDS)
    assert done.exit_code == 0, done.output
    assert "│ what it uses is repaired │ taken: green" in done.stdout
    kept = load(tiny.folder / "robustgate-repaired.toml").compressions
    assert [step.method for step in kept["a_int8"]] == ["filter_pruning", None, "dynamic_quantization"]


def test_what_was_made_elsewhere_is_not_repaired(tiny, judged) -> None:
    path = tiny.write_red("", ("ratio = 0.75 }]", 'ratio = 0.75 }, { method = "static_quantization" }]'))
    done = CliRunner().invoke(app, ["compress", "*fp75*", "--export", "dist", "--config", str(path)])
    assert done.exit_code == 0, done.output
    (file,) = (tiny.folder / "dist").rglob("*.onnx")
    steps = next(line for line in path.read_text().splitlines() if line.startswith("steps"))
    path.write_text(path.read_text().replace(steps, f'artifact = {{ tiny = {{ day = "{file}" }} }}'))
    done = repair(judged(path), "--recipe", MENDS)
    assert done.exit_code == 1
    assert "fp75: red in 1 finding" in done.stdout
    assert "cannot be repaired: it is a file that was made elsewhere" in done.stdout


def test_images_that_are_learned_and_judged_are_refused(tiny, judged) -> None:
    results = judged(tiny.write_red())
    train, test = (dict(np.load(tiny.folder / f"{name}.npz")) for name in ("train", "test"))
    train["images"][:2] = test["images"][:2]
    np.savez(tiny.folder / "train.npz", **train)
    done = repair(results, "--recipe", MENDS)
    assert done.exit_code == 4
    assert (
        "domains.day: 2 of the 144 images that judge (its test split) are in the train split of day too, from which a "
        "recipe learns: expected at most 1.0 %" in done.stderr
    )
    assert not (tiny.folder / "cache" / "trainings").exists()
    train["images"][1] = 255 - train["images"][1]
    np.savez(tiny.folder / "train.npz", **train)
    assert repair(results, "--recipe", MENDS).exit_code == 0


def test_results_of_another_configuration_are_refused(tiny, judged) -> None:
    results = judged(tiny.write_red())
    tiny.write_red("# changed\n")
    done = repair(results)
    assert done.exit_code == 4
    assert "the results are of another configuration: expected those of" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "smm"], "unknown name 'smm' in training (did you mean 'sam'?)"),
        (["--recipe", "{ epochs = 1, rh = 2 }"], "recipe: unknown key 'rh'"),
        (["--recipe", "{ epochs = 'x' }"], "recipe.epochs: expected a whole number, got the text 'x'"),
        (["--recipe", "{ epochs = }"], "expected key=value as in TOML"),
        (
            ["--recipe", '{ recipe = "distillation", epochs = 1, teacher = "tny" }'],
            "no model 'tny' (did you mean 'tiny'?)",
        ),
        (["--policy", "cloud"], "no policy 'cloud'"),
        (["--out", "elsewhere/x.toml"], "--out: expected a file beside"),
        (["--out", "robustgate.toml"], "robustgate.toml is there already; --force overwrites it"),
    ],
    ids=lambda one: one[-1] if isinstance(one, list) else "",
)
def test_what_is_asked_wrongly_is_refused_before_anything_is_trained(
    tiny, judged, words: list[str], message: str
) -> None:
    done = repair(judged(tiny.write_red()), *words)
    assert done.exit_code == 4
    assert message in done.stderr
    assert not (tiny.folder / "cache" / "trainings").exists()


def test_where_nothing_is_red_there_is_nothing_to_repair(tiny, judged) -> None:
    results = judged(tiny.write_red("", ("min = 0.9", "min = 0.4")))
    done = repair(results)
    assert done.exit_code == 0
    assert done.stdout == f"nothing is red in {results}: nothing to repair\n"


def test_a_compression_of_a_preset_is_told_apart(tiny, judged) -> None:
    path = tiny.write_red()
    text = path.read_text().replace(
        "[compressions.fp75]", '[compressions]\npreset = "clustered-pruned-quantized"\n[compressions.fp75]'
    )
    path.write_text(text.replace("min = 0.9", 'where = { compression = "int8" }\nmin = 1.0'))
    done = repair(judged(path, "int8"), "--recipe", MENDS)
    assert done.exit_code == 1
    assert "cannot be repaired: 'int8' is of the preset: write its steps into the configuration" in done.stdout


def test_a_configuration_in_pyproject_becomes_one_of_its_own(tiny, judged) -> None:
    path = tiny.write_red()
    text = re.sub(r"^(\[+)(?=\w)", r"\1tool.robustgate.", path.read_text(), flags=re.MULTILINE)
    path.unlink()
    project = tiny.folder / "pyproject.toml"
    project.write_text(f'[project]\nname = "x"\n{text}')
    done = repair(judged(project), "--recipe", MENDS)
    assert done.exit_code == 0, done.output
    kept = tiny.folder / "robustgate-repaired.toml"
    assert "tool" not in kept.read_text()
    assert "# as it ships" in kept.read_text()
    assert set(verdicts(judged(kept)).values()) == {"pass"}
