"""`robustgate init`: what it finds, what it asks, and that what it writes runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from robustgate.cli import app
from robustgate.config import Normalize, load
from robustgate.config.schema import json_schema
from robustgate.core.errors import ConfigurationError
from robustgate.engine.discovery import runs_by_itself, search
from robustgate.engine.plan import make_plan
from robustgate.engine.scaffold import IMAGENET, class_argument, guessed_build, read_normalize

COMMAND = Path(sys.executable).with_name("robustgate")
TINY = ("--build", "tiny_network:net", "--normalize", "inside")


def type_in(*words: str, answers: Sequence[str] = ()) -> Result:
    return CliRunner().invoke(app, list(words), input="".join(f"{answer}\n" for answer in answers))


def written(folder: Path) -> dict:
    """Return the configuration that was written, once its schema and the plan have passed it."""
    path = folder / "robustgate.toml"
    document = tomllib.loads(path.read_text())
    jsonschema.validate(document, json_schema())
    assert make_plan(load(path)).cases
    return document


def picture(path: Path, level: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), level, np.uint8)).save(path)


def class_folders(root: Path, count: int = 10) -> None:
    """Write dark and bright images, which the tiny network tells apart."""
    for number in range(count):
        picture(root / "a_dark" / f"{number}.png", 100 + number)
        picture(root / "b_bright" / f"{number}.png", 160 - number)


@pytest.fixture
def fresh(tiny) -> Path:
    """The tiny project's folder, without a configuration."""
    (tiny.folder / "robustgate.toml").unlink()
    return tiny.folder


# What is written.


def test_flags_and_what_is_found_make_a_configuration(fresh: Path) -> None:
    done = type_in("init", "--yes", *TINY)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "robustgate.toml: 20 cases of 2 variants" in done.stdout
    document = written(fresh)
    assert document["models"] == {
        "net": {
            "build": "tiny_network:net",
            "args": {"classes": 2},
            "normalize": "inside",
            "weights": {"day": "tiny.safetensors"},
        }
    }
    assert document["domains"] == {
        "day": {"kind": "npz", "files": {"calibration": "day.npz", "test": "day.npz"}},
        "night": {"kind": "npz", "files": {"test": "night.npz"}},
    }
    assert document["compressions"] == {"int8": {"steps": [{"method": "static_quantization"}]}}
    assert "tiny.safetensors is taken as trained on day" in done.stdout


def test_what_is_written_says_what_it_means(fresh: Path) -> None:
    type_in("init", "--yes", *TINY)
    lines = (fresh / "robustgate.toml").read_text().splitlines()
    for key in ("scope", "early_stop"):
        (line,) = [line for line in lines if line.startswith(f"{key} = ")]
        assert "#" in line
    assert lines[lines.index("[policies.edge]") - 1].startswith("# A policy is ")
    assert max(map(len, lines)) <= 120


def test_what_is_written_plans_without_a_warning(fresh: Path) -> None:
    type_in("init", "--yes", *TINY)
    done = type_in("plan")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "warning" not in done.stdout
    assert type_in("lint").exit_code == 0


def test_what_no_rule_judges_is_told_and_the_rule_beside_it_would(fresh: Path) -> None:
    type_in("init", "--yes", *TINY)
    before = type_in("plan").stdout
    path = fresh / "robustgate.toml"
    head, _, offered = path.read_text().partition("# [[policies.edge.rules]]")
    assert "is yours to say" in head
    path.write_text(head + re.sub(r"^# ", "", "# [[policies.edge.rules]]" + offered, flags=re.MULTILINE))
    after = type_in("plan").stdout
    assert type_in("lint").exit_code == 0

    def unruled(text: str) -> int:
        return int(re.search(r"(\d+) cases are measured under no rule", text)[1])

    assert 0 < unruled(after) < unruled(before)
    assert {one["name"] for one in written(fresh)["policies"]["edge"]["rules"]} >= {"stands under attack"}


