"""Facts of artifacts against counts made by hand and against the network that a file was made of."""

from __future__ import annotations

import hashlib
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn

from robustgate.core.components import Reading
from robustgate.engine.facts import file_facts, torch_facts
from robustgate.engine.subjects import load_file
from robustgate.twin.graph import Twin
from robustgate.zoo import cifar_resnet

IMAGES = torch.linspace(0, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


class Net(nn.Module):
    """4 filters of 3 x 3 over 3 channels, normalised, and 2 classes of their means; one filter is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            self.conv.weight.fill_(0.5)
            self.conv.weight[0] = 0.0
            self.norm.bias.fill_(0.25)
            self.head.bias.fill_(1.0)
            self.head.weight.fill_(2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


PARAMETERS, NONZERO = 4 * 27 + 8 + 10, 3 * 27 + 8 + 10
MACS = 8 * 8 * 4 * 27 + 4 * 2


def macs_of_layers(module: nn.Module, image: Tensor) -> int:
    """Count by the textbook: output elements times the weights that each of them sees."""
    macs = 0

    def count(layer: Any, _: Any, output: Tensor) -> None:
        nonlocal macs
        seen = layer.weight[0].numel()
        macs += output.numel() * seen

    hooks = [
        layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        module(image)
    for hook in hooks:
        hook.remove()
    return macs


def test_a_network_is_counted_by_the_textbook(tmp_path: Path) -> None:
    net = Net().eval()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    content = (tmp_path / "net.safetensors").read_bytes()
    deflated = len(zlib.compress(content, 6))
    assert torch_facts(net, IMAGES, tmp_path / "net.safetensors") == {
        "format": "torch",
        "artifact_sha256": hashlib.sha256(content).hexdigest(),
        "parameters": PARAMETERS,
        "nonzero_parameters": NONZERO,
        "size_bytes": len(content),
        "deflated_bytes": deflated,
        "effective_bits": 8 * deflated / PARAMETERS,
        "macs": MACS,
    }


@pytest.mark.parametrize("depth", [8, 20])
def test_a_resnet_is_counted_by_the_textbook(tmp_path: Path, depth: int) -> None:
    net, image = cifar_resnet(depth=depth, num_classes=10).eval(), torch.zeros(1, 3, 32, 32)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    facts = torch_facts(net, image.expand(2, -1, -1, -1), tmp_path / "net.safetensors")
    assert facts["macs"] == macs_of_layers(net, image)
    if depth == 20:  # 41 M, as He et al. have it
        assert (facts["macs"], facts["parameters"]) == (40_551_040, 269_722)


def test_incompressible_weights_take_their_32_bits(tmp_path: Path) -> None:
    net = nn.Linear(400, 400, bias=False)
    words = np.random.default_rng(0).integers(2**30, 2**30 + 2**29, (400, 400), dtype=np.int32)  # finite, all bits free
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(words.view(np.float32)))
    bits = {}
    for name in ("dense", "clustered"):
        save_file(net.state_dict(), tmp_path / name)
        bits[name] = torch_facts(net, torch.zeros(1, 400), tmp_path / name)["effective_bits"]
        with torch.no_grad():  # sixteen values need four bits, plus what zlib takes for its codes
            net.weight.copy_(torch.from_numpy(np.random.default_rng(1).integers(0, 16, (400, 400)).astype(np.float32)))
    assert 28 < bits["dense"] < 32.1
    assert 4 < bits["clustered"] < 8


# ONNX.


def exported(path: Path, module: nn.Module, batch: int | None = None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (IMAGES[:1].expand(batch or 2, -1, -1, -1),),
            path,
            dynamo=True,
            verbose=False,
            external_data=False,
            dynamic_shapes=None if batch else ({0: torch.export.Dim("n")},),
        )
    return path


def test_a_file_has_the_multiplications_of_the_network_that_it_was_made_of(tmp_path: Path) -> None:
    file = exported(tmp_path / "net.onnx", Net().eval())
    facts = file_facts(file, "onnx", Twin.from_file(file), IMAGES)
    assert (facts["format"], facts["macs"]) == ("onnx", MACS)
    assert facts["size_bytes"] == file.stat().st_size
    assert facts["effective_bits"] == 8 * facts["deflated_bytes"] / facts["parameters"]


def test_a_file_that_is_made_for_eight_images_counts_one(tmp_path: Path) -> None:
    file = exported(tmp_path / "net.onnx", Net().eval(), batch=8)
    subject = load_file(file, Reading(), "net", torch.device("cpu"), threads=1)
    assert file_facts(file, "onnx", subject.differentiable(), IMAGES)["macs"] == MACS


def onnx_file(path: Path, nodes: list[Any], **constants: np.ndarray) -> Path:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    x, y = (helper.make_tensor_value_info(name, 1, None) for name in ("x", "y"))
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", [x], [y], initializers)), path)
    return path


def counted(file: Path) -> tuple[int, int]:
    facts = file_facts(file, "onnx", None, IMAGES)
    assert facts["macs"] is None
    return facts["parameters"], facts["nonzero_parameters"]


def constant(name: str, value: np.ndarray) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def test_weights_count_wherever_the_file_keeps_them(tmp_path: Path) -> None:
    weight, bias = np.array([[0, 1, 2], [3, 0, 5]], np.float32), np.array([1, 0], np.float32)
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    kept = onnx_file(tmp_path / "a.onnx", [gemm], w=weight, b=bias)
    nodes = [constant("w", weight), constant("b", bias), gemm]
    assert counted(onnx_file(tmp_path / "b.onnx", nodes)) == counted(kept) == (8, 5)


def test_what_says_how_to_compute_is_no_weight(tmp_path: Path) -> None:
    nodes = [
        constant("shape", np.array([1, -1], np.int64)),
        constant("low", np.float32(0)),
        constant("one", np.float32(2)),
        helper.make_node("Resize", ["x", "", "sizes"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["f"]),
        helper.make_node("Clip", ["f", "low"], ["c"]),
        helper.make_node("Mul", ["c", "one"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    settings = {"sizes": np.ones(4, np.float32), "scale": np.ones(1, np.float32), "zero": np.zeros(1, np.uint8)}
    assert counted(onnx_file(tmp_path / "a.onnx", nodes, w=np.ones((3, 2), np.float32), **settings)) == (6, 6)


def test_each_filter_has_its_own_zero_point(tmp_path: Path) -> None:
    weight = np.array([[7, 7, 0], [9, 0, 9]], np.uint8).reshape(2, 3, 1, 1)
    zeros, scales = np.array([7, 9], np.uint8), np.ones(2, np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0),
        helper.make_node("Conv", ["x", "d"], ["y"]),
    ]
    assert counted(onnx_file(tmp_path / "a.onnx", nodes, w=weight, s=scales, z=zeros)) == (6, 2)
    integers = [helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "s", "z", "xs", "xz", "b"], ["y"])]
    single = {"xs": np.float32([1]), "xz": np.uint8([0])}
    file = onnx_file(tmp_path / "b.onnx", integers, w=weight, s=scales, z=zeros, b=np.array([0, 5], np.int32), **single)
    assert counted(file) == (6 + 2, 2 + 1)


# Torch's own programs, and others.


@pytest.mark.parametrize("form", ["torchscript", "exported"])
def test_a_program_counts_as_the_network_that_it_was_made_of(tmp_path: Path, form: Any) -> None:
    file, net = tmp_path / ("net.pt2" if form == "exported" else "net.pt"), Net().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "exported":
            torch.export.save(torch.export.export(net, (IMAGES,), dynamic_shapes=({0: torch.export.Dim("n")},)), file)
        else:
            torch.jit.save(torch.jit.trace(net, IMAGES), file)
    module = load_file(file, Reading(), "net", torch.device("cpu"), threads=1).differentiable()
    facts = file_facts(file, form, module, IMAGES)
    assert (facts["format"], facts["parameters"], facts["nonzero_parameters"]) == (form, PARAMETERS, NONZERO)
    assert facts["macs"] == MACS


def test_a_program_that_froze_its_weights_has_no_count(tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.freeze(torch.jit.trace(Net().eval(), IMAGES)), file)
    module = load_file(file, Reading(), "net", torch.device("cpu"), threads=1).differentiable()
    facts = file_facts(file, "torchscript", module, IMAGES)
    assert (facts["parameters"], facts["nonzero_parameters"], facts["effective_bits"]) == (None, None, None)
    assert facts["macs"] == MACS


class Opaque(nn.Module):
    """Multiplies where the counter does not look."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(images.flatten(1).numpy() @ np.ones((192, 2), np.float32))


@pytest.mark.parametrize("form", ["litert", "executorch"])
@pytest.mark.parametrize("module", [None, Opaque()])
def test_what_cannot_be_counted_is_not_measured(tmp_path: Path, form: Any, module: nn.Module | None) -> None:
    file = tmp_path / "net"
    file.write_bytes(bytes(1000))
    facts = file_facts(file, form, module, IMAGES)
    assert [facts[key] for key in ("parameters", "nonzero_parameters", "effective_bits", "macs")] == [None] * 4
    assert (facts["size_bytes"], facts["deflated_bytes"]) == (1000, len(zlib.compress(bytes(1000), 6)))
