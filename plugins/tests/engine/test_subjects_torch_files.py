"""TorchScript files and exported programs: the network's own logits and gradients; what could run code is refused."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.export import save as save_exported

from robustgate.core.components import Reading
from robustgate.core.errors import MeasurementError, ModelError
from robustgate.engine.subjects import CountedTarget, Subject, load_file

CPU = torch.device("cpu")
READING = Reading(channels="bgr", high=255.0, mean=(104.0, 117.0, 123.0), std=(58.0, 57.0, 50.0))
NHWC = Reading(layout="nhwc", high=255.0)


class Small(nn.Module):
    """A convolutional network with a batch norm and a dropout, which differ in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))


class Linear(nn.Module):
    """Logits are a sum over all pixels, channel by channel: the gradient to a pixel is the channel's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -2.0, 4.0], [3.0, 0.0, 1.0]]))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.sum((2, 3)) @ self.weight.T


def scripted(module: nn.Module, path: Path, *, traced: bool = False) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        made = torch.jit.trace(module, torch.rand(2, 3, 16, 16)) if traced else torch.jit.script(module)
        made.save(str(path))
    return path


def exported(module: nn.Module, path: Path, *, most: int | None = None) -> Path:
    batch = ({0: Dim("batch", min=1, max=most)},) if most else None
    save_exported(export(module, (torch.rand(2, 3, 16, 16),), dynamic_shapes=batch), path)
    return path


FORMS: dict[str, Callable[[nn.Module, Path], Path]] = {
    "scripted": lambda module, folder: scripted(module, folder / "net.ts"),
    "traced": lambda module, folder: scripted(module, folder / "net.pt", traced=True),
    "exported-for-two": lambda module, folder: exported(module, folder / "net.pt2"),
    "exported-for-four": lambda module, folder: exported(module, folder / "net.pt2", most=4),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Subject]:
    def load(module: nn.Module, reading: Reading = READING) -> Subject:
        path = FORMS[request.param](module, tmp_path)
        return load_file(path, reading, "net", CPU, threads=1)

    return load


def small() -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Small().eval()


def by_hand(images: Tensor) -> Tensor:
    mean, std = torch.tensor(READING.mean), torch.tensor(READING.std)
    return (images[:, [2, 1, 0]] * 255 - mean[:, None, None]) / std[:, None, None]


def test_the_files_logits_are_the_networks_however_many_images(form: Callable[..., Subject]) -> None:
    network, images = small(), torch.rand(5, 3, 16, 16)
    subject = form(network)
    with torch.no_grad():
        expected = network(by_hand(images))
    for _ in range(3):  # a just-in-time compiler changes what runs after the first call
        torch.testing.assert_close(subject.logits(images), expected, rtol=1e-5, atol=1e-6)
    alone = torch.cat([subject.logits(images[index : index + 1]) for index in range(5)])
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_goes_through_the_reading(form: Callable[..., Subject]) -> None:
    subject, images = form(Linear()), torch.rand(5, 3, 16, 16)
    target = CountedTarget(subject, 2, "net")
    logits, gradient = target.gradient(images, lambda logits: logits[:, 0])
    # d logit_0 / d pixel is 255 / std * weight, of channels in the file's order; back in RGB it is reversed.
    expected = torch.tensor([4 * 255 / 50, -2 * 255 / 57, 1 * 255 / 58])
    torch.testing.assert_close(gradient, expected[:, None, None].expand_as(images))
    # The same sums, perhaps in another order: images are channels last here.
    torch.testing.assert_close(logits, subject.logits(images), rtol=1e-5, atol=1e-6)
    assert (target.queries, target.gradients) == (0, 5)


def test_the_gradient_of_a_network_obeys_the_chain_rule(form: Callable[..., Subject]) -> None:
    network, images = small(), torch.rand(5, 3, 16, 16)
    inputs = by_hand(images).requires_grad_()
    (inner,) = torch.autograd.grad(network(inputs)[:, 1].sum(), inputs)
    expected = (inner * 255 / torch.tensor(READING.std)[:, None, None])[:, [2, 1, 0]]
    _, gradient = CountedTarget(form(network), 5, "net").gradient(images, lambda logits: logits[:, 1])
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_channels_last_file(tmp_path: Path) -> None:
    class Means(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.mean((1, 2))

    images = torch.rand(3, 3, 4, 6)
    for path in (tmp_path / "means.pt2", tmp_path / "means.jit"):
        if path.suffix == ".pt2":
            save_exported(export(Means(), (torch.rand(3, 4, 6, 3),)), path)
        else:
            scripted(Means(), path)
        subject = load_file(path, NHWC, "net", CPU, threads=1)
        torch.testing.assert_close(subject.logits(images), images.mean((2, 3)) * 255)


def test_a_file_with_two_inputs_or_two_outputs_is_refused(tmp_path: Path) -> None:
    class TwoInputs(nn.Module):
        def forward(self, images: Tensor, other: Tensor) -> Tensor:
            return images.sum((2, 3)) + other

    class TwoOutputs(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images.sum((2, 3)), images

    class Wrapped(nn.Module):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"logits": images.sum((2, 3))}

    images = torch.rand(2, 3, 4, 4)
    both = "net: .*: expected one input and one output, got 2 and 1"
    save_exported(export(TwoInputs(), (images, torch.rand(2, 3))), tmp_path / "inputs.pt2")
    for path in (tmp_path / "inputs.pt2", scripted(TwoInputs(), tmp_path / "inputs.ts")):
        with pytest.raises(ModelError, match=both):
            load_file(path, Reading(), "net", CPU, threads=1)
    save_exported(export(TwoOutputs(), (images,)), tmp_path / "outputs.pt2")
    with pytest.raises(ModelError, match="expected one input and one output, got 1 and 2"):
        load_file(tmp_path / "outputs.pt2", Reading(), "net", CPU, threads=1)
    save_exported(export(Wrapped(), (images,)), tmp_path / "wrapped.pt2")
    with pytest.raises(ModelError, match=r"net: .*wrapped\.pt2: expected one output, a tensor, got a structure"):
        load_file(tmp_path / "wrapped.pt2", Reading(), "net", CPU, threads=1)
    for module, got in ((TwoOutputs(), r"Tuple\[Tensor, Tensor\]"), (Wrapped(), r"Dict\[str, Tensor\]")):
        with pytest.raises(ModelError, match=f"expected an output that is a tensor, got {got}"):
            load_file(scripted(module, tmp_path / "outputs.ts"), Reading(), "net", CPU, threads=1)


class Trap:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.sprung),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_never_loaded(tmp_path: Path, zipped: bool) -> None:
    path, sprung = tmp_path / "net.pt", tmp_path / "sprung"
    torch.save({"model": Trap(sprung)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError) as caught:
        load_file(path, Reading(), "net", CPU, threads=1)
    message = str(caught.value)
    assert message.startswith(f"net: {path} is no TorchScript archive: ")
    assert "safetensors" in message
    assert "build factory" in message
    assert not sprung.exists()
    torch.load(path, weights_only=False)  # the trap is a real one
    assert sprung.exists()


def rewritten(path: Path, made: Path, changes: dict[str, bytes]) -> Path:
    """Copy an archive with records replaced or added; names are relative to the archive's root."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as target:
        root = source.namelist()[0].partition("/")[0]
        for name in source.namelist():
            target.writestr(name, changes.pop(name.partition("/")[2], source.read(name)))
        for name, content in changes.items():
            target.writestr(f"{root}/{name}", content)
    return made


