"""8-bit post-training quantization: exported to ONNX, quantized by ONNX Runtime, in QDQ form.

The file that comes out is what ships, and what is judged. The first convolution's activations are quantized after
normalisation, which stays in float32 inside the file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.compression._calibration import CalibratedQuantizer
from robustgate.compression._fake_quantization import check_file, fake_quantized, write
from robustgate.core.components import ConstraintKind, ModelFile
from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    from robustgate.core.components import Network, Workshop

__all__ = ["StaticQuantization"]

NAME = "static_quantization"


@dataclass(frozen=True, kw_only=True)
class StaticQuantization(CalibratedQuantizer):
    """Quantize weights to int8 and activations to 8 bits; ends the chain with an ONNX file.

    The ranges of activations are taken from at most `calibration_images` of the source domain's calibration split,
    spread evenly over it (many data sets are stored class by class): their extremes, or a percentile (99.999), or the
    range that loses least information (`calibration`). `per_channel` gives each filter its own scale. `reduce_range`
    leaves weights one bit of room, so that the file answers alike on processors with and without VNNI.

    Zero is a code of its own, so zeros stay zero. Clusters of a layer stay clusters of its codes: one step for the
    whole layer, and a batch normalisation's factors in the scales of its channels. Where such a factor is negative
    its scale is too, which ONNX Runtime computes right and other runtimes may refuse. A network that has quantizers
    already is written with those, and this step's parameters are not used.
    """

    product: ClassVar[Literal["network", "file"]] = "file"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset()
    keeps: ClassVar[frozenset[ConstraintKind]] = frozenset({"zeros", "clusters", "quantizers"})

    per_channel: bool = True

    def apply(self, network: Network, workshop: Workshop) -> ModelFile:
        """Write the quantized file into the workshop's folder. The same network and images give the same bytes."""
        path = workshop.folder / "int8.onnx"
        kinds = {one.kind for one in network.constraints}
        if "quantizers" in kinds:
            return write(network, path, method=NAME)
        if "clusters" not in kinds:
            path = self.quantize(network.module, workshop, per_channel=self.per_channel, method=NAME)
            check_file(path, network, method=NAME)
            return ModelFile(path=path)
        if not self.per_channel:
            raise CompressionError(f"{NAME}: a network with clusters needs per_channel = true, got false")
        module = fake_quantized(network, workshop, self, method=NAME)
        return write(replace(network, module=module), path, method=NAME)
