"""`robustgate train`: weights that the configuration can name, epochs that survive a kill, mistakes before the work."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from robustgate.cli import app
from robustgate.cli.lessons import Lessons
from robustgate.config import load
from robustgate.engine.course import Lesson
from robustgate.engine.networks import load_reference

COMMAND = str(Path(sys.executable).with_name("robustgate"))
FEW = ["--set", "epochs=2", "--set", "lr=0.02"]


def train(*words: str) -> Result:
    return CliRunner().invoke(app, ["train", "tiny", "day", *words])


def test_the_weights_are_those_that_the_configuration_names(tiny) -> None:
    path = tiny.write_red()
    done = train("--recipe", "sam", *FEW, "--set", "rho=0.1", "--out", "models/trained.safetensors")
    assert done.exit_code == 0, done.output
    *_, table, line = done.stdout.splitlines()
    assert (table, line) == ("[models.tiny.weights]", 'day = "models/trained.safetensors"')
    assert tomllib.loads(f"{table}\n{line}")["models"]["tiny"]["weights"] == {"day": "models/trained.safetensors"}
    state, before = (load_file(tiny.folder / name) for name in ("models/trained.safetensors", "tiny.safetensors"))
    assert state.keys() == before.keys()
    assert not torch.equal(state["conv.weight"], before["conv.weight"])
    path.write_text(path.read_text().replace("tiny.safetensors", "models/trained.safetensors"))
    network = load_reference(load(path).models["tiny"], "tiny", "day", torch.zeros(2, 3, 8, 8))
    assert torch.equal(network.module.network.conv.weight, state["conv.weight"])


def test_a_recipe_and_its_settings_do_what_they_do_in_a_configuration(tiny) -> None:
    settings = [
        "--set",
        "epochs=1",
        "--set",
        "transforms={RandomInvert={p=1.0}}",
        "--set",
        "transforms.RandomErasing={}",
    ]
    assert train(*settings, "--out", "x.safetensors").exit_code == 4  # an inline table is whole
    for name, words in (
        ("plain", FEW),
        ("inverted", [*FEW, "--set", "transforms={RandomInvert={p=1.0}}"]),
        ("again", FEW),
    ):
        tiny.write_red("", ('cache = "cache"', f'cache = "{name}"'))
        assert train(*words, "--out", f"{name}.safetensors").exit_code == 0
    plain, inverted, again = (load_file(tiny.folder / f"{name}.safetensors") for name in ("plain", "inverted", "again"))
    assert not torch.equal(plain["head.bias"], inverted["head.bias"])
    assert all(torch.equal(plain[key], again[key]) for key in plain)


def test_fresh_weights_are_those_of_the_seed_and_not_the_files(tiny) -> None:
    tiny.write_red()
    assert train(*FEW, "--scratch", "--out", "one.safetensors").exit_code == 0
    tiny.write_weights(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    tiny.write_red("", ('cache = "cache"', 'cache = "other"'))
    assert train(*FEW, "--scratch", "--out", "two.safetensors").exit_code == 0
    tiny.write_red("", ('cache = "cache"', 'cache = "cache"\nseed = 1'))
    assert train(*FEW, "--scratch", "--out", "three.safetensors").exit_code == 0
    one, two, three = (load_file(tiny.folder / f"{name}.safetensors") for name in ("one", "two", "three"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["conv.weight"], three["conv.weight"])


def test_the_first_weights_are_made_from_none_by_their_configuration(tiny) -> None:
    path = tiny.write_red()
    (tiny.folder / "tiny.safetensors").unlink()
    refused = train(*FEW, "--out", "tiny.safetensors")
    assert refused.exit_code == 4
    assert "models.tiny.weights.day: no such file" in refused.stderr
    done = train(*FEW, "--scratch", "--out", "tiny.safetensors")
    assert done.exit_code == 0, done.output
    assert load(path).models["tiny"].weights["day"] == tiny.folder / "tiny.safetensors"


def test_fresh_weights_are_for_any_domain(tiny) -> None:
    tiny.write_red('\n[domains.dawn]\nkind = "npz"\nfiles = { train = "train.npz", test = "test.npz" }\n')
    words = ["train", "tiny", "dawn", *FEW, "--out", "dawn.safetensors"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 4
    assert "models.tiny: no source domain 'dawn'" in refused.stderr
    done = CliRunner().invoke(app, [*words, "--scratch"])
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith('[models.tiny.weights]\ndawn = "dawn.safetensors"\n')


def test_a_file_is_overwritten_only_when_asked_for(tiny) -> None:
    tiny.write_red()
    before = (tiny.folder / "tiny.safetensors").read_bytes()
    done = train(*FEW, "--out", "tiny.safetensors")
    assert done.exit_code == 4
    assert "tiny.safetensors is there already; --force overwrites it" in done.stderr
    assert (tiny.folder / "tiny.safetensors").read_bytes() == before
    assert train(*FEW, "--out", "tiny.safetensors", "--force").exit_code == 0
    assert (tiny.folder / "tiny.safetensors").read_bytes() != before


def test_a_training_that_diverges_writes_nothing(tiny) -> None:
    tiny.write_red()
    done = train("--set", "epochs=2", "--set", "lr=1e38", "--out", "x.safetensors")
    assert done.exit_code == 1
    assert "training diverged" in done.stderr
    assert not (tiny.folder / "x.safetensors").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="kills by a signal")
def test_a_training_that_was_killed_goes_on_to_the_same_weights(tiny) -> None:
    tiny.write_red()
    words = [COMMAND, "train", "tiny", "day", "--set", "epochs=30", "--set", "batch_size=16", "--out", "x.safetensors"]
    process = subprocess.Popen(words, cwd=tiny.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tiny.folder / "cache" / "trainings").rglob("epochs.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tiny.folder / "x.safetensors").exists()
    again = subprocess.run(words, cwd=tiny.folder, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert re.search(r"tiny-trained-day: supervised: goes on at epoch \d+ of 30\n", again.stderr)
    assert "epoch 30/30  loss" in again.stderr
    tiny.write_red("", ('cache = "cache"', 'cache = "other"'))
    whole = train("--set", "epochs=30", "--set", "batch_size=16", "--out", "whole.safetensors")
    assert "goes on" not in whole.stderr
    one, other = (load_file(tiny.folder / f"{name}.safetensors") for name in ("x", "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "smm"], "recipe.recipe: unknown name 'smm' in training (did you mean 'sam'?)"),
        (["--set", "lr=0.1"], "recipe: missing key 'epochs', expected a whole number"),
        (["--set", "epochs='many'"], "recipe.epochs: expected a whole number, got the text 'many'"),
        (["--set", "epochs=1", "--set", "momentun=0.5"], "unknown key 'momentun' (did you mean 'momentum'?)"),
        (["--set", "epochs=0"], "recipe: epochs must be at least 1, got 0"),
        (["--set", "epochs"], "--set 'epochs': expected key=value as in TOML"),
        (["--set", "epochs=1", "--set", "epochs=2"], "expected key=value as in TOML"),
        (["--out", "x.onnx", *FEW], "--out: expected a file *.safetensors, got x.onnx"),
        (["--recipe", "distillation", *FEW, "--scratch"], "there is no network to learn from"),
        (["--recipe", "distillation", *FEW, "--set", "teacher='tny'"], "no model 'tny' (did you mean 'tiny'?)"),
        (["--recipe", "deep_coral", *FEW, "--set", "target='dy'"], "recipe: no domain 'dy' (did you mean 'day'?)"),
        (
            [
                "--recipe",
                "adasap",
                *FEW,
                "--set",
                "flattening=0",
                "--set",
                "pruning_phase=1",
                "--set",
                "pruning.ratio=0.5",
            ],
            "makes the network smaller, and weights alone do not tell its new shape: make it a step of a compression",
        ),
    ],
    ids=range(12),
)
def test_mistakes_come_out_like_those_of_the_configuration(tiny, words: list[str], message: str) -> None:
    tiny.write_red()
    done = train("--out", "x.safetensors", *words)
    assert done.exit_code == 4
    assert message in done.stderr
    assert not (tiny.folder / "cache").exists()


def test_an_unknown_model_is_told_with_the_nearest(tiny) -> None:
    tiny.write_red()
    done = CliRunner().invoke(app, ["train", "tny", "day", *FEW, "--out", "x.safetensors"])
    assert (done.exit_code, done.stderr) == (4, "robustgate: no model 'tny' (did you mean 'tiny'?); known: tiny\n")


def lessons(*shares: float, first: int = 1, epochs: int = 2) -> list[Lesson]:
    """Return what is told of a training of two steps an epoch."""
    return [
        Lesson(doing="x: sam", share=share, epoch=first + n // 2, epochs=epochs, loss=1.5 - share)
        for n, share in enumerate(shares)
    ]


def test_without_a_terminal_each_epoch_has_a_line_at_its_end() -> None:
    stream = io.StringIO()
    with Lessons(Console(file=stream, width=80)) as heard:
        for lesson in [*lessons(0.25, 0.5, 0.75, 1.0), *lessons(0.75, 1.0, first=2)]:
            heard(lesson)
    assert stream.getvalue().splitlines() == [
        "x: sam  epoch 1/2  loss 1",
        "x: sam  epoch 2/2  loss 0.5",
        "x: sam: goes on at epoch 2 of 2",
        "x: sam  epoch 2/2  loss 0.5",
    ]


def test_on_a_terminal_there_is_one_live_line_that_goes() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    with Lessons(console) as heard:
        for lesson in lessons(0.25, 0.5, 0.75):
            heard(lesson)
        heard._live[0].refresh()
        shown = stream.getvalue()
    assert "x: sam  epoch 2/2  loss 0.75" in shown
    assert "75%" in shown
    assert "\x1b[?25l" in shown  # no cursor while it is there
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_compress_tells_of_its_trainings_beside_its_lines(tiny) -> None:
    tiny.write_red("", ("ratio = 0.75 }", "ratio = 0.75, finetune = { epochs = 2 } }"))
    done = CliRunner().invoke(app, ["compress", "*fp75*"])
    assert done.exit_code == 0, done.output
    assert "tiny-fp75-day: supervised  epoch 2/2  loss" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["tiny-fp75-day"]