def test_an_exported_program_with_a_pickle_in_it_is_refused_and_never_loaded(tmp_path: Path) -> None:
    sprung, whole = tmp_path / "sprung", exported(Linear(), tmp_path / "net.pt2")
    torch.save(Trap(sprung), tmp_path / "trap")
    trap = (tmp_path / "trap").read_bytes()
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    samples = rewritten(whole, tmp_path / "samples.pt2", {"data/sample_inputs/model.pt": trap})
    with pytest.raises(ModelError, match=r"net: torch\.export cannot load .*samples\.pt2"):
        load_file(samples, Reading(), "net", CPU, threads=1)
    assert not sprung.exists()
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == before
    for record, problem in (
        ("data/constants/opaque_obj_0", "holds a pickled object"),
        ("data/constants/Custom_Obj_0", "holds a pickled object"),
        ("data/aotinductor/model/net.so", "holds compiled code"),
    ):
        other = rewritten(whole, tmp_path / "other.pt2", {record: trap})
        with pytest.raises(ModelError, match=f"{problem} .{record}."):
            load_file(other, Reading(), "net", CPU, threads=1)
    # The unchanged program, written in the same way, is read; and the trap springs where torch is not held back.
    load_file(rewritten(whole, tmp_path / "same.pt2", {}), Reading(), "net", CPU, threads=1)
    with pytest.raises(AssertionError, match="expected tuple or dict"):
        torch.export.load(samples)
    assert sprung.exists()


def test_a_program_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is in training mode; export the network after network\.eval\(\)"):
        load_file(exported(small().train(), tmp_path / "net.pt2"), Reading(), "net", CPU, threads=1)


def test_a_damaged_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"not a program")
    with pytest.raises(ModelError, match=r"net: torch\.export cannot load .*net\.pt2"):
        load_file(tmp_path / "net.pt2", Reading(), "net", CPU, threads=1)


def test_a_quantized_program_runs_and_its_missing_gradient_is_an_error(tmp_path: Path) -> None:
    import torch.ao.quantization.fx._decomposed

    operators = torch.ops.quantized_decomposed

    class Quantized(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            stored = operators.quantize_per_tensor(images, 0.25, 0, 0, 255, torch.uint8)
            return operators.dequantize_per_tensor(stored, 0.25, 0, 0, 255, torch.uint8).mean((2, 3))

    subject = load_file(exported(Quantized(), tmp_path / "int8.pt2"), Reading(), "net", CPU, threads=1)
    levels = torch.tensor([0.1, 0.3, 0.6])[None, :, None, None].expand(2, 3, 16, 16)
    assert subject.logits(levels).tolist() == [[0.0, 0.25, 0.5]] * 2
    with pytest.raises(MeasurementError, match="needs gradients, and none flow from the logits to the images"):
        CountedTarget(subject, 3, "net").gradient(levels, lambda logits: logits[:, 0])
