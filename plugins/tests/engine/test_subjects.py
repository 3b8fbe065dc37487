"""Artifacts as they run: networks and ONNX files, in the batches and with the reading that a file was made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from robustgate.attacks.pgd import Pgd
from robustgate.core.components import Reading, Samples
from robustgate.core.errors import MeasurementError, ModelError
from robustgate.engine.adversarial import measure_adversarial
from robustgate.engine.subjects import CountedTarget, OnnxSubject, TorchSubject, fingerprint, load_file

CPU = torch.device("cpu")


def write(path: Path, operator: str, outputs: int = 1, batch: int | str = "n") -> Path:
    """Write a file that applies one operator to the mean of each image's channels, (N, 3)."""
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
        *(helper.make_node(operator, ["mean"], [f"logits{index}"]) for index in range(outputs)),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info(f"logits{index}", TensorProto.FLOAT, [batch, 3]) for index in range(outputs)],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_file_without_a_twin_is_one_clear_error_under_a_white_box_attack(tmp_path: Path) -> None:
    subject = OnnxSubject(write(tmp_path / "vendor.onnx", "Asinh"), "net-vendor-amazon", CPU, threads=1)
    images = torch.rand(2, 3, 8, 8)
    target = CountedTarget(subject, 3, "net-vendor-amazon-pgd")
    torch.testing.assert_close(target.logits(images), torch.asinh(images.mean((2, 3))))
    with pytest.raises(MeasurementError) as caught:
        target.gradient(images, lambda logits: logits.sum(dim=1))
    message = str(caught.value)
    assert message.startswith("net-vendor-amazon: a white-box attack needs gradients, vendor.onnx has none")
    assert "Asinh" in message


def test_a_file_with_a_twin_gives_the_artifacts_logits_and_the_twins_gradient(tmp_path: Path) -> None:
    subject = OnnxSubject(write(tmp_path / "net.onnx", "Sigmoid"), "net", CPU, threads=1)
    images = torch.rand(2, 3, 8, 8)
    target = CountedTarget(subject, 3, "net")
    logits, gradient = target.gradient(images, lambda logits: logits.sum(dim=1))
    torch.testing.assert_close(logits, torch.sigmoid(images.mean((2, 3))))
    expected = (logits * (1 - logits) / 64)[:, :, None, None].expand_as(images)
    torch.testing.assert_close(gradient, expected)
    assert (target.queries, target.gradients) == (0, 2)


def test_two_outputs_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected one input and one output, got 1 and 2"):
        OnnxSubject(write(tmp_path / "two.onnx", "Relu", outputs=2), "net", CPU, threads=1)
    (tmp_path / "damaged.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"net: ONNX Runtime cannot load .*damaged\.onnx"):
        OnnxSubject(tmp_path / "damaged.onnx", "net", CPU, threads=1)


def test_a_subject_is_a_frozen_copy() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).train()
    subject = TorchSubject(module, CPU)
    before = fingerprint(subject, torch.ones(2, 3, 2, 2))
    nn.init.zeros_(module[1].weight)
    assert module.training
    assert fingerprint(subject, torch.ones(2, 3, 2, 2)) == before
    assert not any(parameter.requires_grad for parameter in subject.module.parameters())


def test_a_gradient_of_nan_is_an_error() -> None:
    class Root(nn.Module):
        def forward(self, images):
            return torch.sqrt(images.flatten(1)[:, :2] * 0)

    target = CountedTarget(TorchSubject(Root(), CPU), 2, "case")
    with pytest.raises(MeasurementError, match="case: the gradient holds NaN or infinity"):
        target.gradient(torch.from_numpy(np.ones((1, 3, 2, 2), dtype=np.float32)), lambda logits: logits.sum(dim=1))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_file_for_a_fixed_batch_answers_any_number_of_images(tmp_path: Path, batch: int) -> None:
    subject = OnnxSubject(write(tmp_path / "net.onnx", "Sigmoid", batch=batch), "net", CPU, threads=1)
    images = torch.rand(5, 3, 8, 8)
    expected = torch.sigmoid(images.mean((2, 3)))
    torch.testing.assert_close(subject.logits(images), expected)
    assert torch.equal(torch.cat([subject.logits(image[None]) for image in images]), subject.logits(images))
    _, gradient = CountedTarget(subject, 3, "net").gradient(images, lambda logits: logits.sum(dim=1))
    slopes = (expected * (1 - expected) / 64)[:, :, None, None]
    torch.testing.assert_close(gradient, slopes.expand_as(images))