def test_what_is_written_runs_green(fresh: Path) -> None:
    # The network is found as pytest finds it: in the current folder.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for words in (["init", "--yes", *TINY], ["run", "-q", "-p", "no:cacheprovider"]):
        done = subprocess.run([COMMAND, *words], capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((fresh / "robustgate-report" / "results.json").read_text())
    assert {row["verdict"] for row in report["cases"]} == {"pass"}
    assert len(report["cases"]) == 20


def test_images_in_class_folders_run_too(fresh: Path) -> None:
    for file in ("day.npz", "night.npz"):
        (fresh / file).unlink()
    class_folders(fresh / "photos" / "images")
    assert type_in("init", "--yes", *TINY).exit_code == 0
    document = written(fresh)
    assert document["domains"] == {
        "photos": {
            "kind": "image_folder",
            "root": "photos/images",
            "image_size": 8,
            "splits": {"calibration": 0.2, "test": 0.8},
        }
    }
    done = type_in("run", "-q", "-p", "no:cacheprovider", "-k", "net-int8-photos")
    assert done.exit_code == 0, done.output


def test_a_file_made_elsewhere_is_judged_beside_its_network(fresh: Path) -> None:
    (fresh / "build").mkdir()
    (fresh / "build" / "net.onnx").touch()
    done = type_in("init", "--yes", *TINY[:2], "--normalize", "0.5,0.5,0.5,0.25,0.25,0.25")
    assert done.exit_code == 0, done.output
    document = written(fresh)
    own = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    assert document["models"]["net"]["normalize"] == own
    assert document["compressions"]["vendor"] == {"artifact": {"net": {"day": "build/net.onnx"}}, "input": own}


# Questions.


def test_what_no_flag_says_is_asked(fresh: Path) -> None:
    (fresh / "other.safetensors").write_bytes((fresh / "tiny.safetensors").read_bytes())
    answers = ["1,2", "2", "night", "tiny_network:net", "", "inside"]
    done = type_in("init", answers=answers)
    assert done.exit_code == 0, done.output
    assert re.findall(
        r"^(Which [a-z]+|.*?trained on|What builds|Classes|Normalisation)", done.stdout, re.MULTILINE
    ) == [
        "Which data",
        "Which weights",
        "tiny.safetensors was trained on",
        "What builds",
        "Classes",
        "Normalisation",
    ]
    document = written(fresh)
    assert document["models"]["net"]["weights"] == {"night": "tiny.safetensors"}
    assert document["models"]["net"]["normalize"] == "inside"
    assert set(document["domains"]) == {"day", "night"}


def test_imagenets_normalisation_is_the_default(fresh: Path) -> None:
    assert type_in("init", answers=["1", "tiny_network:net", "", ""]).exit_code == 0
    document = written(fresh)
    assert document["models"]["net"]["normalize"] == {"mean": list(IMAGENET.mean), "std": list(IMAGENET.std)}
    assert set(document["domains"]) == {"day"}


def test_an_answer_that_makes_no_sense_is_asked_again(fresh: Path) -> None:
    answers = ["0", "a", "1", "tiny_network:nte", "tiny_network:net", "two", "2", "half", "1,2", "inside"]
    done = type_in("init", answers=answers)
    assert done.exit_code == 0, done.output
    for told in (
        "expected numbers from 1 to 2, with commas between, got '0'",
        "got 'a'",
        "factory 'tiny_network:nte': no 'nte' in it (did you mean 'net'?)",
        "expected a whole number from 1, got 'two'",
        "expected imagenet, inside, or six numbers with commas, mean then std, got 'half'",
        "got '1,2'",
    ):
        assert told in done.output
    written(fresh)


def test_no_answer_writes_nothing(fresh: Path) -> None:
    assert type_in("init").exit_code != 0
    assert not (fresh / "robustgate.toml").exists()


# What cannot be.


def test_nothing_found_says_what_was_looked_for_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    done = type_in("init", "--yes")
    assert (done.exit_code, done.stdout) == (4, "")
    assert f"no data below {tmp_path}: looked for folders that hold a folder of images for each class" in done.stderr
    assert ".npz files with the arrays images and labels; name one: --data PATH" in done.stderr
    assert f"no weights below {tmp_path}: looked for *.safetensors, *.pt, *.pth, *.onnx" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "notes.txt"]


