"""Multiplications are those that torch's own counter finds, and counting them does not import torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from robustgate.core.counts import count_macs


class Branches(nn.Module):
    """A network with control flow of torch's own, which its compiler traces."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(3, -1)
        return torch.cond(x.sum() > -1, lambda y: y @ y.T, lambda y: y @ y.T, (rows,))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "make",
    [models.resnet18, models.mobilenet_v3_small, models.swin_t, lambda: torch.jit.script(models.resnet18()), Branches],
    ids=["resnet18", "mobilenet", "swin", "script", "branches"],
)
def test_it_is_half_of_what_torch_counts(make) -> None:
    network, example = make().eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(example[:1])
    assert count_macs(network, example) == counter.get_total_flops() // 2 > 0


def test_what_a_network_raises_is_raised() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        count_macs(nn.Linear(5, 2), torch.zeros(1, 3))


def test_the_compiler_is_not_imported() -> None:
    probe = (
        "import sys, torch; from robustgate.core.counts import count_macs\n"
        "print(count_macs(torch.nn.Linear(5, 2), torch.zeros(1, 5)), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "10 False\n"
