"""How much memory an artifact takes: the peak of a process of its own that loads it and runs one image on the CPU.

``python -m robustgate.engine.memory`` is that process: a `Probe` comes in as JSON, the bytes go out.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file as load_weights
from torch import Tensor, nn

from robustgate.core.components import Architecture, Reading
from robustgate.core.errors import MeasurementError
from robustgate.engine import networks
from robustgate.engine.subjects import Subject, load_file

UNMEASURED = "it is measured on Linux only, where /proc/self/clear_refs can be written"
# Freed blocks go back to the system at once; the allocator would keep those of the warm-up, and hide what comes after.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What it takes to load an artifact elsewhere: its file, and for a torch network its architecture."""

    name: str
    path: Path
    shape: tuple[int, int, int]
    threads: int
    architecture: Architecture | None = None
    reading: Reading = field(default_factory=Reading)


PROBE = TypeAdapter(Probe)


def peak_memory(probe: Probe) -> int | None:
    """Return the bytes that loading an artifact and running one image takes at its peak; None where that is unknown.

    For a file, how far the resident memory of a process rises above what it was before the file was loaded, its runtime
    being warm. For a torch network, which needs a moment more to build than to have, the bytes of its weights and how
    far the memory rises as it runs. Raises MeasurementError where the process fails.
    """
    if sys.platform != "linux":
        return None
    environment = {**os.environ, **ALLOCATOR, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "robustgate.engine.memory"]
    done = subprocess.run(  # noqa: S603 - our own interpreter, no shell
        command, input=PROBE.dump_json(probe).decode(), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise MeasurementError(
            f"{probe.name}: the process that measures its memory ended with {done.returncode}: {reason}"
        )
    peak: int | None = json.loads(done.stdout.splitlines()[-1])
    return peak


def measured(probe: Probe) -> int | None:
    """Measure in this process, which has done nothing else."""
    torch.set_num_threads(probe.threads)
    image = torch.full((1, *probe.shape), 0.5)
    if probe.architecture is not None:
        return _network_peak(_network(probe.path, probe.architecture, image), image)
    _load(probe).logits(image)  # the runtime's own code and threads are none of the file's
    before = _reset()
    subject = _load(probe)
    subject.logits(image)
    return None if before is None else _status("VmHWM") - before


def _load(probe: Probe) -> Subject:
    return load_file(probe.path, probe.reading or Reading(), probe.name, torch.device("cpu"), probe.threads)


def _network(path: Path, architecture: Architecture, image: Tensor) -> nn.Module:
    module = networks.build(architecture, image.expand(2, -1, -1, -1))
    module.load_state_dict(load_weights(path))
    return module.eval()


def _network_peak(module: nn.Module, image: Tensor) -> int | None:
    weights = sum(value.numel() * value.element_size() for value in (*module.parameters(), *module.buffers()))
    with torch.inference_mode():
        module(image)
        before = _reset()
        module(image)
    return None if before is None else weights + _status("VmHWM") - before


def _reset() -> int | None:
    """Set the high-water mark back to what is resident now; return that, or None where it is not allowed."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status("VmRSS")


def _status(key: str) -> int:
    """Return a figure of this process in bytes."""
    found = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise MeasurementError(f"/proc/self/status: expected a line {key!r}, got none")
    return 1024 * int(found[1])


if __name__ == "__main__":
    print(json.dumps(measured(PROBE.validate_json(sys.stdin.read()))))  # noqa: T201 - its answer
