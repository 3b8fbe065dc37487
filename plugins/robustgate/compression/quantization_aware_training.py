"""Quantization-aware training (Jacob et al. 2018, arXiv 1712.05877): the fine-tuning computes as the 8-bit file will.

What is trained is the file's own graph, with weights, biases and activations rounded on the way.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.compression._calibration import CalibratedQuantizer
from robustgate.compression._fake_quantization import fake_quantized, simulation, write
from robustgate.core.components import Constraint, ConstraintKind, Edit, Network

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustgate.core.components import ModelFile, Workshop

__all__ = ["QuantizationAwareTraining"]

NAME = "quantization_aware_training"


@dataclass(frozen=True, kw_only=True)
class QuantizationAwareTraining(CalibratedQuantizer):
    """Fine-tune with simulated int8 weights and 8-bit activations, then write the ONNX file with those very scales.

    The parameters are those of static quantization; its file, one scale a filter, is where training begins. The
    gradient passes rounding unchanged (straight-through), and stops where an activation was clamped.

    What the papers do otherwise, or leave open: batch normalisation is folded from the start and its statistics
    frozen, which Krishnamoorthi 2018 (arXiv 1806.08342) reaches in the last part of training only; the ranges of
    activations are fixed by calibration, where Jacob et al. follow them by moving averages; the scales of weights
    follow the weights at every step; dropout is off. Weights and biases of convolutions and linear layers are
    trained, everything else stays. A constraint is kept as by static quantization.

    With `simulated` the product is the network that simulates the file, not the file: a trap, there to be measured.
    What holds in simulation can fail in the file, since what runs it rounds, fuses and saturates in its own ways
    (arXiv 2512.24971: ResNet-50 on CIFAR-10 from 93.0 to 62.9 %). Static quantization writes the file that such a
    network simulates.
    """

    makes: ClassVar[frozenset[ConstraintKind]] = frozenset({"quantizers"})
    keeps: ClassVar[frozenset[ConstraintKind]] = frozenset({"zeros", "clusters"})

    simulated: bool = False

    @property
    def product(self) -> Literal["network", "file"]:
        """A file, or the network that simulates it."""
        return "network" if self.simulated else "file"

    def apply(self, network: Network, workshop: Workshop) -> Network:
        """Return the network that simulates its quantized file, for the fine-tuning."""
        module = fake_quantized(network, workshop, self, method=NAME)
        return Network(
            module=module,
            architecture=network.architecture.edited(Edit(method=NAME, payload=module.payload())),
            constraints=(*network.constraints, Constraint(kind="quantizers")),
        )

    def finish(self, network: Network, workshop: Workshop) -> Network | ModelFile:
        """Return the file of the fine-tuned network, or the network with its weights on their steps."""
        if not self.simulated:
            return write(network, workshop.folder / "int8.onnx", method=NAME)
        module = copy.deepcopy(simulation(network, method=NAME))
        module.snap()
        return replace(network, module=module)

    @staticmethod
    def redo(module: nn.Module, edit: Edit, example: Tensor) -> nn.Module:  # noqa: ARG004 - the payload says it all
        """Make the simulating network again, without its weights."""
        from robustgate.twin.fake_quantized import FakeQuantized

        return FakeQuantized.from_payload(edit.payload)
