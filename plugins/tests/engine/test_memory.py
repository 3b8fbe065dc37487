"""Peak memory of networks whose weights and activations are known to the byte."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from robustgate.core.components import Architecture
from robustgate.core.errors import MeasurementError
from robustgate.engine import memory, networks
from robustgate.engine.memory import PROBE, Probe, peak_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux only")

FACTORIES = """
from torch import nn

def heavy(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, width, bias=False), nn.Linear(width, 2))

def wide():
    return nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))
"""
WIDTH = 83_334  # 64 MB of weights
HEAVY = 4 * (192 * WIDTH + 2 * WIDTH + 2)


@pytest.fixture
def probe_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Build a network of FACTORIES and describe it to a process of its own."""
    (tmp_path / "known_networks.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "known_networks", raising=False)

    def probe(factory: str, size: int, **args: int) -> Probe:
        architecture = Architecture(build=f"known_networks:{factory}", args=args, mean=(0.0,) * 3, std=(1.0,) * 3)
        module = networks.build(architecture, torch.zeros(2, 3, size, size))
        path = tmp_path / "net.safetensors"
        save_file(module.state_dict(), path)
        return Probe(name="net", path=path, shape=(3, size, size), threads=1, architecture=architecture)

    return probe


def test_a_networks_weights_are_in_it_once(probe_of) -> None:
    peak = peak_memory(probe_of("heavy", 8, width=WIDTH))
    assert peak is not None
    assert HEAVY <= peak <= 1.05 * HEAVY  # a copy made on the way in would double it


def test_a_networks_activations_are_in_it(probe_of) -> None:
    # At its peak: the normalised image, the convolution's output and the ReLU's.
    image, activation = 4 * 3 * 512**2, 4 * 64 * 512**2
    peak = peak_memory(probe_of("wide", 512))
    assert peak == pytest.approx(image + 2 * activation, rel=0.03)


def test_a_files_weights_are_in_it_and_nothing_of_its_runtime(probe_of, tmp_path: Path) -> None:
    probe = probe_of("heavy", 8, width=WIDTH)
    module = networks.build(probe.architecture, torch.zeros(2, 3, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = (torch.zeros(1, 3, 8, 8),), tmp_path / "net.onnx"
        torch.onnx.export(module, *arguments, dynamo=True, verbose=False, external_data=False)
    peak = peak_memory(Probe(name="net", path=tmp_path / "net.onnx", shape=(3, 8, 8), threads=1))
    assert peak is not None
    assert HEAVY <= peak <= 2.1 * HEAVY  # the runtime has the file and its own copy at once


def test_what_fails_there_is_an_error_here(probe_of) -> None:
    probe = probe_of("wide", 8)
    probe.path.write_bytes(b"nothing")
    with pytest.raises(MeasurementError, match=r"net: the process that measures its memory ended with 1: .*header"):
        peak_memory(probe)


def test_a_description_survives_the_way(probe_of) -> None:
    probe = probe_of("heavy", 8, width=3)
    assert PROBE.validate_json(PROBE.dump_json(probe)) == probe


def test_without_a_high_water_mark_nothing_is_measured(probe_of, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = probe_of("wide", 8)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_memory(probe) is None
    monkeypatch.undo()

    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(memory.Path, "write_text", refused)
    module = networks.build(
        Architecture(build="torch.nn:Identity", args={}, mean=(0.0,) * 3, std=(1.0,) * 3), torch.zeros(2, 3, 8, 8)
    )
    assert memory._network_peak(module, torch.zeros(1, 3, 8, 8)) is None