def test_data_that_is_none_says_why(fresh: Path) -> None:
    (fresh / "night.npz").unlink()
    np.savez(fresh / "day.npz", images=np.zeros((2, 8, 8, 3)), labels=np.zeros(2, np.int64))
    done = type_in("init", "--yes", *TINY)
    assert done.exit_code == 4
    assert "day.npz: images: expected uint8 (N, H, W, 3)" in done.stderr


def test_data_that_cannot_be_used_is_told_beside_what_can(fresh: Path) -> None:
    np.savez("night.npz", images=np.zeros((2, 8, 8, 3)), labels=np.zeros(2, np.int64))
    (fresh / "torn.npz").write_bytes(b"PK")
    done = type_in("init", "--yes", *TINY)
    assert done.exit_code == 0, done.output
    assert "night.npz: images: expected uint8 (N, H, W, 3)" in done.stdout
    assert "torn.npz: not an .npz of plain arrays: " in done.stdout
    assert set(written(fresh)["domains"]) == {"day"}


def test_data_and_weights_may_be_named(fresh: Path) -> None:
    (fresh / "sub").mkdir()
    for file in ("day.npz", "tiny.safetensors"):
        (fresh / file).rename(fresh / "sub" / file)
    words = ["--data", "noon=sub/day.npz", "--data", "night.npz", "--weights", "noon=sub/tiny.safetensors"]
    assert type_in("init", "--yes", *TINY, *words).exit_code == 0
    document = written(fresh)
    assert document["models"]["net"]["weights"] == {"noon": "sub/tiny.safetensors"}
    assert {name: one["files"]["test"] for name, one in document["domains"].items()} == {
        "noon": "sub/day.npz",
        "night": "night.npz",
    }


def test_a_configuration_is_not_overwritten(tiny) -> None:
    before = (tiny.folder / "robustgate.toml").read_text()
    done = type_in("init", "--yes", *TINY)
    assert done.exit_code == 4
    assert f"{tiny.folder / 'robustgate.toml'} is there already; --force writes a new robustgate.toml" in done.stderr
    assert (tiny.folder / "robustgate.toml").read_text() == before
    assert type_in("init", "--yes", "--force", *TINY).exit_code == 0
    assert (tiny.folder / "robustgate.toml").read_text() != before


def test_one_in_pyproject_is_not_overruled(fresh: Path) -> None:
    (fresh / "pyproject.toml").write_text("[tool.robustgate.gate]\nseed = 1\n")
    done = type_in("init", "--yes", *TINY)
    assert (done.exit_code, (fresh / "robustgate.toml").exists()) == (4, False)
    assert "pyproject.toml is there already" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--weights", "absent.pt"], "--weights: no such file or folder: "),
        (["--data", "absent"], "--data: no such file or folder: "),
        (["--data", "tiny_network.py"], "no data "),
        (["--weights", "nihgt=tiny.safetensors"], "no domain 'nihgt' (did you mean 'night'?); known: day, night"),
        (["--weights", "tiny.safetensors", "--weights", "day=copy.pt"], "two networks for the domain day: "),
        (["--data", "a-b=day.npz"], "--data: a name is made of letters, digits and '_', got 'a-b'"),
        (["--data", "x=day.npz", "--data", "x=night.npz"], "two data sets are called 'x'"),
        (["--build", "tiny_network"], "a factory is written 'package.module:name', got 'tiny_network'"),
        (["--normalize", "half"], "--normalize: expected imagenet, inside, or six numbers"),
        (["--normalize", "1,1,1,0,1,1"], "--normalize: std must be above 0"),
        (["--classes", "3"], "'head.bias' expected (3,), got (2,)"),
    ],
)
def test_a_mistake_is_told_and_nothing_written(fresh: Path, words: list[str], told: str) -> None:
    (fresh / "copy.pt").touch()
    chosen = [] if "--weights" in words else ["--weights", "tiny.safetensors"]
    done = type_in("init", "--yes", *TINY, *chosen, *words)
    assert done.exit_code == 4
    assert told in done.stderr
    assert not (fresh / "robustgate.toml").exists()


