"""What the tests of the plan and of the run share: a configuration whose files need not be real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from robustgate.config import load
from robustgate.engine.plan import Plan, make_plan

CONFIGURATION = """
[domains.amazon]
kind = "npz"
files = { test = "amazon.npz" }
[domains.webcam]
kind = "npz"
files = { test = "webcam.npz" }

[models.resnet18]
build = "torchvision.models:resnet18"
normalize = "inside"
weights = { amazon = "amazon.safetensors" }

[compressions.fp60]
steps = [{ method = "filter_pruning", ratio = 0.6, finetune = { epochs = 5 } }]
[compressions.fp60_ptsq]
steps = [{ use = "fp60" }, { method = "static_quantization" }]
[compressions.fp25]
steps = [{ method = "filter_pruning", ratio = 0.25 }]

[shifts]
pairs = [["amazon", "webcam"]]
corruptions = { names = ["fog"], severities = [3, 1] }

[attacks.pgd]
method = "pgd"
eps = 0.004
steps = 40
[attacks.far]
method = "pgd"
norm = "l2"
eps = 0.25
steps = 10

[masking]
enabled = false

[policies.edge]
[[policies.edge.rules]]
name = "floor"
min = 0.4
"""


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    """Plan the configuration above, with texts replaced, each of which must be there, and more text at its end."""
    for name in ("amazon", "webcam"):
        (tmp_path / f"{name}.safetensors").touch()

    def plan(*changes: tuple[str, str], extra: str = "", policy: str | None = None) -> Plan:
        text = CONFIGURATION
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "robustgate.toml"
        path.write_text(text + extra)
        return make_plan(load(path), policy)

    return plan
