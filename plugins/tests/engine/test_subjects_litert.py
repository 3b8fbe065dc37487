"""TFLite files by LiteRT: published models must have their known accuracies, to the image."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustgate.core.components import Reading
from robustgate.core.errors import MeasurementError, ModelError
from robustgate.engine.subjects import CountedTarget, load_file
from robustgate.engine.subjects.litert import LiteRtSubject

REASON = "runs TFLite files: pip install 'robustgate[litert]'"
pytest.importorskip("ai_edge_litert", reason=REASON)
CPU = torch.device("cpu")
PIXELS = Reading(layout="nhwc", high=255.0)


def as_images(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255


def load(path: Path, reading: Reading = PIXELS) -> LiteRtSubject:
    subject = load_file(path, reading, "net-vendor-cifar10", CPU, threads=1)
    assert isinstance(subject, LiteRtSubject)
    return subject


# The publisher's ResNet-8 for CIFAR-10, and its int8 twin: 86.45 % and 86.40 % of the 2,000.
@pytest.mark.parametrize(("suffix", "correct"), [("", 1729), ("_quant", 1728)])
def test_published_cifar_models_have_their_known_accuracy(real_data: Path, suffix: str, correct: int) -> None:
    subject = load(real_data / f"tflite/mlperf_tiny_pretrainedResnet{suffix}.tflite")
    with np.load(real_data / "cifar/cifar10_test_2000.npz") as arrays:
        images, labels = as_images(arrays["images"]), torch.from_numpy(arrays["labels"])
    logits = subject.logits(images)
    assert int((logits.argmax(dim=1) == labels).sum()) == correct
    # Both end in a softmax; the int8 file stores it in steps of 1/256 from -128.
    assert float((logits.sum(dim=1) - 1).abs().max()) < (1e-5 if not suffix else 0.03)
    if suffix:
        assert torch.equal(logits * 256, (logits * 256).round())
    torch.testing.assert_close(subject.logits(images[7:9]), logits[7:9], rtol=0, atol=0)


def test_integers_go_in_and_come_out_as_by_hand(real_data: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    path = real_data / "tflite/mlperf_tiny_pretrainedResnet_quant.tflite"
    with np.load(real_data / "cifar/cifar10_test_2000.npz") as arrays:
        pixels = arrays["images"][:20]
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    stored = []
    for image in pixels:
        interpreter.set_tensor(
            interpreter.get_input_details()[0]["index"], (image.astype(int) - 128).astype(np.int8)[None]
        )
        interpreter.invoke()
        stored.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0].astype(int))
    expected = torch.tensor(np.array(stored) + 128) / 256
    assert torch.equal(load(path).logits(as_images(pixels)), expected)


def test_a_published_mobilenet_skips_its_background_class(real_data: Path) -> None:
    with (real_data / "imagenet/labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    pixels = []
    for row in rows:
        with Image.open(real_data / "imagenet" / row["file"]) as image:
            side = round(0.875 * min(image.size))
            left, top = (image.width - side) // 2, (image.height - side) // 2
            box = (left, top, left + side, top + side)
            pixels.append(np.asarray(image.convert("RGB").resize((128, 128), Image.Resampling.BILINEAR, box=box)))
    labels = torch.tensor([int(row["class_index"]) for row in rows])
    path = real_data / "tflite/mobilenet_v1_0.25_128_quant.tflite"
    reading = Reading(layout="nhwc", high=255.0, mean=(128.0,) * 3, std=(128.0,) * 3, skip_outputs=1)
    logits = load(path, reading).logits(as_images(np.stack(pixels)))
    assert logits.shape == (100, 1000)
    # 45.0 % was measured on a thousand images of the same source, of which these are a hundred.
    top1 = float((logits.argmax(dim=1) == labels).float().mean())
    assert abs(top1 - 0.45) < 3 * (0.45 * 0.55 / 100) ** 0.5
    # Without the skip, each class is off by one: nearly none is right.
    kept = load(path, Reading(layout="nhwc", high=255.0, mean=(128.0,) * 3, std=(128.0,) * 3))
    shifted = kept.logits(as_images(np.stack(pixels[:20])))
    assert torch.equal(shifted[:, 1:], logits[:20])
    assert int((shifted.argmax(dim=1) == labels[:20]).sum()) == 0


def test_there_is_no_gradient_and_the_error_says_so(real_data: Path) -> None:
    subject = load(real_data / "tflite/mlperf_tiny_pretrainedResnet_quant.tflite")
    with pytest.raises(MeasurementError) as caught:
        CountedTarget(subject, 10, "case").gradient(torch.rand(1, 3, 32, 32), lambda logits: logits[:, 0])
    assert str(caught.value).startswith(
        "net-vendor-cifar10: a white-box attack needs gradients, mlperf_tiny_pretrainedResnet_quant.tflite has none "
        "and no twin can be made of it: "
    )


def test_a_damaged_file_and_images_of_another_size_are_refused(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.tflite").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"net-vendor-cifar10: LiteRT cannot load .*damaged\.tflite: "):
        load(tmp_path / "damaged.tflite")
    subject = load(real_data / "tflite/mlperf_tiny_pretrainedResnet.tflite")
    with pytest.raises(MeasurementError, match=r"takes inputs of \(32, 32, 3\), and the images are \(96, 96, 3\)"):
        subject.logits(torch.rand(2, 3, 96, 96))