def test_a_published_detector_for_one_image_answers_three(real_data: Path) -> None:
    subject = OnnxSubject(
        real_data / "weights/fastestdet_coco.onnx", "net", CPU, threads=1, reading=Reading(channels="bgr")
    )
    images = torch.rand(3, 3, 352, 352)
    alone = [subject.session.run(None, {subject.input: image.flip(0)[None].numpy()})[0] for image in images]
    assert torch.equal(subject.logits(images), torch.from_numpy(np.concatenate(alone)))


def write_int8(path: Path) -> Path:
    """Write a quantized file that reads BGR pixels 0..255, channels last: logits are the channels' means, in steps."""
    scales = [
        helper.make_tensor("pixel", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("step", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("zero", TensorProto.UINT8, [], [0]),
        helper.make_tensor("low", TensorProto.INT8, [], [-128]),
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "pixel", "zero"], ["stored"]),
        helper.make_node("DequantizeLinear", ["stored", "pixel", "zero"], ["pixels"]),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("QuantizeLinear", ["mean", "step", "low"], ["coarse"]),
        helper.make_node("DequantizeLinear", ["coarse", "step", "low"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        scales,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_pgd_fells_exactly_what_it_can_through_a_quantized_file_with_a_reading(tmp_path: Path) -> None:
    reading = Reading(layout="nhwc", channels="bgr", high=255.0)
    subject = load_file(write_int8(tmp_path / "int8.onnx"), reading, "net", CPU, threads=1)
    # Blue, class 0 of the file, leads red, class 2, by 4 to 40 grey levels; the means stay below 127.5, the file's top.
    leads = torch.arange(4, 44, 4)
    images = torch.empty(len(leads), 3, 8, 8)
    images[:, 0], images[:, 1] = 60 / 255, 20 / 255
    images[:, 2] = (60 + leads)[:, None, None] / 255
    target = CountedTarget(subject, 3, "case")
    labels = torch.zeros(len(leads), dtype=torch.int64)
    assert target.logits(images)[:, 0].tolist() == (60.0 + leads).tolist()
    assert target.logits(images).argmax(dim=1).tolist() == labels.tolist()
    # Within 10 grey levels the lead can be lowered by 20: what leads by less falls, what leads by more stands.
    attack = Pgd(eps=10 / 255, steps=20)
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    samples = Samples(images=pixels, labels=labels.numpy(), classes=("b", "g", "r"), names=("",) * len(leads))
    outcome = measure_adversarial(subject, samples, "case", lambda *_: None, attack, seed=0)
    assert outcome.details["largest_norm"] <= attack.eps + 1e-6
    standing = torch.from_numpy(outcome.correct)
    assert standing[leads < 20].sum() == 0
    assert standing[leads > 20].all()


def test_a_file_of_an_unknown_kind_or_without_its_runtime_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ModelError, match=r"^net: .*net\.h5: expected a model file \(\.jit, \.onnx, .*got the suffix '\.h5'"
    ):
        load_file(tmp_path / "net.h5", Reading(), "net", CPU, threads=1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for suffix, extra in ((".tflite", "litert"), (".pte", "executorch")):
        with pytest.raises(ModelError, match=rf'net: net{suffix} needs .*pip install "robustgate\[{extra}\]"'):
            load_file(tmp_path / f"net{suffix}", Reading(), "net", CPU, threads=1)


def test_a_file_of_strings_is_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["logits"])],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("logits", TensorProto.STRING, ["n"])],
    )
    path = tmp_path / "strings.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    with pytest.raises(ModelError, match=r"strings\.onnx: expected tensors of one of .*, got tensor\(string\)"):
        OnnxSubject(path, "net", CPU, threads=1)
