"""What all tests share: the folder of real data, and a tiny project whose every figure has a closed form."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from robustgate.config import load
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.engine.results import Circumstances, assemble, key
from robustgate.reports.results_json import write

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data and weights. Without it a test skips and says why; in CI it fails."""
    folder = os.environ.get("ROBUSTGATE_DATA")
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"needs real data: ROBUSTGATE_DATA must name its folder, it is {folder!r}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


# A network that tells bright images from dark ones: its decision is (sum of filters) * mean brightness > threshold.
TINY_NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, filters=4, classes=2):
        super().__init__()
        self.conv = nn.Conv2d(3, filters, 1, bias=False)
        self.head = nn.Linear(filters, classes)

    def forward(self, x):
        return self.head(nn.functional.relu(self.conv(x)).mean((2, 3)))

net = Net
"""
FILTERS = torch.tensor([1.0, 1.0, 1.0, 0.1])
TINY_CONFIGURATION = """
[gate]
cache = "cache"

[domains.day]
kind = "npz"
files = { train = "day.npz", calibration = "day.npz", test = "day.npz" }
[domains.night]
kind = "npz"
files = { test = "night.npz" }

[models.tiny]
build = "tiny_network:net"
normalize = "inside"
weights = { day = "tiny.safetensors" }

[compressions.fp25]
steps = [{ method = "filter_pruning", ratio = 0.25 }]

[shifts]
pairs = "all"
corruptions = { names = ["contrast"], severities = [1, 5] }

[attacks.fgsm]
method = "fgsm"
eps = 0.05
[attacks.pgd]
method = "pgd"
eps = 0.02
steps = 4

[masking]
enabled = false

[policies.edge]
[[policies.edge.rules]]
name = "floor"
min = 0.3
[[policies.edge.rules]]
name = "holds"
where = { compression = "fp*", kind = "clean" }
max_drop = 0.3
"""

RED_CONFIGURATION = """
[gate]
cache = "cache"

[domains.day]  # its splits
kind = "npz"
files = { FILES }

[models.tiny]
build = "tiny_network:net"
normalize = "inside"
weights = { day = "tiny.safetensors" }

# One filter is left.
[compressions.fp75]
steps = [{ method = "filter_pruning", ratio = 0.75 }]  # as it ships

[masking]
enabled = false

[policies.edge]
[[policies.edge.rules]]
name = "floor"
min = 0.9  # of the images
"""


@dataclass(frozen=True)
class TinyProject:
    """A folder with a configuration, a network of known decisions and two domains of grey images."""

    folder: Path
    day: np.ndarray
    night: np.ndarray

    def configure(self, *changes: tuple[str, str], extra: str = "") -> Path:
        """Write robustgate.toml with texts replaced, each of which must be there."""
        return self._written(TINY_CONFIGURATION, changes, extra)

    def write_weights(self, filters: torch.Tensor = FILTERS) -> None:
        """Write weights that call an image bright when its mean is above one half."""
        count = len(filters)
        state = {
            "conv.weight": (filters / 3)[:, None, None, None].expand(count, 3, 1, 1).contiguous(),
            "head.weight": torch.stack([torch.zeros(count), torch.full((count,), 20.0)]),
            "head.bias": torch.tensor([0.0, -20 * 0.5 * float(FILTERS.sum())]),
        }
        save_file(state, self.folder / "tiny.safetensors")

    def write_red(self, extra: str = "", *changes: tuple[str, str]) -> Path:
        """Write a gate that a training can mend: pruned to one filter, everything is dark; splits share no image.

        Returns the configuration, with texts replaced and `extra` at its end.
        """
        rng = np.random.default_rng(0)
        for split, levels in {"train": np.tile(self.day, 4), "calibration": self.day, "test": self.day}.items():
            noise = rng.integers(-9, 10, (len(levels), 8, 8, 3)) - 0.5 * (split == "test")
            images = np.clip(levels[:, None, None, None] + noise, 0, 255).astype(np.uint8)
            labels = (levels > 127).astype(np.int64)
            np.savez(self.folder / f"{split}.npz", images=images, labels=labels, classes=np.array(["dark", "bright"]))
        files = 'train = "train.npz", calibration = "calibration.npz", test = "test.npz"'
        return self._written(RED_CONFIGURATION.replace("FILES", files), changes, extra)

    def _written(self, text: str, changes: tuple[tuple[str, str], ...], extra: str) -> Path:
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = self.folder / "robustgate.toml"
        path.write_text(text + extra)
        return path

    @staticmethod
    def correct(levels: np.ndarray, threshold: float = 127.5, shift: float = 0.0) -> int:
        """Count images that are still right when an adversary moves their brightness by `shift` grey levels."""
        labels = levels > 127
        return int(np.where(labels, levels - shift > threshold, levels + shift <= threshold).sum())


@pytest.fixture
def judged() -> Callable[..., Path]:
    """Judge a configuration's cases and costs, or those of one compression, as a run does; write its results.json."""

    def judge(configuration: Path, compression: str = "*") -> Path:
        plan, started = make_plan(load(configuration)), datetime.now(UTC)
        gate = Gate(plan, today=started.date())
        cases = [case for case in plan.cases if compression in ("*", case.variant.compression)]
        variants = dict.fromkeys(case.variant for case in cases)
        told = Circumstances(id="x", started=started, seconds=1.0, device="cpu", processor="x", versions={})
        rows = {key(case): gate.result(case) for case in cases}
        records = [gate.record(one) for one in variants]
        findings = [finding for one in variants for finding in gate.cost(one)[1]]
        path = configuration.parent / "results.json"
        write(assemble(plan, rows, records, findings, set(rows), told), path)
        return path

    return judge


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """A tiny project in a fresh folder, which is importable and the current one."""
    day = np.arange(56, 200, 1, dtype=np.uint8)
    night = np.arange(110, 150, 1, dtype=np.uint8)
    for name, levels in (("day", day), ("night", night)):
        images = np.broadcast_to(levels[:, None, None, None], (len(levels), 8, 8, 3)).copy()
        labels = (levels > 127).astype(np.int64)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels, classes=np.array(["dark", "bright"]))
    (tmp_path / "tiny_network.py").write_text(TINY_NETWORK)
    # Another test of this process may have imported its own.
    monkeypatch.delitem(sys.modules, "tiny_network", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    project = TinyProject(folder=tmp_path, day=day, night=night)
    project.write_weights()
    project.configure()
    return project