def test_a_network_of_other_classes_than_the_data_is_told(fresh: Path) -> None:
    arrays = dict(np.load("day.npz"))
    np.savez("day.npz", **{**arrays, "classes": np.array(["dark", "bright", "dusk"])})
    done = type_in("init", "--yes", *TINY, "--classes", "2", "--data", "day.npz")
    assert done.exit_code == 4
    assert "gives (2,) logits an image, and " in done.stderr
    assert done.stderr.endswith("has 3 classes\n")


def test_what_builds_the_network_must_be_said_where_nothing_says_it(fresh: Path) -> None:
    done = type_in("init", "--yes")
    assert done.exit_code == 4
    assert "nothing says this: What builds the network, module:name; say it: --build" in done.stderr


def test_only_a_file_that_runs_by_itself_is_not_enough(fresh: Path) -> None:
    (fresh / "tiny.safetensors").unlink()
    (fresh / "net.onnx").touch()
    done = type_in("init", "--yes", *TINY)
    assert done.exit_code == 4
    assert "found only net.onnx: what runs by itself is judged beside the network that it was made of" in done.stderr


def test_data_of_other_classes_is_left_out(fresh: Path) -> None:
    arrays = dict(np.load("night.npz"))
    np.savez("night.npz", **{**arrays, "classes": np.array(["cat", "dog"])})
    done = type_in("init", "--yes", *TINY)
    assert "left out: night.npz: it has other classes than day" in done.stdout
    assert set(written(fresh)["domains"]) == {"day"}


def test_a_second_file_for_a_domain_is_left_out(fresh: Path) -> None:
    for name in ("net-night", "zoo"):
        (fresh / f"{name}.safetensors").write_bytes((fresh / "tiny.safetensors").read_bytes())
    done = type_in("init", "--yes", *TINY)
    assert "  3  zoo.safetensors  (left out)" in done.stdout
    assert written(fresh)["models"]["net"]["weights"] == {
        "night": "net-night.safetensors",
        "day": "tiny.safetensors",
    }


# What is found.


def places(folder: Path) -> dict[str, dict[str, str]]:
    found = search(folder)
    assert found.refused == ()
    return {
        one.name: {part: path.relative_to(folder).as_posix() for part, path in one.paths.items()} for one in found.data
    }


def test_folders_are_found_and_named_after_what_says_something(tmp_path: Path) -> None:
    for root in ("office/amazon/images", "office/webcam/images", "b/webcam", "my photos (2024)"):
        class_folders(tmp_path / root, 1)
    picture(tmp_path / "lone" / "class" / "1.png", 1)  # one class is none
    assert places(tmp_path) == {
        "webcam": {"test": "b/webcam"},
        "my_photos_2024": {"test": "my photos (2024)"},
        "amazon": {"test": "office/amazon/images"},
        "webcam_2": {"test": "office/webcam/images"},
    }


@pytest.mark.parametrize(
    ("parts", "judge"),
    [(("train", "val", "test"), "test"), (("train", "val"), "val"), (("train",), "train"), (("Train", "Test"), "Test")],
)
def test_a_data_set_in_parts_is_one_and_judged_by_what_was_held_out(tmp_path: Path, parts, judge: str) -> None:
    for part in parts:
        class_folders(tmp_path / "pets" / part, 1)
    assert places(tmp_path) == {"pets": {"test": f"pets/{judge}"}}


def test_arrays_in_parts_are_one_data_set(tmp_path: Path) -> None:
    for stem in ("cifar-train", "cifar-test", "train", "valid", "alone"):
        np.savez(tmp_path / f"{stem}.npz", images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.arange(4))
    np.savez(tmp_path / "weights.npz", kernel=np.zeros(3))
    assert places(tmp_path) == {
        "alone": {"test": "alone.npz"},
        "cifar": {"test": "cifar-test.npz", "train": "cifar-train.npz"},
        tmp_path.name.strip("_"): {"train": "train.npz", "calibration": "valid.npz", "test": "valid.npz"},
    }
    assert {one.classes for one in search(tmp_path).data} == {("0", "1", "2", "3")}


