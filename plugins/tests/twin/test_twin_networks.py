"""Whole networks, quantized by ONNX Runtime in every form that it writes: what the file answers, its twin answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors.torch import load_file
from torch import Tensor, nn

from robustgate.compression._onnx_export import export, save, silence
from robustgate.twin.graph import Twin
from robustgate.zoo.cifar_resnet import cifar_resnet

CLASSES = 10


class Batches:
    """Calibration images, as ONNX Runtime asks for them."""

    def __init__(self, images: Tensor) -> None:
        self.left: Iterator[Tensor] = iter(images.split(10))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.left, None)
        return None if batch is None else {"images": batch.numpy()}


def smooth_images(count: int, seed: int) -> Tensor:
    """Noise of few frequencies: a network of random weights tells such images apart."""
    coarse = torch.from_numpy(np.random.default_rng(seed).random((count, 3, 6, 6), dtype=np.float32))
    return nn.functional.interpolate(coarse, size=64, mode="bicubic", align_corners=False).clamp(0, 1)


def random_network(name: str) -> nn.Module:
    """A torchvision network whose weights are random and whose batch statistics are true."""
    import torchvision

    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(num_classes=CLASSES)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        module.train()(smooth_images(64, seed=7))
    return module.eval()


def write(module: nn.Module, folder: Path, form: str, images: Tensor) -> Path:
    """Quantize a network. Seven bits a weight: without VNNI, a processor's kernels saturate beyond."""
    exported, prepared, product = (folder / f"{name}.onnx" for name in ("float", "prepared", form))
    kinds = quantization.QuantType
    with silence():
        if not prepared.exists():
            save(export(module, images[:2], method="test"), exported)
            quant_pre_process(exported, prepared)
        if form == "dynamic":
            quantization.quantize_dynamic(prepared, product, weight_type=kinds.QUInt8)
        else:
            quantization.quantize_static(
                prepared,
                product,
                Batches(images),
                quant_format=quantization.QuantFormat[form],
                per_channel=True,
                reduce_range=True,
                activation_type=kinds.QUInt8,
                weight_type=kinds.QInt8,
            )
    return product


def answers(path: Path, images: Tensor, batch: int) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": part.numpy()})[0] for part in images.split(batch)])


def twin_answers(path: Path, images: Tensor) -> np.ndarray:
    with torch.no_grad():
        twin = Twin.from_file(path)
        return torch.cat([twin(part) for part in images.split(50)]).numpy()


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


NETWORKS = {
    "mobilenet_v3_small": {"QOperator": {"QLinearConv", "QLinearAdd", "QLinearMul", "QGemm"}},
    "shufflenet_v2_x0_5": {
        "QOperator": {"QLinearConv", "QLinearConcat", "QGemm", "MaxPool", "Split", "Transpose"},
        "dynamic": {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"},
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_s_twin_answers_as_its_file_does(tmp_path, name):
    module, test = random_network(name), smooth_images(100, seed=5)
    for form, expected in NETWORKS[name].items():
        path = write(module, tmp_path, form, smooth_images(20, seed=6))
        assert expected <= operators(path)
        # A dynamic range is of all that is run at a time: one image.
        found = answers(path, test, 1 if form == "dynamic" else 50)
        twin = twin_answers(path, test)
        assert len(set(found.argmax(1))) > 3
        assert np.mean(found.argmax(1) == twin.argmax(1)) >= 0.99
        # Nearly all are equal to the last bit. Averages that the file takes in float32 may lie on the edge between two
        # codes, and a step more or less is then carried on.
        assert np.mean(np.abs(found - twin) > 1e-5 * np.ptp(found)) < 0.1
        assert np.abs(found - twin).max() < 0.1 * np.ptp(found)
        leaf = test[:4].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(Twin.from_file(path)(leaf)[:, 0].sum(), leaf)
        assert (gradient.flatten(1).norm(dim=1) > 0).all()


class Normalizing(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


def test_a_published_network_in_qoperator_form(real_data, tmp_path, record_testsuite_property):
    network = cifar_resnet(depth=20, num_classes=CLASSES)
    network.load_state_dict(load_file(real_data / "weights" / "cifar10_resnet20.safetensors"), strict=False)
    module = Normalizing(network).eval()
    calibration = as_tensor(np.load(real_data / "cifar" / "cifar10_train_10000.npz")["images"][::50])
    data = np.load(real_data / "cifar" / "cifar10_test_2000.npz")
    images = as_tensor(data["images"])
    path = write(module, tmp_path, "QOperator", calibration)
    assert {"QLinearConv", "QLinearAdd", "QGemm"} <= operators(path)
    found = answers(path, images, 100)
    accuracy = np.mean(found.argmax(1) == data["labels"])
    found, twin = found[::4], twin_answers(path, images[::4])
    share = np.mean(found.argmax(1) == twin.argmax(1))
    record_testsuite_property("resnet20_qoperator_accuracy", float(accuracy))
    record_testsuite_property("resnet20_qoperator_agreement", float(share))
    assert abs(accuracy - 0.918) <= 0.01
    assert share >= 0.995
    # The file averages 64 codes in float32: one in 64 averages lies on the edge between two codes, and goes either way.
    assert np.mean(found != twin) < 0.05
    assert np.abs(found - twin).max() < 1
    assert cosine(module, Twin.from_file(path), images[:40], torch.from_numpy(data["labels"][:40])) > 0.8


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)


def cosine(reference: nn.Module, twin: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The mean cosine between what two networks' gradients say of an image."""
    slopes: list[Any] = []
    for module in (reference, twin):
        leaf = images.clone().requires_grad_()
        logits = module(leaf)
        margins = logits.gather(1, labels[:, None])[:, 0] - logits.mean(1)
        slopes.append(torch.autograd.grad(margins.sum(), leaf)[0].flatten(1))
    return float(torch.cosine_similarity(*slopes).mean())
