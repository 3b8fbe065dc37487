"""Artifacts as they run: what an ONNX file without a twin, or of the wrong form, is answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from robustgate.core.errors import MeasurementError, ModelError
from robustgate.engine.subjects import CountedTarget, OnnxSubject, TorchSubject, fingerprint

CPU = torch.device("cpu")


def write(path: Path, operator: str, outputs: int = 1) -> Path:
    """Write a file that applies one operator to the mean of each image's channels, (N, 3)."""
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
        *(helper.make_node(operator, ["mean"], [f"logits{index}"]) for index in range(outputs)),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info(f"logits{index}", TensorProto.FLOAT, ["n", 3]) for index in range(outputs)],
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
    assert (target.queries, target.gradients) == (2, 2)


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
