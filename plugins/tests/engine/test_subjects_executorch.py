"""ExecuTorch programs, written here by its own exporter: the network's logits, whatever the batch."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim, export

from robustgate.core.components import Reading
from robustgate.core.errors import MeasurementError, ModelError
from robustgate.engine.subjects import CountedTarget, load_file

pytest.importorskip("executorch", reason="runs .pte files: pip install 'robustgate[executorch]' (thirty packages)")
CPU = torch.device("cpu")


def write(module: nn.Module, path: Path, *, most: int | None = None, delegate: bool = False) -> Path:
    """Write a program for two images, or for one to `most`; with `delegate` XNNPACK runs what it can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        batch = ({0: Dim("batch", min=1, max=most)},) if most else None
        program = export(module, (torch.rand(2, 3, 16, 16),), dynamic_shapes=batch)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()] if delegate else None)
        path.write_bytes(lowered.to_executorch().buffer)
    return path


@pytest.mark.parametrize("most", [None, 4])
@pytest.mark.parametrize("delegate", [False, True])
def test_the_programs_logits_are_the_networks(tmp_path: Path, most: int | None, delegate: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        ).eval()
    path = write(network, tmp_path / "net.pte", most=most, delegate=delegate)
    subject = load_file(path, Reading(channels="bgr", low=-1.0, skip_outputs=1), "net", CPU, threads=1)
    images = torch.rand(7, 3, 16, 16)
    with torch.no_grad():
        expected = network(images[:, [2, 1, 0]] * 2 - 1)[:, 1:]
    torch.testing.assert_close(subject.logits(images), expected, rtol=1e-4, atol=1e-5)
    alone = torch.cat([subject.logits(images[index : index + 1]) for index in range(7)])
    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(MeasurementError, match=r"net: a white-box attack needs gradients, net\.pte has none"):
        CountedTarget(subject, 4, "case").gradient(images, lambda logits: logits[:, 0])
    with pytest.raises(MeasurementError, match=r"takes inputs of \(3, 16, 16\), and the images are \(3, 8, 8\)"):
        subject.logits(torch.rand(2, 3, 8, 8))


def test_two_outputs_and_a_damaged_program_are_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)), images.amax((2, 3))

    with pytest.raises(ModelError, match="expected one input and one output, got 1 and 2"):
        load_file(write(Two(), tmp_path / "two.pte"), Reading(), "net", CPU, threads=1)
    (tmp_path / "damaged.pte").write_bytes(b"not a program")
    with pytest.raises(ModelError, match=r"net: ExecuTorch cannot load .*damaged\.pte"):
        load_file(tmp_path / "damaged.pte", Reading(), "net", CPU, threads=1)


def test_the_runtime_gets_the_threads_that_it_was_given(tmp_path: Path) -> None:
    from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count

    path = write(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), tmp_path / "net.pte")
    for threads in (2, 1):
        load_file(path, Reading(), "net", CPU, threads=threads)
        assert _threadpool_get_thread_count() == threads
