"""A file made elsewhere: where it is named, how it is read from the configuration, what is refused at planning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustgate.compression.artifact import Artifact, missing_runtime, runtime_of
from robustgate.config.reader import Reader
from robustgate.core.components import Reading
from robustgate.core.errors import CompressionError, ModelError


def workshop(folder: Path, model: str = "resnet18", source: str = "amazon") -> Any:
    return SimpleNamespace(folder=folder, model=model, source=source)


def read(folder: Path, **table: Any) -> tuple[Artifact | None, list[str]]:
    reader = Reader(folder)
    return reader.component(
        "compression", {"method": "artifact", **table}, "compressions.vendor", key="method"
    ), reader.problems


def test_the_configuration_names_files_and_how_they_read_images(tmp_path: Path) -> None:
    table = {"layout": "nhwc", "channels": "bgr", "high": 255, "mean": [104, 117, 123], "skip_outputs": 1}
    files = {"resnet18": {"amazon": "build/x.onnx", "webcam": str(tmp_path / "y.tflite")}}
    step, problems = read(tmp_path, files=files, input=table)
    assert problems == []
    assert step == Artifact(
        files={"resnet18": {"amazon": tmp_path / "build/x.onnx", "webcam": tmp_path / "y.tflite"}},
        input=Reading(layout="nhwc", channels="bgr", high=255.0, mean=(104.0, 117.0, 123.0), skip_outputs=1),
    )


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"layout": "nhcw"}, "layout: expected one of 'nchw', 'nhwc', got the text 'nhcw' (did you mean 'nhwc'?)"),
        ({"chanels": "bgr"}, "unknown key 'chanels' (did you mean 'channels'?)"),
        ({"mean": [0.5]}, "mean must be three finite numbers, one a channel, got [0.5]"),
        ({"std": [1, 1, 0]}, "std must be above 0, got [1.0, 1.0, 0.0]"),
        ({"high": 0}, "low and high must be two finite numbers that differ, got 0 and 0"),
        ({"low": float("nan")}, "low and high must be two finite numbers that differ, got nan and 1"),
        ({"skip_outputs": -1}, "skip_outputs must be at least 0, got -1"),
    ],
)
def test_a_reading_that_cannot_be_is_a_mistake_with_its_place(
    tmp_path: Path, table: dict[str, Any], problem: str
) -> None:
    step, problems = read(tmp_path, files={"resnet18": {"amazon": "x.onnx"}}, input=table)
    assert step is None
    assert len(problems) == 1
    assert problems[0].startswith("compressions.vendor.input")
    assert problem in problems[0]


def test_a_file_of_an_unknown_kind_or_no_file_is_a_mistake(tmp_path: Path) -> None:
    _, problems = read(tmp_path, files={"resnet18": {"amazon": "x.h5"}})
    known = ".jit, .onnx, .pt, .pt2, .pte, .tflite, .torchscript, .ts"
    assert problems == [
        f"compressions.vendor: {tmp_path / 'x.h5'}: expected a model file ({known}), got the suffix '.h5'"
    ]
    _, problems = read(tmp_path, files={"resnet18": {}})
    assert problems == ["compressions.vendor: files must name a file for at least one model and source domain"]


def test_it_serves_what_it_names_and_hands_out_a_copy(tmp_path: Path) -> None:
    original = tmp_path / "vendor.tflite"
    original.write_bytes(b"as it ships")
    reading = Reading(layout="nhwc")
    step = Artifact(files={"resnet18": {"amazon": original}}, input=reading)
    assert step.serves("resnet18", "amazon")
    assert not step.serves("resnet18", "webcam")
    assert not step.serves("vgg", "amazon")
    (tmp_path / "shop").mkdir()
    made = step.apply(None, workshop(tmp_path / "shop"))
    assert made.path == tmp_path / "shop" / "vendor.tflite"
    assert made.path.read_bytes() == b"as it ships"
    assert made.reading == reading
    made.path.unlink()  # the copy may be moved; the original stays
    assert original.exists()


def test_a_missing_file_and_a_variant_that_has_none_are_errors(tmp_path: Path) -> None:
    step = Artifact(files={"resnet18": {"amazon": tmp_path / "gone.onnx"}})
    with pytest.raises(CompressionError, match=r"artifact: resnet18\.amazon: there is no file .*gone\.onnx"):
        step.apply(None, workshop(tmp_path))
    with pytest.raises(CompressionError, match=r"no file is named for vgg\.amazon; named: resnet18\.amazon"):
        step.apply(None, workshop(tmp_path, model="vgg"))


def test_the_suffix_says_which_runtime() -> None:
    named = {
        "a.onnx": "onnx",
        "a.pt": "torchscript",
        "a.ts": "torchscript",
        "a.torchscript": "torchscript",
        "a.jit": "torchscript",
        "a.pt2": "exported",
        "a.int8.TFLITE": "litert",
        "a.pte": "executorch",
    }
    assert {name: runtime_of(Path(name)) for name in named} == named
    with pytest.raises(ModelError, match="got the suffix ''"):
        runtime_of(Path("weights"))


def test_a_runtime_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert missing_runtime(Path("build/a.tflite")) == (
        'a.tflite needs ai_edge_litert, which is not installed: pip install "robustgate[litert]"'
    )
    assert missing_runtime(Path("a.pte")) == (
        'a.pte needs executorch, which is not installed: pip install "robustgate[executorch]"'
    )
    assert [missing_runtime(Path(name)) for name in ("a.onnx", "a.ts", "a.pt2")] == [None, None, None]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert missing_runtime(Path("a.tflite")) is None


def test_a_plan_asks_for_runtimes_without_importing_them() -> None:
    code = """
import sys
from pathlib import Path
from robustgate.compression.artifact import missing_runtime
for suffix in (".onnx", ".pt", ".pt2", ".tflite", ".pte"):
    missing_runtime(Path("model" + suffix))
print(sorted({"torch", "onnxruntime", "ai_edge_litert", "executorch", "numpy"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