def test_parts_of_arrays_calibrate_each_their_own(fresh: Path) -> None:
    (fresh / "day.npz").rename(fresh / "day-test.npz")
    (fresh / "day-train.npz").write_bytes((fresh / "day-test.npz").read_bytes())
    assert type_in("init", "--yes", *TINY).exit_code == 0
    assert written(fresh)["domains"]["day"] == {
        "kind": "npz",
        "files": {"train": "day-train.npz", "test": "day-test.npz"},
        "calibration": 0.1,
    }


def test_classes_without_names_are_numbered(fresh: Path) -> None:
    for name in ("day", "night"):
        arrays = dict(np.load(f"{name}.npz"))
        del arrays["classes"]
        np.savez(f"{name}.npz", **arrays)
    assert type_in("init", "--yes", *TINY).exit_code == 0
    assert {tuple(domain["classes"]) for domain in written(fresh)["domains"].values()} == {("0", "1")}


def test_what_is_not_the_users_own_is_passed_by(tmp_path: Path) -> None:
    for folder in (".cache", "env", "lib/site-packages", "node_modules"):
        class_folders(tmp_path / folder / "data", 1)
        (tmp_path / folder / "net.pt").touch()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "NET.PTH").touch()
    found = search(tmp_path)
    assert (found.networks, found.data) == ((tmp_path / "NET.PTH",), ())


def test_a_hidden_folder_that_the_gate_would_take_for_a_class_is_told(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets", 1)
    (tmp_path / "pets" / ".checkpoints").mkdir()
    found = search(tmp_path)
    assert found.data == ()
    assert found.refused == (f"{tmp_path / 'pets'}: .checkpoints would be a class: move it away",)


def test_linked_data_is_found(tmp_path: Path) -> None:
    class_folders(tmp_path / "elsewhere" / "pets", 1)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "data").symlink_to(tmp_path / "elsewhere")
    assert places(tmp_path / "project") == {"pets": {"test": "data/pets"}}


def test_the_size_of_images_is_theirs_but_no_more_than_imagenets(tmp_path: Path) -> None:
    for name, size in (("small", (40, 32)), ("large", (640, 480))):
        for kind in ("a", "b"):
            picture(tmp_path / name / kind / "1.png", 1, size)
    assert {one.name: one.size for one in search(tmp_path).data} == {"large": (224, 224), "small": (32, 32)}


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_file_that_runs_by_itself_is_told_from_weights(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    torch.jit.trace(network, torch.zeros(1, 2)).save(tmp_path / "script.pt")
    (tmp_path / "net.onnx").touch()
    (tmp_path / "empty.pt").touch()
    whole = {file.name for file in tmp_path.iterdir() if runs_by_itself(file)}
    assert whole == {"script.pt", "net.onnx"}


# What is guessed, and read.


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("resnet18-amazon.safetensors", "torchvision.models:resnet18"),
        ("ResNet-50_v2.pth", "torchvision.models:resnet50"),
        ("wide_resnet50_2.pt", "torchvision.models:wide_resnet50_2"),
        ("best.pt", None),
    ],
)
def test_a_network_of_torchvision_is_known_by_its_name(name: str, build: str | None) -> None:
    assert guessed_build(Path(name)) == build


def test_the_number_of_classes_goes_where_the_factory_takes_it(tiny) -> None:
    assert class_argument("tiny_network:net") == "classes"
    assert class_argument("robustgate.zoo:cifar_resnet") == "num_classes"
    assert class_argument("torchvision.models:resnet18") == "num_classes"  # among others by **kwargs
    (tiny.folder / "fixed_network.py").write_text("def net():\n    ...\n")
    assert class_argument("fixed_network:net") is None
    with pytest.raises(ConfigurationError):
        class_argument("fixed_network:ent")


def test_a_normalisation_is_a_name_or_six_numbers() -> None:
    assert read_normalize("imagenet") == IMAGENET == Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert read_normalize("inside") == "inside"
    assert read_normalize("0, 0.5,1,1,2,3") == Normalize(mean=(0.0, 0.5, 1.0), std=(1.0, 2.0, 3.0))


@pytest.mark.parametrize("command", ["init", "schema"])
def test_help_fits_a_screen_and_shows_an_example(command: str) -> None:
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run([COMMAND, command, "--help"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert f"  Example: robustgate {command} " in done.stdout
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
